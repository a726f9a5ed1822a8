"""Axes that only a run knows: sizes of the results as arithmetic on a 0 or 1 for every axis."""

from __future__ import annotations

from collections.abc import Sequence

from onnxsmith_compiler.ir import dim as dims
from onnxsmith_compiler.ir.dim import Dim
from onnxsmith_compiler.ir.graph import Value
from onnxsmith_compiler.onnx.node_import import NodeImport
from onnxsmith_compiler.ops.checked_sizes import AxisMask

Mask = tuple[Dim, ...]


def axis_mask(node: NodeImport, axes: Value, rank: int, all_if_none: bool = False) -> Mask:
    """For each of `rank` axes 1 where the integer tensor `axes` names it, else 0."""
    mask = node.emit(AxisMask(rank, all_if_none), axes)
    return tuple(node.builder.late_symbol(mask, axis, stem="axis") for axis in range(rank))


def equals(a: Dim, b: Dim) -> Dim:
    """1 where a == b, else 0."""
    return 1 - dims.minimum(1, dims.maximum(a - b, b - a))


def count_of(node: NodeImport, axes: Value) -> int:
    """The number of axes named, which a result's rank depends on."""
    count = axes.type.size
    if not isinstance(count, int):
        raise node.unsupported("the number of axes is known only when the model runs, and so the result's rank")
    return count


def without_axes(mask: Mask, sizes: Sequence[Dim], rank: int) -> tuple[Dim, ...]:
    """The `rank` sizes of those axes whose mask is 0, in order."""
    result: list[Dim] = [0] * rank
    place: Dim = 0
    for axis, (named, size) in enumerate(zip(mask, sizes, strict=True)):
        for position in range(min(axis + 1, rank)):
            result[position] = result[position] + (1 - named) * equals(place, position) * size
        place = place + 1 - named
    return tuple(result)


def with_axes(mask: Mask, sizes: Sequence[Dim]) -> tuple[Dim, ...]:
    """A size of 1 for those axes whose mask is 1, the others' being `sizes` in order."""
    result: list[Dim] = []
    place: Dim = 0
    for named in mask:
        own: Dim = 0
        for position, size in enumerate(sizes):
            own = own + equals(place, position) * size
        result.append(named + (1 - named) * own)
        place = place + 1 - named
    return tuple(result)
