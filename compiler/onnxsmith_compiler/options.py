"""Everything that changes what the compiler makes of a model, in one frozen value."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class CompileOptions:
    """Options of one compilation; the whole of it is part of the program's cache key.

    `optimization_level` follows onnxruntime's GraphOptimizationLevel: 0 compiles one kernel a node with no graph
    pass, 1 runs the passes that rewrite the graph, 2 and up also fuse. `dimensions` fixes symbols by name,
    `denotations` dimensions by what the model says they mean. `distinct_symbols` names symbols whose occurrences
    in different inputs may differ. `winograd` lets convolutions of 3 by 3 windows be computed by Winograd's
    algorithm, which is faster and less exact (about 1e-5 of the output's scale; what is not finite reaches all outputs
    of its block). `workers` is the number of compile processes (0: one a core).
    """

    optimization_level: int = 99
    dimensions: Mapping[str, int] = field(default_factory=dict)
    denotations: Mapping[str, int] = field(default_factory=dict)
    distinct_symbols: tuple[str, ...] = ()
    winograd: bool = True
    workers: int = 0

    @property
    def optimize(self) -> bool:
        return self.optimization_level >= 1

    @property
    def fuse(self) -> bool:
        return self.optimization_level >= 2
