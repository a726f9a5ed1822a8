"""What polynomials over integers are made of: symbols, loop indices, and what is no polynomial of these."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar, dataclass_transform

if TYPE_CHECKING:
    from onnxsmith_compiler.ir.dim import Dim

_PLAIN_NAME = re.compile(r"\?[\w.]+|[^\W\d][\w.]*")


_Class = TypeVar("_Class")


@dataclass_transform(frozen_default=True)
def _atom(cls: type[_Class]) -> type[_Class]:
    """A frozen dataclass that computes its hash once: Dims are compared and looked up all the time."""
    made: Any = dataclass(frozen=True)(cls)
    compute: Callable[[Any], int] = made.__hash__

    def remembered_hash(self: Any) -> int:
        known: int | None = self.__dict__.get("_hash")
        if known is None:
            known = self.__dict__["_hash"] = compute(self)
        return known

    made.__hash__ = remembered_hash
    return cls


@_atom
class Symbol:
    """An integer known when the program runs; never negative unless it is `signed`, as an element of a tensor may be.

    Its name is the model's to choose: in texts one that could be read as something else is quoted.
    """

    name: str
    signed: bool = False

    def __str__(self) -> str:
        return self.name if _PLAIN_NAME.fullmatch(self.name) else repr(self.name)


@_atom
class LoopIndex:
    """An integer that runs from 0 to extent - 1."""

    name: str
    extent: Dim

    def __str__(self) -> str:
        return self.name


@_atom
class Quotient:
    """Floor division."""

    numerator: Dim
    denominator: Dim

    def __str__(self) -> str:
        return f"({self.numerator} // {self.denominator})"


@_atom
class Remainder:
    """Modulo with the sign of the divisor, as in Python."""

    numerator: Dim
    denominator: Dim

    def __str__(self) -> str:
        return f"({self.numerator} % {self.denominator})"


@_atom
class Extreme:
    """The larger ("max") or smaller ("min") of two Dims, or ("broadcast") the one that is not 1."""

    kind: str
    left: Dim
    right: Dim

    def __str__(self) -> str:
        return f"{self.kind}({self.left}, {self.right})"


@_atom
class Computed:
    """The int64 result of a scalar loop-IR expression (`loop.Expr`), such as a gathered index."""

    expression: object

    def __str__(self) -> str:
        return f"[{self.expression}]"


Atom: TypeAlias = Symbol | LoopIndex | Quotient | Remainder | Extreme | Computed
Monomial: TypeAlias = tuple[Atom, ...]


def atom_key(atom: Atom) -> tuple[str, str, str]:
    """What atoms are sorted by: different ones have different keys, of one name too. It is kept with the atom."""
    known: tuple[str, str, str] | None = atom.__dict__.get("_key")
    if known is None:
        extent = str(atom.extent) if isinstance(atom, LoopIndex) else ""
        known = atom.__dict__["_key"] = (str(atom), type(atom).__name__, extent)
    return known


def monomial_key(monomial: Monomial) -> tuple[int, tuple[tuple[str, str, str], ...]]:
    return (len(monomial), tuple(map(atom_key, monomial)))
