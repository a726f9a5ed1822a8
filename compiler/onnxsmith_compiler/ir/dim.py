"""Integers that may be symbolic: sizes of dimensions, strides, offsets and loop indices.

A `Dim` is a Python int, or a `Poly`: a polynomial with integer coefficients over atoms. An atom is a
named symbol (a size bound when the program runs), a loop index with its extent, a quotient,
remainder, maximum or minimum of other Dims, or an integer computed by a scalar expression.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import TypeAlias

from onnxsmith_compiler.ir.atom import Atom, Computed, Extreme, LoopIndex, Monomial, Quotient, Remainder, Symbol
from onnxsmith_compiler.ir.bounds import is_nonnegative, is_within
from onnxsmith_compiler.ir.polynomial import Poly, all_atoms, from_terms, terms_of

Dim: TypeAlias = int | Poly


def from_atom(atom: Atom) -> Dim:
    return Poly((((atom,), 1),))


def symbol(name: str, signed: bool = False) -> Dim:
    return from_atom(Symbol(name, signed))


def product(dims: Iterable[Dim]) -> Dim:
    result: Dim = 1
    for dim in dims:
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
    lead, lead_coefficient = terms_of(denominator)[0]
    quotient: Dim = 0
    rest = numerator
    for _ in range(len(terms_of(numerator)) * 4):
        monomial, coefficient = terms_of(rest)[0]
        factor = _divide_monomial(monomial, lead)
        if factor is None or coefficient % lead_coefficient:
            return None
        step = from_terms({factor: coefficient // lead_coefficient})
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
    for monomial, coefficient in terms_of(numerator):
        term = from_terms({monomial: coefficient})
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


def symbols_of(dim: Dim) -> set[str]:
    return {atom.name for atom in all_atoms(dim) if isinstance(atom, Symbol)}


def substitute(dim: Dim, replace: Callable[[Atom], Dim | None]) -> Dim:
    """`dim` with every atom for which `replace` gives a Dim put in place, and simplified again."""
    if isinstance(dim, int):
        return dim
    result: Dim = 0
    for monomial, coefficient in dim.terms:
        term: Dim = coefficient
        for atom in monomial:
            term = term * _substitute_atom(atom, replace)
        result = result + term
    return result


def _substitute_atom(atom: Atom, replace: Callable[[Atom], Dim | None]) -> Dim:
    new = replace(atom)
    if new is not None:
        return new
    match atom:
        case Quotient(numerator=a, denominator=b):
            return floordiv(substitute(a, replace), substitute(b, replace))
        case Remainder(numerator=a, denominator=b):
            return modulo(substitute(a, replace), substitute(b, replace))
        case Extreme(kind=kind, left=a, right=b):
            return _extreme(kind, substitute(a, replace), substitute(b, replace))
        case LoopIndex(name=name, extent=extent):
            return from_atom(LoopIndex(name, substitute(extent, replace)))
    return from_atom(atom)


def evaluate(dim: Dim, values: Mapping[str, int]) -> int:
    """The integer that `dim` is with these values of its symbols; KeyError names one without a value."""
    if isinstance(dim, int):
        return dim
    result = substitute(dim, lambda atom: values[atom.name] if isinstance(atom, Symbol) else None)
    if not isinstance(result, int):
        raise ValueError(f"{dim} is not a constant once its symbols are known")
    return result


def coefficient_of(dim: Dim, index: LoopIndex) -> Dim | None:
    """c where dim = c * index + rest and neither c nor rest depends on index; None where it is not so."""
    total: dict[Monomial, int] = {}
    for monomial, coefficient in terms_of(dim):
        count = monomial.count(index)
        rest = tuple(atom for atom in monomial if atom != index)
        if count > 1 or any(depends_on(from_atom(atom), index) for atom in rest):
            return None
        if count:
            total[rest] = total.get(rest, 0) + coefficient
    return from_terms(total)


def depends_on(dim: Dim, index: LoopIndex) -> bool:
    for atom in all_atoms(dim):
        if atom == index:
            return True
        if isinstance(atom, Computed) and index in atom.expression.indices:  # type: ignore[attr-defined]
            return True
    return False
