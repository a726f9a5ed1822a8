"""Matrix products and convolutions as the importer writes them: the layout pass chooses their kernels."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

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
from onnxsmith_compiler.ops.packed import DepthwiseConv, PackedConv, PackedMatMul, Window, pack_columns, widened
from onnxsmith_compiler.ops.view import Reshape, Transpose
from onnxsmith_compiler.ops.windows import ChannelsFirst, TileColumns


@dataclass(frozen=True)
class MatMul(Op):
    """numpy.matmul of tensors of rank 2 and up: [..., M, K] x [..., K, N], the leading axes broadcast.

    `exact`: no option may have its operands rounded.
    """

    exact: bool = False

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
    """Convolution of [N, C, spatial...] with weights [O, C / groups, window...]: [N, O, positions...].

    `exact`: no option may have its operands rounded.
    """

    window: Window
    groups: int = 1
    exact: bool = False

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
            wide = builder.emit(Cast(dtypes.FLOAT32), x), widened(builder, weights)
            conv = replace(self, exact=self.exact or x.dtype is dtypes.FLOAT16)
            return (builder.emit(Cast(x.dtype), *conv.emit_channels_last(builder, tile_columns, *wide)),)
        outputs, inputs = weights.shape[0], weights.shape[1]
        if self.groups > 1 and inputs == 1 and outputs == self.groups:
            order = (*range(1, weights.rank - 1), 0)
            wide_weights = weights if weights.dtype is x.dtype else builder.emit(Cast(x.dtype), weights)
            flat = builder.emit(Reshape((outputs, *weights.shape[2:])), wide_weights)
            return (builder.emit(DepthwiseConv(self.window), x, builder.emit(Transpose(order), flat)),)
        columns = tile_columns(x.dtype, dims.floordiv(outputs, self.groups))
        if self.groups == 1 and self.window.is_pointwise:
            matrix = builder.emit(Transpose((1, 0)), builder.emit(Reshape((outputs, inputs)), weights))
            panels = pack_columns(builder, matrix, columns)
            return (builder.emit(PackedMatMul(outputs, columns, self.exact), x, panels),)
        packed = _pack_weights(builder, weights, self.groups, columns)
        return (builder.emit(PackedConv(self.window, self.groups, outputs, columns, self.exact), x, packed),)


def _pack_weights(builder: GraphBuilder, weights: Value, groups: int, columns: int) -> Value:
    """[O, I / groups, window...] as [groups, panels, K, columns]; K runs over the taps, then over the channels."""
    outputs, inputs = dims.floordiv(weights.shape[0], groups), weights.shape[1]
    taps = dims.product(weights.shape[2:])
    grouped = builder.emit(Reshape((groups, outputs, inputs, taps)), weights)
    turned = builder.emit(Transpose((0, 3, 2, 1)), grouped)
    return pack_columns(builder, turned, columns, depth_axes=2)
