"""The forms an operator lowers to: loop nests, contractions, library kernels and plain views."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TypeAlias

from onnxsmith_compiler.ir.dim import Dim
from onnxsmith_compiler.ir.graph import Value
from onnxsmith_compiler.ir.loop import Computation
from onnxsmith_compiler.ops.base import Op


@dataclass(frozen=True)
class Pieces:
    """One output written by several computations, each a part of it (`Computation.store` says where)."""

    pieces: tuple[Computation, ...]


@dataclass(frozen=True)
class LibraryCall:
    """A hand-written kernel: `function` of `codegen.library.LIBRARY`, called as (ctx, *arguments, begin, end).

    `arguments` are values (their address: inputs and outputs of the node) and Dims (int64).
    It runs over `tiles` independent tiles of about `cost` nanoseconds each, with `scratch` bytes of its
    own memory a thread. `variant` are (name, text) pairs that are put in place of names in the function.
    """

    function: str
    arguments: tuple[Value | Dim, ...]
    tiles: Dim = 1
    cost: Dim = 1000
    scratch: Dim = 0
    variant: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True)
class Calls:
    """Several library calls in order, sharing `temporaries` that live while the node runs."""

    calls: tuple[LibraryCall, ...]
    temporaries: tuple[Value, ...] = field(default=())


@dataclass(frozen=True)
class Contract:
    """A contraction with its own kernel template, chosen by the operator (`ops.packed`).

    `takes_epilogue`: a map over the result can be computed by the same kernel.
    """

    kernel: Op
    takes_epilogue: bool = True


Lowering: TypeAlias = Computation | Pieces | LibraryCall | Calls | Contract
