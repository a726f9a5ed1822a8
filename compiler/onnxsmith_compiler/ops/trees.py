"""Ensembles of decision trees, laid out by `ops.tree_layout`."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from onnxsmith_compiler.ir import dim as dims
from onnxsmith_compiler.ir.graph import Node, Relation, TensorType
from onnxsmith_compiler.ops.base import Op, ShapeError, SizePair, Types, required
from onnxsmith_compiler.ops.lowering import LibraryCall

Aggregate = Literal["sum", "min", "max"]
Leaves = Literal["single", "dense", "sparse"]

TREE_LANES = 8
"""Walks in flight at once: enough to hide the latency of a step's loads."""
TREE_ROWS = 64
"""Rows of one tile: a tree is in the first-level cache for all of them."""
_BAKED_TARGETS = 32
"""Up to this many targets are written into the kernel, so that their loops need no remainder."""


@dataclass(frozen=True)
class TreeEnsemble(Op):
    """What the trees say of each row of x [N, C]: [N, targets], the leaves' values added up or their least or largest.

    Inputs: x; records, trees and values, which `tree_layout.lay_out` makes (it says how they look), and its tables
    of leaves: none for "single" leaves, one for "dense", three for "sparse". `narrow`: records are one word.
    `features` columns of x are read, at most. `steps` are those of all trees together on their longest paths.
    """

    aggregate: Aggregate
    leaves: Leaves
    narrow: bool
    targets: int
    features: int
    steps: int

    def infer(self, inputs: Types) -> tuple[TensorType, ...]:
        x = required(inputs, 0)
        if x.rank != 2:
            raise ShapeError(f"features are {x}: expected rank 2")
        return (TensorType(x.dtype, (x.shape[0], self.targets)),)

    def assumes(self, inputs: Types) -> Iterable[SizePair]:
        yield self.features, required(inputs, 0).shape[1], Relation.AT_MOST

    def lower(self, node: Node) -> LibraryCall:
        x, records, trees, *tables = node.operands()
        rows, width = x.shape
        count = trees.shape[0]
        tile_rows = dims.minimum(rows, TREE_ROWS)
        return LibraryCall(
            "walk_trees",
            (x, records, trees, *tables, node.output, rows, width, count, self.targets),
            tiles=dims.ceildiv(rows, TREE_ROWS),
            cost=100 + tile_rows * self.steps,
            scratch=count * x.dtype.itemsize,
            variant=(
                ("AGGREGATE", self.aggregate),
                ("LEAVES", self.leaves),
                ("TYPE", str(x.dtype)),
                ("NARROW", str(self.narrow)),
                ("TARGETS", str(self.targets) if self.targets <= _BAKED_TARGETS else "targets"),
            ),
        )
