"""Everything that changes what the compiler makes of a model, in one frozen value."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from onnxsmith_compiler.errors import InvalidOption

PRECISIONS = ("fp32", "bf16")
"""What `CompileOptions.precision` may be."""

NATIVE = "native"
TARGETS = (NATIVE, "x86_64-linux", "aarch64-linux", "x86_64-windows", "aarch64-macos", "x86_64-macos")
"""What `CompileOptions.target` may be."""

# "os" is what functions of the library itself begin with.
_INTERFACE = re.compile(r"(?!os$)[A-Za-z_][A-Za-z0-9_]*")


@dataclass(frozen=True)
class CompileOptions:
    """Options of one compilation; the whole of it is part of the program's cache key.

    `optimization_level` follows onnxruntime's GraphOptimizationLevel: 0 compiles one kernel a node with no graph
    pass, 1 runs the passes that rewrite the graph, 2 and up also fuse. `dimensions` fixes symbols by name,
    `denotations` dimensions by what the model says they mean. `distinct_symbols` names symbols whose occurrences
    in different inputs may differ. `winograd` lets convolutions of 3 by 3 windows be computed by Winograd's
    algorithm, which is faster and less exact (about 1e-5 of the output's scale; what is not finite reaches all outputs
    of its block). `precision` "bf16" stores constant weights of float32 matrix products and convolutions, but for
    Winograd's and depthwise ones, as bfloat16: half the memory, with errors of up to about 1e-2 of the output's
    scale; sums stay float32. Where the target is faster at products of bfloat16, their other operands are rounded too.
    `tune` measures how the steps of a model whose inputs have fixed sizes are cut into tiles fastest (see `tuning`);
    results stay the same. `target`, one of TARGETS, is what code is made for: "native" is this machine with its CPU,
    the others are machines of a kind, for x86-64 with code for CPUs of several levels, which share the weights.
    `interface` names C functions that run the program without Python, if it is to have some. `workers` is the number of
    compile processes (0: one a core).

    Raises InvalidOption.
    """

    optimization_level: int = 99
    dimensions: Mapping[str, int] = field(default_factory=dict)
    denotations: Mapping[str, int] = field(default_factory=dict)
    distinct_symbols: tuple[str, ...] = ()
    winograd: bool = True
    precision: str = "fp32"
    tune: bool = False
    target: str = NATIVE
    interface: str = ""
    workers: int = 0

    def __post_init__(self) -> None:
        if self.precision not in PRECISIONS:
            raise InvalidOption(
                f"The compiler's option 'precision' cannot be {self.precision!r}: it is one of {', '.join(PRECISIONS)}."
            )
        if self.interface and not _INTERFACE.fullmatch(self.interface):
            raise InvalidOption(
                f"The compiler's option 'interface' cannot be {self.interface!r}: it is a name in C, other than 'os'."
            )
        if self.target not in TARGETS:
            raise InvalidOption(f"There is no target {self.target!r}: it is one of {', '.join(TARGETS)}.")
        if self.tune and self.target != NATIVE:
            raise InvalidOption(
                f"Tuning measures on this machine, for this machine: it goes with the target '{NATIVE}', not "
                f"'{self.target}'."
            )

    @property
    def optimize(self) -> bool:
        return self.optimization_level >= 1

    @property
    def fuse(self) -> bool:
        return self.optimization_level >= 2
