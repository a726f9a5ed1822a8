"""Seeds of random operators that have none of their own."""

from __future__ import annotations

from dataclasses import dataclass

from onnxsmith_compiler.ir import dtype as dtypes
from onnxsmith_compiler.ir.graph import Node, TensorType
from onnxsmith_compiler.ops.base import Op, Types
from onnxsmith_compiler.ops.lowering import LibraryCall


@dataclass(frozen=True)
class DrawSeed(Op):
    """A uint64[1] that differs from run to run: the next of the process's seeds.

    `number` tells the operators of a model apart, so that no two share a seed.
    """

    number: int

    def infer(self, inputs: Types) -> tuple[TensorType, ...]:
        return (TensorType(dtypes.UINT64, (1,)),)

    def lower(self, node: Node) -> LibraryCall:
        return LibraryCall("draw_seed", (node.output,), cost=50)
