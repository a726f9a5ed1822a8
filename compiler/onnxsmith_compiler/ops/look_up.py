"""Values by key."""

from __future__ import annotations

from dataclasses import dataclass

from onnxsmith_compiler.ir import dim as dims
from onnxsmith_compiler.ir.graph import Node, TensorType
from onnxsmith_compiler.ops.base import Op, Types, required
from onnxsmith_compiler.ops.lowering import LibraryCall

_BLOCK = 1024
"""Elements of one tile."""


@dataclass(frozen=True)
class LookUp(Op):
    """Each element of x by the value of the key that equals it. NaN equals nothing.

    Inputs: x; keys [n], n > 0, of x's dtype, ascending and distinct; values [n + 1], of which the last stands for
    every other element.
    """

    def infer(self, inputs: Types) -> tuple[TensorType, ...]:
        return (TensorType(required(inputs, 2).dtype, required(inputs, 0).shape),)

    def lower(self, node: Node) -> LibraryCall:
        x, keys, values = node.operands()
        size, count = x.type.size, keys.shape[0]
        steps = count.bit_length() if isinstance(count, int) else 32
        return LibraryCall(
            "look_up",
            (x, keys, values, node.output, count, size),
            tiles=dims.ceildiv(size, _BLOCK),
            cost=dims.minimum(size, _BLOCK) * (2 + 2 * steps),
        )
