"""Matrix products and convolutions over packed weights, as kernels compute them.

B is stored in panels of `columns` columns, [..., panels, K, columns], filled up with zero columns.
"""

from __future__ import annotations

from dataclasses import dataclass

from onnxsmith_compiler.ir import dim as dims
from onnxsmith_compiler.ir.dim import Dim
from onnxsmith_compiler.ir.graph import GraphBuilder, Node, TensorType, Value
from onnxsmith_compiler.ops.base import Op, Types, broadcast_shapes, required
from onnxsmith_compiler.ops.lowering import Contract
from onnxsmith_compiler.ops.view import Pad, Reshape, Transpose


@dataclass(frozen=True)
class PackedMatMul(Op):
    """[..., M, K] times a B of n columns in panels [..., panels, K, columns]: [..., M, n]. float32 or float64."""

    n: Dim
    columns: int

    def infer(self, inputs: Types) -> tuple[TensorType, ...]:
        a, b = required(inputs, 0), required(inputs, 1)
        batch = broadcast_shapes([a.shape[:-2], b.shape[:-3]])
        return (TensorType(a.dtype, (*batch, a.shape[-2], self.n)),)

    def lower(self, node: Node) -> Contract:
        return Contract(self)


def pack_columns(builder: GraphBuilder, b: Value, columns: int) -> Value:
    """B of shape [..., K, N] as panels [..., ceil(N / columns), K, columns]."""
    *batch, depth, width = b.shape
    panels = dims.ceildiv(width, columns)
    missing = panels * columns - width
    if missing != 0:
        rank = b.rank
        fill = builder.constant(b.dtype.storage.type(0), b.dtype)
        b = builder.emit(Pad((0,) * rank, (*(0,) * (rank - 1), missing)), b, fill)
    split = builder.emit(Reshape((*batch, depth, panels, columns)), b)
    rank = split.rank
    order = (*range(rank - 3), rank - 2, rank - 3, rank - 1)
    return builder.emit(Transpose(order), split)
