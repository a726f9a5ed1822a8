"""Pools: reductions over a moving window."""

from __future__ import annotations

from dataclasses import dataclass

from onnxsmith_compiler.ir import dim as dims
from onnxsmith_compiler.ir import dtype as dtypes
from onnxsmith_compiler.ir import loop
from onnxsmith_compiler.ir.atom import LoopIndex
from onnxsmith_compiler.ir.dim import Dim
from onnxsmith_compiler.ir.dtype import DType
from onnxsmith_compiler.ir.graph import Node, TensorType, Value
from onnxsmith_compiler.ops.base import Op, Shape, Types, required
from onnxsmith_compiler.ops.builder import GraphBuilder
from onnxsmith_compiler.ops.packed import Window
from onnxsmith_compiler.ops.windows import ChannelsFirst, TileColumns


@dataclass(frozen=True)
class Pool(ChannelsFirst):
    """Combines what a window covers of [N, C, spatial...]; `kind` as in Reduce. Padding takes no part.

    NaN in a window makes its result NaN, and is where its extreme is: the first one for "argmax_first". ONNX leaves
    that open, and onnxruntime's MaxPool answers differently for each form of the operator. Where a dilated window
    covers padding alone, the result is that of nothing, and the position of its extreme -1.
    """

    kind: str
    window: Window

    @property
    def name(self) -> str:
        return f"pool_{self.kind}"

    def infer(self, inputs: Types) -> tuple[TensorType, ...]:
        x = required(inputs, 0)
        return (TensorType(_result(self.kind, x.dtype), (*x.shape[:2], *self.window.output(x.shape[2:]))),)

    def emit_channels_last(
        self, builder: GraphBuilder, tile_columns: TileColumns, x: Value, *rest: Value | None
    ) -> tuple[Value, ...]:
        return (builder.emit(PoolLast(self.kind, self.window), x),)


def _result(kind: str, dtype: DType) -> DType:
    return dtypes.INT64 if kind.startswith("arg") else dtype


@dataclass(frozen=True)
class PoolLast(Op):
    """Pool of [N, spatial..., C]: [N, positions..., C]."""

    kind: str
    window: Window

    @property
    def name(self) -> str:
        return f"pool_{self.kind}"

    def infer(self, inputs: Types) -> tuple[TensorType, ...]:
        x = required(inputs, 0)
        return (TensorType(_result(self.kind, x.dtype), (x.shape[0], *self.window.output(x.shape[1:-1]), x.shape[-1])),)

    def lower(self, node: Node) -> loop.Computation:
        (x,) = node.operands()
        axes = loop.axes_for(node.output.shape)
        index = loop.index_of(axes)
        taps = tuple(LoopIndex(f"k{axis}", size) for axis, size in enumerate(self.window.size))
        positions = self.window.positions(index[1:-1], loop.index_of(taps))
        body = loop.load(x, (index[0], *positions, index[-1]))
        return loop.Computation(axes, body, taps, self.kind, loop.all_in_range(positions, x.shape[1:-1]))


@dataclass(frozen=True)
class WindowCount(Op):
    """How many elements a window covers at each of its positions, [1, 1, positions...].

    `low` and `high` say for each axis which positions of the input count: [low, high). 1 where none does, so that the
    mean over nothing is 0.
    """

    window: Window
    positions: Shape
    low: tuple[Dim, ...]
    high: tuple[Dim, ...]
    dtype: DType

    def infer(self, inputs: Types) -> tuple[TensorType, ...]:
        return (TensorType(self.dtype, (1, 1, *self.positions)),)

    def lower(self, node: Node) -> loop.Computation:
        axes = loop.axes_for(node.output.shape)
        count: Dim = 1
        for axis, position in enumerate(loop.index_of(axes)[2:]):
            start = position * self.window.strides[axis] - self.window.before[axis]
            step = self.window.dilations[axis]
            first = dims.maximum(0, dims.ceildiv(self.low[axis] - start, step))
            last = dims.minimum(self.window.size[axis], dims.ceildiv(self.high[axis] - start, step))
            count = count * dims.maximum(0, last - first)
        count = dims.maximum(1, count)
        return loop.Computation(axes, loop.apply("cast", loop.IndexValue(dtypes.INT64, count), dtype=self.dtype))
