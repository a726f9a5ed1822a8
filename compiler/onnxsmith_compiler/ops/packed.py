"""Matrix products and convolutions over packed weights, as kernels compute them.

B is stored in panels of `columns` columns, [..., panels, K, columns], filled up with zero columns. Weights of products
of float32 may be float16 or bfloat16 as they are in the model, and become bfloat16 by `passes.precision` unless the
operator is `exact`. They are widened as they are read.
Operators of `pairs` have a left operand of bfloat16 too: K is even in each tap of a window, and the elements of rows 2i
and 2i + 1 of a panel alternate (`in_pairs`). Their results are float32.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from onnxsmith_compiler.ir import dim as dims
from onnxsmith_compiler.ir import dtype as dtypes
from onnxsmith_compiler.ir.dim import Dim
from onnxsmith_compiler.ir.graph import Blocks, Node, TensorType, Value
from onnxsmith_compiler.ops.arrays import in_panels, reshaped
from onnxsmith_compiler.ops.base import Op, Shape, Types, broadcast_shapes, required
from onnxsmith_compiler.ops.builder import GraphBuilder
from onnxsmith_compiler.ops.cast import Cast
from onnxsmith_compiler.ops.lowering import Contract
from onnxsmith_compiler.ops.view import Pad, Reshape, Transpose

_BLOCK_BYTES = 1 << 20


@dataclass(frozen=True)
class PackedMatMul(Op):
    """[..., M, K] times a B of n columns in panels [..., panels, K, columns]: [..., M, n]. float32 or float64."""

    n: Dim
    columns: int
    exact: bool = False
    pairs: bool = False

    def infer(self, inputs: Types) -> tuple[TensorType, ...]:
        a, b = required(inputs, 0), required(inputs, 1)
        batch = broadcast_shapes([a.shape[:-2], b.shape[:-3]])
        return (TensorType(a.dtype.compute, (*batch, a.shape[-2], self.n)),)

    def lower(self, node: Node) -> Contract:
        return Contract(self)


@dataclass(frozen=True)
class Window:
    """How a window of `size` moves over the spatial axes. `before` and `after` are the padding."""

    size: tuple[int, ...]
    strides: tuple[int, ...]
    dilations: tuple[int, ...]
    before: tuple[Dim, ...]
    after: tuple[Dim, ...]

    @property
    def rank(self) -> int:
        return len(self.size)

    @property
    def is_pointwise(self) -> bool:
        """Whether the window is one element, moved by one, without padding."""
        ones = (1,) * self.rank
        return self.size == self.strides == ones and all(pad == 0 for pad in (*self.before, *self.after))

    @property
    def taps(self) -> int:
        return int(np.prod(self.size, dtype=np.int64))

    def extents(self) -> tuple[int, ...]:
        """The elements that the window spans on each axis."""
        return tuple((size - 1) * dilation + 1 for size, dilation in zip(self.size, self.dilations, strict=True))

    def positions(self, index: Shape, taps: Shape) -> Shape:
        """Where in the input the tap `taps` of the window at `index` stands; outside it in the padding."""
        return tuple(
            position * stride + tap * dilation - before
            for position, stride, tap, dilation, before in zip(
                index, self.strides, taps, self.dilations, self.before, strict=True
            )
        )

    def output(self, spatial: Shape) -> Shape:
        """How many positions the window takes on each axis."""
        sizes = []
        for axis, extent in enumerate(self.extents()):
            room = spatial[axis] + self.before[axis] + self.after[axis] - extent
            sizes.append(dims.maximum(0, dims.floordiv(room, self.strides[axis]) + 1))
        return tuple(sizes)


@dataclass(frozen=True)
class PackedConv(Op):
    """Convolution of [N, spatial..., C] with weights in panels [groups, panels, K, columns].

    Output: [N, positions..., outputs].

    K runs over the window's taps in row-major order, then over the C / groups channels of a group.
    """

    window: Window
    groups: int
    outputs: Dim
    columns: int
    exact: bool = False
    pairs: bool = False

    def infer(self, inputs: Types) -> tuple[TensorType, ...]:
        x = required(inputs, 0)
        return (TensorType(x.dtype.compute, (x.shape[0], *self.window.output(x.shape[1:-1]), self.outputs)),)

    def lower(self, node: Node) -> Contract:
        return Contract(self)


@dataclass(frozen=True)
class DepthwiseConv(Op):
    """Convolution of each channel of [N, spatial..., C] with a window of its own, weights [window..., C]."""

    window: Window

    def infer(self, inputs: Types) -> tuple[TensorType, ...]:
        x = required(inputs, 0)
        return (TensorType(x.dtype, (x.shape[0], *self.window.output(x.shape[1:-1]), x.shape[-1])),)

    def lower(self, node: Node) -> Contract:
        return Contract(self)


def pack_columns(builder: GraphBuilder, b: Value, columns: int, depth_axes: int = 1) -> Value:
    """B of shape [..., K, N] as panels [..., ceil(N / columns), K, columns]; K may be the product of `depth_axes`."""
    *batch, width = b.shape
    batch, depth = batch[:-depth_axes], dims.product(batch[-depth_axes:])
    panels = dims.ceildiv(width, columns)
    if b.is_constant:
        packed = Blocks(lambda: _panels(b, columns, depth_axes))
        return builder.computed_constant(TensorType(b.dtype, (*batch, panels, depth, columns)), packed)
    b = builder.emit(Reshape((*batch, depth, width)), b)
    missing = panels * columns - width
    if missing != 0:
        rank = b.rank
        fill = builder.constant(b.dtype.storage.type(0), b.dtype)
        b = builder.emit(Pad((0,) * rank, (*(0,) * (rank - 1), missing)), b, fill)
    split = builder.emit(Reshape((*batch, depth, panels, columns)), b)
    rank = split.rank
    order = (*range(rank - 3), rank - 2, rank - 3, rank - 1)
    return builder.emit(Transpose(order), split)


def _panels(b: Value, columns: int, depth_axes: int) -> Iterator[np.ndarray]:
    """The panels of `pack_columns`, as many at once as stay in a core's caches."""
    data = b.data
    assert data is not None
    batch, inner = data.shape[: -depth_axes - 1], data.shape[-depth_axes - 1 : -1]
    depth = math.prod(inner)
    step = columns * max(1, _BLOCK_BYTES // max(1, depth * columns * data.itemsize))
    for index in np.ndindex(*batch):
        for start in range(0, data.shape[-1], step):
            part = data[(*index, ..., slice(start, start + step))]
            yield in_panels(reshaped(part, (depth, part.shape[-1])), columns)


def widened(builder: GraphBuilder, weights: Value) -> Value:
    """The weights of a product of narrow floats in float32, but for constants of 16 bits, which kernels widen."""
    if weights.is_constant and weights.dtype in (dtypes.BFLOAT16, dtypes.FLOAT16):
        return weights
    return builder.emit(Cast(dtypes.FLOAT32), weights)


def in_pairs(panels: np.ndarray) -> np.ndarray:
    """Panels [..., K, columns] with the elements of each two rows alternating; K is even."""
    *outer, depth, columns = panels.shape
    split = panels.reshape(*outer, depth // 2, 2, columns)
    return np.ascontiguousarray(split.swapaxes(-1, -2)).reshape(panels.shape)
