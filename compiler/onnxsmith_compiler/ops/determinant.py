"""Determinants of square matrices."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from onnxsmith_compiler.ir import dim as dims
from onnxsmith_compiler.ir import dtype as dtypes
from onnxsmith_compiler.ir.graph import Node, Relation, TensorType
from onnxsmith_compiler.ops.base import Op, ShapeError, SizePair, Types, required
from onnxsmith_compiler.ops.lowering import LibraryCall


@dataclass(frozen=True)
class Determinant(Op):
    """The determinants [...] of matrices [..., n, n], float64; 1 where n is 0."""

    def infer(self, inputs: Types) -> tuple[TensorType, ...]:
        x = required(inputs, 0)
        if x.rank < 2 or x.dtype is not dtypes.FLOAT64:
            raise ShapeError(f"the determinant of {x}: expected square matrices of float64")
        return (TensorType(x.dtype, x.shape[:-2]),)

    def assumes(self, inputs: Types) -> Iterable[SizePair]:
        x = required(inputs, 0).shape
        yield x[-2], x[-1], Relation.EQUAL

    def lower(self, node: Node) -> LibraryCall:
        (x,) = node.operands()
        size = x.shape[-1]
        cost = 50 + dims.product((size, size, size))
        scratch = size * size * 8
        return LibraryCall("determinant", (x, node.output, size), node.output.type.size, cost, scratch)
