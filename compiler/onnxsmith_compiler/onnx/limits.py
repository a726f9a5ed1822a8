"""Bounds on what a model may ask for, spent from one budget while it is loaded."""

from __future__ import annotations

from dataclasses import dataclass

from onnxsmith_compiler.errors import LimitExceeded


@dataclass(frozen=True)
class LoadLimits:
    """What a model may hold at most.

    `nodes` counts them after functions are inlined, subgraphs included. `depth` bounds subgraphs in subgraphs
    and functions in functions. `tensor_bytes` is the sum over all tensors as stored in memory, `dense_bytes`
    the part of it that sparse tensors take with their zeros written out (a file of a few bytes can ask for
    terabytes).
    """

    nodes: int = 1_000_000
    depth: int = 32
    rank: int = 64
    tensor_bytes: int = 1 << 38
    dense_bytes: int = 1 << 32


class Budget:
    """What is left of the limits during one load; every method raises LimitExceeded when it is spent."""

    def __init__(self, limits: LoadLimits) -> None:
        self.limits = limits
        self._nodes = 0
        self._tensor_bytes = 0
        self._dense_bytes = 0

    def spend_nodes(self, count: int) -> None:
        self._nodes += count
        if self._nodes > self.limits.nodes:
            raise LimitExceeded(f"the model has more than {self.limits.nodes} nodes once functions are inlined")

    def spend_tensor(self, nbytes: int, owner: str) -> None:
        self._tensor_bytes += nbytes
        if self._tensor_bytes > self.limits.tensor_bytes:
            raise LimitExceeded(f"{owner} brings the model's tensors over {self.limits.tensor_bytes} bytes")

    def spend_dense(self, nbytes: int, owner: str) -> None:
        self._dense_bytes += nbytes
        if self._dense_bytes > self.limits.dense_bytes:
            raise LimitExceeded(f"{owner} brings the sparse tensors, made dense, over {self.limits.dense_bytes} bytes")
        self.spend_tensor(nbytes, owner)

    def check_depth(self, depth: int, owner: str) -> None:
        if depth > self.limits.depth:
            raise LimitExceeded(f"{owner} is nested more than {self.limits.depth} levels deep")

    def check_rank(self, rank: int, owner: str) -> None:
        if rank > self.limits.rank:
            raise LimitExceeded(f"{owner} has {rank} dimensions, more than {self.limits.rank}")
