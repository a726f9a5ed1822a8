"""What is known of a `Dim`'s value for every value of the loop indices in it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from onnxsmith_compiler.ir.atom import Atom, Computed, Extreme, LoopIndex, Monomial, Quotient, Remainder, Symbol
from onnxsmith_compiler.ir.polynomial import all_atoms, from_terms, terms_of

if TYPE_CHECKING:
    from onnxsmith_compiler.ir.dim import Dim


def bounds_of(dim: Dim) -> tuple[Dim | None, Dim | None]:
    """(least, greatest) value over all loop indices in it; None where not known. Symbols stay symbols."""
    low: Dim | None = 0
    high: Dim | None = 0
    for monomial, coefficient in terms_of(dim):
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
        value = from_terms({monomial: 1})
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
            value = from_terms({(atom,): 1})
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
        value = from_terms({(atom,): 1})
        return value, value
    return None, None


def _varies(atom: Atom) -> bool:
    """Whether a loop index or a computed value is part of the atom."""
    return any(isinstance(part, LoopIndex | Computed) for part in all_atoms(from_terms({(atom,): 1})))


def is_nonnegative(dim: Dim) -> bool:
    """Whether dim >= 0 is certain, taking every symbol that is not signed to be at least 0."""
    low, _ = bounds_of(dim)
    if low is None:
        return False
    return all(coefficient >= 0 and _plain(monomial) for monomial, coefficient in terms_of(low))


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
