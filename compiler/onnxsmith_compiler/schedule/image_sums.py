"""Sums over whole images come out of the kernel that makes the images, which need not be read again for them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TypeAlias

from onnxsmith_compiler.ir import dim as dims
from onnxsmith_compiler.ir import loop
from onnxsmith_compiler.ir.dim import Dim
from onnxsmith_compiler.ir.graph import TensorType, Value
from onnxsmith_compiler.ir.loop import Computation
from onnxsmith_compiler.schedule.groups import ContractGroup, Group, LoopGroup

SummedPixels: TypeAlias = Callable[[ContractGroup], int | None]


def join_image_sums(groups: Sequence[Group], summed_pixels: SummedPixels) -> list[Group]:
    """`groups` with sums over all pixels of an image made in two steps, the first by the kernel that makes the pixels.

    That one adds up neighbours of each line, and the reduction reads these sums. `summed_pixels(group)` says how many
    neighbours a contraction's kernel can add up, None if it cannot. Which pixels are added in which order is a matter
    of the image's sizes alone.
    """
    makers = {group.outputs[0]: group for group in groups if isinstance(group, ContractGroup)}
    replaced: dict[Group, Group] = {}
    for group in groups:
        if not isinstance(group, LoopGroup) or len(group.stages) != 1:
            continue
        (stage,) = group.stages
        images = _summed_images(stage.computation)
        maker = None if images is None else makers.get(images)
        if images is None or maker is None or maker in replaced:
            continue
        pixels = summed_pixels(maker)
        if pixels is not None and _is_shorter(images.shape, pixels):
            sums = Value(f"{images.name}_sums", TensorType(images.dtype, _sums_shape(images.shape, pixels)))
            replaced[maker] = replace(maker, sums=sums)
            replaced[group] = replace(group, stages=(replace(stage, computation=_of_sums(stage.computation, sums)),))
    return [replaced.get(group, group) for group in groups]


def _summed_images(computation: Computation) -> Value | None:
    """The images [N, spatial..., C] whose every channel `computation` adds up, if it does just that.

    Their type must be one that sums are stored in as they are computed.
    """
    load = computation.body
    if computation.combine != "sum" or computation.guard is not None or computation.store is not None:
        return None
    if not isinstance(load, loop.Load) or load.value.rank < 3 or load.value.dtype.compute is not load.value.dtype:
        return None
    image, *pixel, channel = load.index
    if any(dims.depends_on(place, axis) for place in (image, channel) for axis in computation.reduce):
        return None
    walked = {(dims.from_atom(axis), axis.extent) for axis in computation.reduce if axis.extent != 1}
    sizes = zip(pixel, load.value.shape[1:-1], strict=True)
    places = [(place, size) for place, size in sizes if size != 1]
    return load.value if len(places) == len(walked) and set(places) == walked else None


def _sums_shape(shape: Sequence[Dim], pixels: int) -> tuple[Dim, ...]:
    image, *lines, width, channels = shape
    return (image, *lines, dims.ceildiv(width, pixels), channels)


def _is_shorter(shape: Sequence[Dim], pixels: int) -> bool:
    """Whether there is more than one sum, and not about as many as pixels; taken to be so where sizes are not known."""
    count, sums = dims.product(shape[1:-1]), dims.product(_sums_shape(shape, pixels)[1:-1])
    return not isinstance(count, int) or not isinstance(sums, int) or 1 < sums <= count // 2


def _of_sums(computation: Computation, sums: Value) -> Computation:
    """`computation`, which adds up images, over the sums of neighbours in place of the pixels."""
    assert isinstance(computation.body, loop.Load)
    image, *_, channel = computation.body.index
    walked = loop.axes_for(sums.shape[1:-1], "r")
    body = loop.load(sums, (image, *loop.index_of(walked), channel))
    return replace(computation, body=body, reduce=walked)
