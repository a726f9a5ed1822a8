"""Polynomials with integer coefficients over atoms: what a symbolic `Dim` is.

They are canonical, so that equality is structural, and one that is constant is always a plain int.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

from onnxsmith_compiler.ir.atom import Atom, Extreme, Monomial, Quotient, Remainder, atom_key, monomial_key

if TYPE_CHECKING:
    from onnxsmith_compiler.ir.dim import Dim


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
        if not isinstance(other, int | Poly):
            return NotImplemented
        total = dict(self.terms)
        for monomial, coefficient in terms_of(other):
            total[monomial] = total.get(monomial, 0) + coefficient
        return from_terms(total)

    __radd__ = __add__

    def __neg__(self) -> Dim:
        return from_terms({monomial: -coefficient for monomial, coefficient in self.terms})

    def __sub__(self, other: Dim) -> Dim:
        return self + (-other)

    def __rsub__(self, other: Dim) -> Dim:
        return (-self) + other

    def __mul__(self, other: Dim) -> Dim:
        if not isinstance(other, int | Poly):
            return NotImplemented
        total: dict[Monomial, int] = {}
        for left, a in self.terms:
            for right, b in terms_of(other):
                monomial = tuple(sorted(left + right, key=atom_key))
                total[monomial] = total.get(monomial, 0) + a * b
        return from_terms(total)

    __rmul__ = __mul__

    # Division looks at the bounds of its parts, which are polynomials: it stands above them and is imported late.

    def __floordiv__(self, other: Dim) -> Dim:
        from onnxsmith_compiler.ir.dim import floordiv

        return floordiv(self, other)

    def __rfloordiv__(self, other: Dim) -> Dim:
        from onnxsmith_compiler.ir.dim import floordiv

        return floordiv(other, self)

    def __mod__(self, other: Dim) -> Dim:
        from onnxsmith_compiler.ir.dim import modulo

        return modulo(self, other)

    def __rmod__(self, other: Dim) -> Dim:
        from onnxsmith_compiler.ir.dim import modulo

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


def terms_of(dim: Dim) -> tuple[tuple[Monomial, int], ...]:
    """((monomial, coefficient), ...), highest degree first; none for 0."""
    if isinstance(dim, Poly):
        return dim.terms
    return (((), dim),) if dim else ()


def from_terms(terms: Mapping[Monomial, int]) -> Dim:
    """The sum of the monomials, whose atoms are in the order of `atom_key`, each times its coefficient."""
    kept = {monomial: coefficient for monomial, coefficient in terms.items() if coefficient}
    if not kept:
        return 0
    if len(kept) == 1 and () in kept:
        return kept[()]
    return Poly(tuple(sorted(kept.items(), key=lambda term: monomial_key(term[0]), reverse=True)))


def atoms(dim: Dim) -> Iterator[Atom]:
    """The atoms of a Dim's terms, each once, not those inside quotients, remainders and extremes."""
    seen: set[Atom] = set()
    for monomial, _ in terms_of(dim):
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
