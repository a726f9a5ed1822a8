"""The transpose of a convolution, as convolutions."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from onnxsmith_compiler.ir import dim as dims
from onnxsmith_compiler.ir.dim import Dim
from onnxsmith_compiler.ir.graph import Relation, TensorType, Value
from onnxsmith_compiler.ops.base import ShapeError, SizePair, Types, required
from onnxsmith_compiler.ops.builder import GraphBuilder
from onnxsmith_compiler.ops.contraction import Conv
from onnxsmith_compiler.ops.packed import Window
from onnxsmith_compiler.ops.view import Concat, Expand, Reshape, Slice, Transpose
from onnxsmith_compiler.ops.windows import ChannelsFirst, TileColumns


@dataclass(frozen=True)
class ConvTranspose(ChannelsFirst):
    """The transpose of a convolution: [N, C, spatial...] with weights [C, O / groups, window...].

    Output size: stride * (size - 1) + extra + extent - before - after on each axis.
    """

    window: Window
    groups: int
    extra: tuple[int, ...]

    def infer(self, inputs: Types) -> tuple[TensorType, ...]:
        x, weights = required(inputs, 0), required(inputs, 1)
        if x.rank != weights.rank or x.rank != self.window.rank + 2:
            raise ShapeError(f"cannot convolve {x} with weights {weights}: the ranks differ")
        sizes = []
        for axis, extent in enumerate(self.window.extents()):
            size = self.window.strides[axis] * (x.shape[2 + axis] - 1) + self.extra[axis] + extent
            sizes.append(dims.maximum(0, size - self.window.before[axis] - self.window.after[axis]))
        return (TensorType(x.dtype, (x.shape[0], weights.shape[1] * self.groups, *sizes)),)

    def assumes(self, inputs: Types) -> Iterable[SizePair]:
        weights = required(inputs, 1).shape
        yield required(inputs, 0).shape[1], weights[0], Relation.EQUAL
        yield dims.modulo(weights[0], self.groups), 0, Relation.EQUAL
        for size, taps in zip(weights[2:], self.window.size, strict=True):
            yield size, taps, Relation.EQUAL

    def emit_channels_last(
        self, builder: GraphBuilder, tile_columns: TileColumns, x: Value, *rest: Value | None
    ) -> tuple[Value, ...]:
        """A convolution for every phase: the outputs `stride` apart depend on the same taps of the window."""
        (weights,) = rest
        assert weights is not None
        channels = weights.shape[1] * self.groups
        sizes = self.infer((TensorType(x.dtype, (x.shape[0], x.shape[-1], *x.shape[1:-1])), weights.type))[0].shape[2:]
        strides = self.window.strides
        # Which taps make a phase must be known now: padding that is not is cut off the finished image.
        cut = tuple(0 if isinstance(before, int) else before for before in self.window.before)
        counts = tuple(
            dims.ceildiv(size + start, stride) for size, start, stride in zip(sizes, cut, strides, strict=True)
        )

        places = [
            [self._phase(axis, offset, x.shape[1 + axis], counts[axis]) for axis, offset in enumerate(offsets)]
            for offsets in itertools.product(*map(range, strides))
        ]

        def convolve(*kernels: Value, axes: Sequence[_Phase]) -> Value:
            weights = kernels[0] if len(kernels) == 1 else builder.emit(Concat(0), *kernels)
            return Conv(_window(axes), self.groups).emit_channels_last(builder, tile_columns, x, weights)[0]

        def phase(axes: Sequence[_Phase]) -> Value:
            if any(axis.taps == 0 for axis in axes):
                zero = builder.constant(x.dtype.storage.type(0), x.dtype)
                return builder.emit(Expand((x.shape[0], *counts, channels)), zero)
            return convolve(self._taps(builder, weights, axes), axes=axes)

        if self.groups == 1 and places[0][0].taps and all(_window(axes) == _window(places[0]) for axes in places):
            kernels = [self._taps(builder, weights, axes) for axes in places]
            whole = _to_space(builder, convolve(*kernels, axes=places[0]), strides)
        else:
            whole = _interleave(builder, [phase(axes) for axes in places], strides)
        shape = (x.shape[0], *sizes, channels)
        if whole.shape == shape:
            return (whole,)
        return (builder.emit(Slice((0, *cut, 0), (1,) * len(shape), shape), whole),)

    def _taps(self, builder: GraphBuilder, weights: Value, axes: Sequence[_Phase]) -> Value:
        """The weights of a phase, as those of a convolution."""
        starts = (0, 0, *(axis.first for axis in axes))
        steps = (1, 1, *(axis.step for axis in axes))
        taps = builder.emit(Slice(starts, steps, (*weights.shape[:2], *(axis.taps for axis in axes))), weights)
        return _turn(builder, taps, self.groups)

    def _phase(self, axis: int, offset: int, size: Dim, count: Dim) -> _Phase:
        """Output stride * q + offset is the sum over taps t of x[q + (offset + before - dilation * t) / stride].

        Those are the taps for which that is whole. `size` is x's on the axis, `count` how many q there are.
        """
        stride, dilation, padding = self.window.strides[axis], self.window.dilations[axis], self.window.before[axis]
        before = padding if isinstance(padding, int) else 0
        taps = [t for t in range(self.window.size[axis]) if (offset + before - dilation * t) % stride == 0]
        if not taps:
            return _Phase(0, 0, 1, 1, 0, 0)
        common = math.gcd(stride, dilation)
        # The window is turned around: its last tap is its first place.
        lead = -((offset + before - dilation * taps[-1]) // stride)
        extent = (len(taps) - 1) * (dilation // common) + 1
        return _Phase(len(taps), taps[0], stride // common, dilation // common, lead, count - size - lead + extent - 1)


@dataclass(frozen=True)
class _Phase:
    """The taps of one phase on one axis: how many, the first, the step between them; and its convolution's window."""

    taps: int
    first: int
    step: int
    dilation: int
    before: Dim
    after: Dim


def _window(axes: Sequence[_Phase]) -> Window:
    """The window of a phase's convolution."""
    return Window(
        tuple(axis.taps for axis in axes),
        (1,) * len(axes),
        tuple(axis.dilation for axis in axes),
        tuple(axis.before for axis in axes),
        tuple(axis.after for axis in axes),
    )


def _to_space(builder: GraphBuilder, x: Value, strides: Sequence[int]) -> Value:
    """[N, spatial..., strides... * C] as [N, spatial * strides..., C]."""
    batch, *spatial, channels = x.shape
    rank = len(strides)
    outputs = dims.floordiv(channels, math.prod(strides))
    split = builder.emit(Reshape((batch, *spatial, *strides, outputs)), x)
    order = (0, *(part for axis in range(1, rank + 1) for part in (axis, axis + rank)), 2 * rank + 1)
    turned = builder.emit(Transpose(order), split)
    sizes = (size * stride for size, stride in zip(spatial, strides, strict=True))
    return builder.emit(Reshape((batch, *sizes, outputs)), turned)


def _interleave(builder: GraphBuilder, phases: Sequence[Value], strides: Sequence[int]) -> Value:
    """One image of which each axis has its elements from `phases` in turn; those of the last axis come first there."""
    parts = list(phases)
    for axis in reversed(range(len(strides))):
        stride = strides[axis]
        if stride == 1:
            continue
        place = 2 + axis
        apart = [builder.emit(Reshape((*part.shape[:place], 1, *part.shape[place:])), part) for part in parts]
        joined = [builder.emit(Concat(place), *apart[i : i + stride]) for i in range(0, len(apart), stride)]
        parts = [
            builder.emit(
                Reshape((*part.shape[: place - 1], part.shape[place - 1] * stride, *part.shape[place + 1 :])), part
            )
            for part in joined
        ]
    (whole,) = parts
    return whole


def _turn(builder: GraphBuilder, weights: Value, groups: int) -> Value:
    """[C, O / groups, window...] as the weights [O, C / groups, window...] of the convolution, the window reversed."""
    inputs, outputs, *window = weights.shape
    grouped = builder.emit(Reshape((groups, dims.floordiv(inputs, groups), outputs, *window)), weights)
    order = (0, 2, 1, *range(3, grouped.rank))
    swapped = builder.emit(Transpose(order), grouped)
    joined = builder.emit(Reshape((outputs * groups, dims.floordiv(inputs, groups), *window)), swapped)
    starts = (0, 0, *(size - 1 for size in window))
    steps = (1, 1, *(-1 for _ in window))
    return builder.emit(Slice(starts, steps, joined.shape), joined)
