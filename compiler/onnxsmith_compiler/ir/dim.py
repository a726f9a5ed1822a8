"""Integers that may be symbolic: sizes of dimensions, strides, offsets and loop indices.

A `Dim` is a Python int, or a `Poly`: a polynomial with integer coefficients over atoms. An atom is a
named symbol (a size bound when the program runs), a loop index with its extent, a quotient,
remainder, maximum or minimum of other Dims, or an integer computed by a scalar expression. Polynomials
are canonical, so that equality is structural, and one that is constant is always a plain int.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, TypeAlias, TypeVar, Union, dataclass_transform

Dim: TypeAlias = Union[int, "Poly"]

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


def _atom_key(atom: Atom) -> tuple[str, str, str]:
    """What atoms are sorted by: different ones have different keys, of one name too. It is kept with the atom."""
    known: tuple[str, str, str] | None = atom.__dict__.get("_key")
    if known is None:
        extent = str(atom.extent) if isinstance(atom, LoopIndex) else ""
        known = atom.__dict__["_key"] = (str(atom), type(atom).__name__, extent)
    return known


def _monomial_key(monomial: Monomial) -> tuple[int, tuple[tuple[str, str, str], ...]]:
    return (len(monomial), tuple(map(_atom_key, monomial)))


@dataclass(frozen=True, eq=False)
class Poly:
    """A polynomial that is not constant: ((monomial, coefficient), ...), highest degree first."""

    terms: tuple[tuple[Monomial, int], ...]

    @cached_property
    def _hash(self) -> int:
        return hash(self.terms)

    def __hash__(self) -> int:
        return self._hash

    def __eq__(self, other: object) -> bool:
        if self is other:
            return True
        return isinstance(other, Poly) and self._hash == other._hash and self.terms == other.terms

    def __add__(self, other: Dim) -> Dim:
        if isinstance(other, int):
            return self._plus(other)
        if not isinstance(other, Poly):
            return NotImplemented
        total = dict(self.terms)
        for monomial, coefficient in _terms(other):
            total[monomial] = total.get(monomial, 0) + coefficient
        return _poly(total)

    __radd__ = __add__

    def _plus(self, number: int) -> Poly:
        """The sum with a number, whose term, of degree 0, is the last."""
        if not number:
            return self
        if self.terms[-1][0]:
            return Poly((*self.terms, ((), int(number))))
        total = self.terms[-1][1] + number
        return Poly((*self.terms[:-1], ((), total))) if total else Poly(self.terms[:-1])

    def _times(self, number: int) -> Dim:
        if number == 1:
            return self
        return Poly(tuple((monomial, coefficient * number) for monomial, coefficient in self.terms)) if number else 0

    def __neg__(self) -> Dim:
        return self._times(-1)

    def __sub__(self, other: Dim) -> Dim:
        return self + (-other)

    def __rsub__(self, other: Dim) -> Dim:
        return (-self) + other

    def __mul__(self, other: Dim) -> Dim:
        if isinstance(other, int):
            return self._times(other)
        if not isinstance(other, Poly):
            return NotImplemented
        total: dict[Monomial, int] = {}
        for left, a in self.terms:
            for right, b in _terms(other):
                monomial = tuple(sorted(left + right, key=_atom_key))
                total[monomial] = total.get(monomial, 0) + a * b
        return _poly(total)

    __rmul__ = __mul__

    def __floordiv__(self, other: Dim) -> Dim:
        return floordiv(self, other)

    def __rfloordiv__(self, other: Dim) -> Dim:
        return floordiv(other, self)

    def __mod__(self, other: Dim) -> Dim:
        return modulo(self, other)

    def __rmod__(self, other: Dim) -> Dim:
        return modulo(other, self)

    def __str__(self) -> str:
        return self._text

    @cached_property
    def _text(self) -> str:
        parts = []
        for monomial, coefficient in self.terms:
            factors = [str(atom) for atom in monomial]
            if coefficient != 1 or not factors:
                factors.insert(0, str(coefficient))
            parts.append("*".join(factors))
        return " + ".join(parts).replace("+ -", "- ")

    __repr__ = __str__


def _terms(dim: Dim) -> tuple[tuple[Monomial, int], ...]:
    if isinstance(dim, Poly):
        return dim.terms
    return (((), dim),) if dim else ()


def _poly(terms: Mapping[Monomial, int]) -> Dim:
    kept = {monomial: coefficient for monomial, coefficient in terms.items() if coefficient}
    if not kept:
        return 0
    if len(kept) == 1 and () in kept:
        return kept[()]
    return Poly(tuple(sorted(kept.items(), key=lambda term: _monomial_key(term[0]), reverse=True)))


def from_atom(atom: Atom) -> Dim:
    return Poly((((atom,), 1),))


def symbol(name: str, signed: bool = False) -> Dim:
    return from_atom(Symbol(name, signed))


def product(dims: object) -> Dim:
    result: Dim = 1
    for dim in dims:  # type: ignore[attr-defined]
        result = result * dim
    return result


def exact_quotient(numerator: Dim, denominator: Dim) -> Dim | None:
    """numerator / denominator where the division is exact as polynomials, else None."""
    if denominator == 0:
        return None
    if numerator == 0:
        return 0
    if numerator == denominator:
        return 1
    lead, lead_coefficient = _terms(denominator)[0]
    quotient: Dim = 0
    rest = numerator
    for _ in range(len(_terms(numerator)) * 4):
        monomial, coefficient = _terms(rest)[0]
        factor = _divide_monomial(monomial, lead)
        if factor is None or coefficient % lead_coefficient:
            return None
        step = _poly({factor: coefficient // lead_coefficient})
        quotient = quotient + step
        rest = rest - step * denominator
        if rest == 0:
            return quotient
    return None


def _divide_monomial(monomial: Monomial, divisor: Monomial) -> Monomial | None:
    left = list(monomial)
    for atom in divisor:
        if atom not in left:
            return None
        left.remove(atom)
    return tuple(left)


def floordiv(numerator: Dim, denominator: Dim) -> Dim:
    """Floor division; simplified where the divisible part splits off and the rest is known to be below."""
    if denominator == 0:
        raise ZeroDivisionError(f"{numerator} // 0")
    if isinstance(numerator, int) and isinstance(denominator, int):
        return numerator // denominator
    if denominator == 1:
        return numerator
    whole, rest = _split_divisible(numerator, denominator)
    if rest == 0 or is_within(rest, denominator):
        return whole
    if isinstance(rest, int) and isinstance(denominator, int):
        return whole + rest // denominator
    return whole + from_atom(Quotient(rest, denominator))


def modulo(numerator: Dim, denominator: Dim) -> Dim:
    if denominator == 0:
        raise ZeroDivisionError(f"{numerator} % 0")
    if isinstance(numerator, int) and isinstance(denominator, int):
        return numerator % denominator
    if denominator == 1:
        return 0
    _, rest = _split_divisible(numerator, denominator)
    if rest == 0 or is_within(rest, denominator):
        return rest
    if isinstance(rest, int) and isinstance(denominator, int):
        return rest % denominator
    return from_atom(Remainder(rest, denominator))


def _split_divisible(numerator: Dim, denominator: Dim) -> tuple[Dim, Dim]:
    """(q, r) with numerator = q * denominator + r, moving every term that divides into q."""
    exact = exact_quotient(numerator, denominator)
    if exact is not None:
        return exact, 0
    whole: Dim = 0
    rest: Dim = 0
    for monomial, coefficient in _terms(numerator):
        term = _poly({monomial: coefficient})
        quotient = exact_quotient(term, denominator)
        if quotient is None:
            rest = rest + term
        else:
            whole = whole + quotient
    return whole, rest


def ceildiv(numerator: Dim, denominator: Dim) -> Dim:
    return -floordiv(-numerator, denominator)


def maximum(left: Dim, right: Dim) -> Dim:
    return _extreme("max", left, right)


def minimum(left: Dim, right: Dim) -> Dim:
    return _extreme("min", left, right)


def _extreme(kind: str, left: Dim, right: Dim) -> Dim:
    if kind == "broadcast":
        return broadcast(left, right)
    difference = left - right
    if isinstance(difference, int):
        return left if (difference >= 0) == (kind == "max") else right
    if is_nonnegative(difference):
        return left if kind == "max" else right
    if is_nonnegative(-difference):
        return right if kind == "max" else left
    return from_atom(Extreme(kind, left, right))


def broadcast(left: Dim, right: Dim) -> Dim:
    """The size that two sizes broadcast to: the other one where one is 1, else both, which are the same."""
    if left == 1 or left == right or is_cut(left, right):
        return right
    if right == 1 or isinstance(left, int) or is_cut(right, left):
        return left
    if isinstance(right, int):
        return right
    return from_atom(Extreme("broadcast", left, right))


def is_cut(part: Dim, whole: Dim) -> bool:
    """Whether `part` is min(whole, n) with a constant n above 1: where the two broadcast, they are equal."""
    if not isinstance(part, Poly) or len(part.terms) != 1:
        return False
    ((monomial, coefficient),) = part.terms
    if coefficient != 1 or len(monomial) != 1:
        return False
    match monomial[0]:
        case Extreme(kind="min", left=a, right=b):
            return (a == whole and _above_one(b)) or (b == whole and _above_one(a))
    return False


def _above_one(dim: Dim) -> bool:
    return isinstance(dim, int) and dim > 1


def bounds_of(dim: Dim) -> tuple[Dim | None, Dim | None]:
    """(least, greatest) value over all loop indices in it; None where not known. Symbols stay symbols."""
    low: Dim | None = 0
    high: Dim | None = 0
    for monomial, coefficient in _terms(dim):
        least, greatest = _monomial_bounds(monomial)
        if coefficient < 0:
            least, greatest = greatest, least
        low = None if low is None or least is None else low + coefficient * least
        high = None if high is None or greatest is None else high + coefficient * greatest
    return low, high


def _monomial_bounds(monomial: Monomial) -> tuple[Dim | None, Dim | None]:
    low: Dim = 1
    high: Dim | None = 1
    if not all(map(_is_nonnegative_atom, monomial)):
        if any(map(_varies, monomial)):
            return None, None
        value = _poly({monomial: 1})
        return value, value
    for atom in monomial:
        least, greatest = _atom_bounds(atom)
        if least is None:
            return None, None
        low = low * least
        high = None if high is None or greatest is None else high * greatest
    return low, high


def _atom_bounds(atom: Atom) -> tuple[Dim | None, Dim | None]:
    match atom:
        case Symbol():
            value = from_atom(atom)
            return value, value
        case LoopIndex(extent=extent):
            return 0, extent - 1
        case Remainder(denominator=denominator) if is_nonnegative(denominator):
            return 0, denominator - 1
        case Quotient(numerator=numerator, denominator=denominator):
            low, high = bounds_of(numerator)
            if isinstance(low, int) and low >= 0 and is_nonnegative(denominator):
                return 0, high
    if not _varies(atom):
        value = from_atom(atom)
        return value, value
    return None, None


def _varies(atom: Atom) -> bool:
    """Whether a loop index or a computed value is part of the atom."""
    return any(isinstance(part, LoopIndex | Computed) for part in all_atoms(from_atom(atom)))


def is_nonnegative(dim: Dim) -> bool:
    """Whether dim >= 0 is certain, taking every symbol that is not signed to be at least 0."""
    low, _ = bounds_of(dim)
    if low is None:
        return False
    return all(coefficient >= 0 and _plain(monomial) for monomial, coefficient in _terms(low))


def _plain(monomial: Monomial) -> bool:
    return all(map(_is_nonnegative_atom, monomial))


def _is_nonnegative_atom(atom: Atom) -> bool:
    match atom:
        case Symbol(signed=signed):
            return not signed
        case LoopIndex():
            return True
        case Remainder(denominator=denominator):
            return is_nonnegative(denominator)
        case Quotient(numerator=a, denominator=b):
            return is_nonnegative(a) and is_nonnegative(b)
        case Extreme(kind="max", left=a, right=b):
            return is_nonnegative(a) or is_nonnegative(b)
        case Extreme(left=a, right=b):
            return is_nonnegative(a) and is_nonnegative(b)
    return False


def is_within(dim: Dim, limit: Dim) -> bool:
    """Whether 0 <= dim < limit is certain for every value of the loop indices."""
    low, high = bounds_of(dim)
    if low is None or high is None or not is_nonnegative(low):
        return False
    return is_nonnegative(limit - 1 - high)


def atoms(dim: Dim) -> Iterator[Atom]:
    """The atoms of a Dim's terms, each once, not those inside quotients, remainders and extremes."""
    seen: set[Atom] = set()
    for monomial, _ in _terms(dim):
        for atom in monomial:
            if atom not in seen:
                seen.add(atom)
                yield atom


def all_atoms(dim: Dim) -> Iterator[Atom]:
    """Every atom, those inside other atoms too (but not inside computed expressions)."""
    for atom in atoms(dim):
        yield atom
        match atom:
            case Quotient(numerator=a, denominator=b) | Remainder(numerator=a, denominator=b):
                yield from all_atoms(a)
                yield from all_atoms(b)
            case Extreme(left=a, right=b):
                yield from all_atoms(a)
                yield from all_atoms(b)


def symbols_of(dim: Dim) -> set[str]:
    return {atom.name for atom in all_atoms(dim) if isinstance(atom, Symbol)}


def substitute(dim: Dim, replace: Callable[[Atom], Dim | None]) -> Dim:
    """`dim` with every atom for which `replace` gives a Dim put in place, and simplified again.

    Where nothing is replaced it is `dim` itself.
    """
    if isinstance(dim, int):
        return dim
    result: Dim = 0
    changed = False
    for monomial, coefficient in dim.terms:
        placed = [_substitute_atom(atom, replace) for atom in monomial]
        if all(new is None for new in placed):
            result = result + _poly({monomial: coefficient})
            continue
        changed = True
        term: Dim = coefficient
        for atom, new in zip(monomial, placed, strict=True):
            term = term * (from_atom(atom) if new is None else new)
        result = result + term
    return result if changed else dim


def _substitute_atom(atom: Atom, replace: Callable[[Atom], Dim | None]) -> Dim | None:
    """What stands for the atom; None where it stays as it is."""
    new = replace(atom)
    if new is not None:
        return new
    match atom:
        case Quotient(numerator=a, denominator=b):
            placed = substitute(a, replace), substitute(b, replace)
            return None if placed[0] is a and placed[1] is b else floordiv(*placed)
        case Remainder(numerator=a, denominator=b):
            placed = substitute(a, replace), substitute(b, replace)
            return None if placed[0] is a and placed[1] is b else modulo(*placed)
        case Extreme(kind=kind, left=a, right=b):
            placed = substitute(a, replace), substitute(b, replace)
            return None if placed[0] is a and placed[1] is b else _extreme(kind, *placed)
        case LoopIndex(name=name, extent=extent):
            new_extent = substitute(extent, replace)
            return None if new_extent is extent else from_atom(LoopIndex(name, new_extent))
    return None


def coefficient_of(dim: Dim, index: LoopIndex) -> Dim | None:
    """c where dim = c * index + rest and neither c nor rest depends on index; None where it is not so."""
    total: dict[Monomial, int] = {}
    for monomial, coefficient in _terms(dim):
        count = monomial.count(index)
        rest = tuple(atom for atom in monomial if atom != index)
        if count > 1 or any(depends_on(from_atom(atom), index) for atom in rest):
            return None
        if count:
            total[rest] = total.get(rest, 0) + coefficient
    return _poly(total)


def depends_on(dim: Dim, index: LoopIndex) -> bool:
    for atom in all_atoms(dim):
        if atom == index:
            return True
        if isinstance(atom, Computed) and index in atom.expression.indices:  # type: ignore[attr-defined]
            return True
    return False


def evaluate(dim: Dim, values: Mapping[str, int]) -> int:
    """The integer that `dim` is with these values of its symbols; KeyError names one without a value."""
    if isinstance(dim, int):
        return dim
    result = substitute(dim, lambda atom: values[atom.name] if isinstance(atom, Symbol) else None)
    if not isinstance(result, int):
        raise ValueError(f"{dim} is not a constant once its symbols are known")
    return result
