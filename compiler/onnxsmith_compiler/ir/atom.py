"""What polynomials over integers are made of: symbols, loop indices, and what is no polynomial of these."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:
    from onnxsmith_compiler.ir.dim import Dim

_PLAIN_NAME = re.compile(r"\?[\w.]+|[^\W\d][\w.]*")


@dataclass(frozen=True)
class Symbol:
    """An integer known when the program runs; never negative unless it is `signed`, as an element of a tensor may be.

    Its name is the model's to choose: in texts one that could be read as something else is quoted.
    """

    name: str
    signed: bool = False

    def __str__(self) -> str:
        return self.name if _PLAIN_NAME.fullmatch(self.name) else repr(self.name)


@dataclass(frozen=True)
class LoopIndex:
    """An integer that runs from 0 to extent - 1."""

    name: str
    extent: Dim

    def __str__(self) -> str:
        return self.name


@dataclass(frozen=True)
class Quotient:
    """Floor division."""

    numerator: Dim
    denominator: Dim

    def __str__(self) -> str:
        return f"({self.numerator} // {self.denominator})"


@dataclass(frozen=True)
class Remainder:
    """Modulo with the sign of the divisor, as in Python."""

    numerator: Dim
    denominator: Dim

    def __str__(self) -> str:
        return f"({self.numerator} % {self.denominator})"


@dataclass(frozen=True)
class Extreme:
    """The larger ("max") or smaller ("min") of two Dims, or ("broadcast") the one that is not 1."""

    kind: str
    left: Dim
    right: Dim

    def __str__(self) -> str:
        return f"{self.kind}({self.left}, {self.right})"


@dataclass(frozen=True)
class Computed:
    """The int64 result of a scalar loop-IR expression (`loop.Expr`), such as a gathered index."""

    expression: object

    def __str__(self) -> str:
        return f"[{self.expression}]"


Atom: TypeAlias = Symbol | LoopIndex | Quotient | Remainder | Extreme | Computed
Monomial: TypeAlias = tuple[Atom, ...]


def atom_key(atom: Atom) -> tuple[str, str, str]:
    """What atoms are sorted by: different ones have different keys, of one name too."""
    return (str(atom), type(atom).__name__, str(atom.extent) if isinstance(atom, LoopIndex) else "")


def monomial_key(monomial: Monomial) -> tuple[int, tuple[tuple[str, str, str], ...]]:
    return (len(monomial), tuple(map(atom_key, monomial)))
