"""Matrix products and convolutions as the importer writes them: the layout pass chooses their kernels."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from onnxsmith_compiler.ir import dim as dims
from onnxsmith_compiler.ir import dtype as dtypes
from onnxsmith_compiler.ir.graph import Relation, TensorType, Value
from onnxsmith_compiler.ops.base import (
    Op,
    ShapeError,
    SizePair,
    Types,
    broadcast_assumptions,
    broadcast_shapes,
    required,
)
from onnxsmith_compiler.ops.builder import GraphBuilder
from onnxsmith_compiler.ops.cast import Cast
from onnxsmith_compiler.ops.packed import DepthwiseConv, PackedConv, PackedMatMul, Window, pack_columns
from onnxsmith_compiler.ops.view import Pad, Reshape, Slice, Transpose
from onnxsmith_compiler.ops.windows import ChannelsFirst, TileColumns


@dataclass(frozen=True)
class MatMul(Op):
    """numpy.matmul of tensors of rank 2 and up: [..., M, K] x [..., K, N], the leading axes broadcast."""

    def infer(self, inputs: Types) -> tuple[TensorType, ...]:
        a, b = required(inputs, 0), required(inputs, 1)
        if a.rank < 2 or b.rank < 2 or a.dtype is not b.dtype:
            raise ShapeError(f"cannot multiply {a} and {b}")
        if isinstance(a.shape[-1], int) and isinstance(b.shape[-2], int) and a.shape[-1] != b.shape[-2]:
            raise ShapeError(f"cannot multiply {a} and {b}: the inner sizes {a.shape[-1]} and {b.shape[-2]} differ")
        batch = broadcast_shapes([a.shape[:-2], b.shape[:-2]])
        return (TensorType(a.dtype, (*batch, a.shape[-2], b.shape[-1])),)

    def assumes(self, inputs: Types) -> Iterable[SizePair]:
        a, b = required(inputs, 0).shape, required(inputs, 1).shape
        yield a[-1], b[-2], Relation.EQUAL
        yield from broadcast_assumptions([a[:-2], b[:-2]])

    def evaluate(
        self, inputs: Sequence[np.ndarray | None], types: Sequence[TensorType]
    ) -> tuple[np.ndarray, ...] | None:
        a, b = inputs
        assert a is not None and b is not None
        if a.dtype.kind not in "fiu" or a.size + b.size > 1 << 20:
            return None
        return (np.matmul(a, b),)


def convolution_pairs(inputs: Types, window: Window, groups: int) -> Iterable[SizePair]:
    """The sizes of an image [N, C, spatial...] and of weights [O, C / groups, window...] that must fit."""
    weights = required(inputs, 1).shape
    yield required(inputs, 0).shape[1], weights[1] * groups, Relation.EQUAL
    yield dims.modulo(weights[0], groups), 0, Relation.EQUAL
    for size, taps in zip(weights[2:], window.size, strict=True):
        yield size, taps, Relation.EQUAL


@dataclass(frozen=True)
class Conv(ChannelsFirst):
    """Convolution of [N, C, spatial...] with weights [O, C / groups, window...]: [N, O, positions...]."""

    window: Window
    groups: int = 1

    def infer(self, inputs: Types) -> tuple[TensorType, ...]:
        x, weights = required(inputs, 0), required(inputs, 1)
        if x.rank != weights.rank or x.rank != self.window.rank + 2:
            raise ShapeError(f"cannot convolve {x} with weights {weights}: the ranks differ")
        channels = weights.shape[1] * self.groups
        if isinstance(x.shape[1], int) and isinstance(channels, int) and x.shape[1] != channels:
            raise ShapeError(f"{x} has {x.shape[1]} channels, the weights are for {channels}")
        return (TensorType(x.dtype, (x.shape[0], weights.shape[0], *self.window.output(x.shape[2:]))),)

    def assumes(self, inputs: Types) -> Iterable[SizePair]:
        return convolution_pairs(inputs, self.window, self.groups)

    def emit_channels_last(
        self, builder: GraphBuilder, tile_columns: TileColumns, x: Value, *rest: Value | None
    ) -> tuple[Value, ...]:
        (weights,) = rest
        assert weights is not None
        if x.dtype.compute is not x.dtype:
            wide = builder.emit(Cast(dtypes.FLOAT32), weights)
            result = self.emit_channels_last(builder, tile_columns, builder.emit(Cast(dtypes.FLOAT32), x), wide)
            return (builder.emit(Cast(x.dtype), *result),)
        outputs, inputs = weights.shape[0], weights.shape[1]
        if self.groups > 1 and inputs == 1 and outputs == self.groups:
            order = (*range(1, weights.rank - 1), 0)
            flat = builder.emit(Reshape((outputs, *weights.shape[2:])), weights)
            return (builder.emit(DepthwiseConv(self.window), x, builder.emit(Transpose(order), flat)),)
        columns = tile_columns(x.dtype, dims.floordiv(outputs, self.groups))
        packed = _pack_weights(builder, weights, self.groups, columns)
        if self.groups == 1 and self.window.is_pointwise:
            panels = builder.emit(Reshape(packed.shape[1:]), packed)
            return (builder.emit(PackedMatMul(outputs, columns), x, panels),)
        return (builder.emit(PackedConv(self.window, self.groups, outputs, columns), x, packed),)


def _pack_weights(builder: GraphBuilder, weights: Value, groups: int, columns: int) -> Value:
    """[O, I / groups, window...] as [groups, panels, K, columns]; K runs over the taps, then over the channels."""
    outputs, inputs = dims.floordiv(weights.shape[0], groups), weights.shape[1]
    taps = dims.product(weights.shape[2:])
    grouped = builder.emit(Reshape((groups, outputs, inputs, taps)), weights)
    turned = builder.emit(Transpose((0, 3, 2, 1)), grouped)
    matrices = builder.emit(Reshape((groups, taps * inputs, outputs)), turned)
    return pack_columns(builder, matrices, columns)


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
        """A convolution with the turned window over x with zeros put between its elements."""
        (weights,) = rest
        assert weights is not None
        spread = _spread(builder, x, self.window.strides)
        before, after = [], []
        for axis, extent in enumerate(self.window.extents()):
            before.append(extent - 1 - self.window.before[axis])
            after.append(extent - 1 - self.window.after[axis] + self.extra[axis])
        ones = (1,) * self.window.rank
        window = Window(self.window.size, ones, self.window.dilations, tuple(before), tuple(after))
        return Conv(window, self.groups).emit_channels_last(
            builder, tile_columns, spread, _turn(builder, weights, self.groups)
        )


def _spread(builder: GraphBuilder, x: Value, strides: Sequence[int]) -> Value:
    """x of shape [N, spatial..., C] with stride - 1 zeros after each element but the last of every spatial axis."""
    if all(stride == 1 for stride in strides):
        return x
    batch, *spatial, channels = x.shape
    wide = builder.emit(Reshape((batch, *(part for size in spatial for part in (size, 1)), channels)), x)
    rank = wide.rank
    after = [0] * rank
    for axis, stride in enumerate(strides):
        after[2 + 2 * axis] = stride - 1
    zero = builder.constant(x.dtype.storage.type(0), x.dtype)
    padded = builder.emit(Pad((0,) * rank, tuple(after)), wide, zero)
    full = tuple(size * stride for size, stride in zip(spatial, strides, strict=True))
    merged = builder.emit(Reshape((batch, *full, channels)), padded)
    sizes = tuple(size - stride + 1 for size, stride in zip(full, strides, strict=True))
    sizes = tuple(dims.maximum(0, size) for size in sizes)
    whole = merged.rank
    return builder.emit(Slice((0,) * whole, (1,) * whole, (batch, *sizes, channels)), merged)


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
