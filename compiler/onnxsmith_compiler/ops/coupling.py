"""Probabilities of classes from those of each pair of classes."""

from __future__ import annotations

from dataclasses import dataclass

from onnxsmith_compiler.ir import dim as dims
from onnxsmith_compiler.ir.graph import Node, TensorType
from onnxsmith_compiler.ops.base import Op, Types, required
from onnxsmith_compiler.ops.lowering import LibraryCall

_BLOCK = 16
"""Rows of one tile."""


@dataclass(frozen=True)
class PairwiseCoupling(Op):
    """[N, pairs] to [N, classes]: what the classes' probabilities p are if p[i] / (p[i] + p[j]) is the one of (i, j).

    The pairs are (0, 1), (0, 2), ..., (1, 2), ... By the iteration of T.-F. Wu, C.-J. Lin and R. C. Weng, "Probability
    Estimates for Multi-class Classification by Pairwise Coupling" (2004), algorithm 2, ended as libsvm ends it.
    """

    classes: int

    def infer(self, inputs: Types) -> tuple[TensorType, ...]:
        pairs = required(inputs, 0)
        return (TensorType(pairs.dtype, (pairs.shape[0], self.classes)),)

    def lower(self, node: Node) -> LibraryCall:
        (pairs,) = node.operands()
        count = self.classes
        rows = pairs.shape[0]
        return LibraryCall(
            "couple_pairs",
            (pairs, node.output, rows, count),
            tiles=dims.ceildiv(rows, _BLOCK),
            cost=dims.minimum(rows, _BLOCK) * count * (count + 10) * 8 + 1,
            scratch=(count * count + count) * 4,
        )
