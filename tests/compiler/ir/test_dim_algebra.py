"""Simplified Dims are what was written, for all sizes and positions; what is said of their range is true."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from onnxsmith_compiler.ir import dim as dims
from onnxsmith_compiler.ir.atom import Atom, LoopIndex, Symbol
from onnxsmith_compiler.ir.bounds import bounds_of, is_nonnegative, is_within
from onnxsmith_compiler.ir.dim import Dim

A, B, LATE = dims.symbol("a"), dims.symbol("b"), dims.symbol("?late_0", signed=True)
INDEX, J = LoopIndex("i", 3), LoopIndex("j", A)


@dataclass(frozen=True)
class Written:
    """A Dim as it was built, and the integer that the same operations give one by one."""

    dim: Dim
    value: Callable[[Mapping[str, int]], int]


def _broadcast(x: int, y: int) -> int:
    return y if x == 1 else x


OPERATIONS: dict[str, tuple[Callable[[Dim, Dim], Dim], Callable[[int, int], int]]] = {
    "+": (lambda x, y: x + y, lambda x, y: x + y),
    "-": (lambda x, y: x - y, lambda x, y: x - y),
    "*": (lambda x, y: x * y, lambda x, y: x * y),
    "//": (dims.floordiv, lambda x, y: x // y),
    "%": (dims.modulo, lambda x, y: x % y),
    "ceil": (dims.ceildiv, lambda x, y: -(-x // y)),
    "max": (dims.maximum, max),
    "min": (dims.minimum, min),
}


def _leaf(dim: Dim, name: str) -> Written:
    return Written(dim, lambda values: values[name])


def _number(number: int) -> Written:
    return Written(number, lambda values: number)


def _combined(name: str, left: Written, right: Written) -> Written:
    build, compute = OPERATIONS[name]
    assume(not (name in ("//", "%", "ceil") and right.dim == 0))
    return Written(build(left.dim, right.dim), lambda values: compute(left.value(values), right.value(values)))


LEAVES = st.one_of(
    st.integers(-3, 8).map(_number),
    st.sampled_from([_leaf(A, "a"), _leaf(B, "b"), _leaf(LATE, "?late_0")]),
    st.sampled_from([_leaf(dims.from_atom(INDEX), "i"), _leaf(dims.from_atom(J), "j")]),
)
WRITTEN = st.recursive(
    LEAVES, lambda inner: st.builds(_combined, st.sampled_from(sorted(OPERATIONS)), inner, inner), max_leaves=7
)


@st.composite
def _values(draw: st.DrawFn) -> dict[str, int]:
    a = draw(st.integers(1, 6))
    return {
        "a": a,
        "b": draw(st.integers(0, 6)),
        "?late_0": draw(st.integers(-5, 5)),
        "i": draw(st.integers(0, 2)),
        "j": draw(st.integers(0, a - 1)),
    }


VALUES = _values()


def _evaluate(dim: Dim, values: Mapping[str, int]) -> int:
    def place(atom: Atom) -> Dim | None:
        return values[atom.name] if isinstance(atom, Symbol | LoopIndex) else None

    result = dims.substitute(dim, place)
    assert isinstance(result, int)
    return result


def _expected(written: Written, values: Mapping[str, int]) -> int:
    """What the operations give; the example is dropped where one of them divides by 0."""
    try:
        return written.value(values)
    except ZeroDivisionError:
        assume(False)
        raise


@settings(max_examples=400, deadline=None)
@given(WRITTEN, VALUES)
def test_simplified_is_what_was_written(written: Written, values: dict[str, int]) -> None:
    expected = _expected(written, values)
    assert _evaluate(written.dim, values) == expected


@settings(max_examples=400, deadline=None)
@given(WRITTEN, VALUES)
def test_bounds_hold(written: Written, values: dict[str, int]) -> None:
    value = _expected(written, values)
    low, high = bounds_of(written.dim)
    try:
        assert low is None or _evaluate(low, values) <= value
        assert high is None or value <= _evaluate(high, values)
    except ZeroDivisionError:
        assume(False)
    if is_nonnegative(written.dim):
        assert value >= 0


@settings(max_examples=400, deadline=None)
@given(WRITTEN, WRITTEN, VALUES)
def test_within_is_within(written: Written, limit: Written, values: dict[str, int]) -> None:
    if is_within(written.dim, limit.dim):
        assert 0 <= _expected(written, values) < _expected(limit, values)


@settings(max_examples=200, deadline=None)
@given(WRITTEN, WRITTEN, VALUES)
def test_exact_quotients_are_exact(left: Written, right: Written, values: dict[str, int]) -> None:
    quotient = dims.exact_quotient(left.dim * right.dim, right.dim)
    if quotient is not None and right.dim != 0:
        divisor, expected = _expected(right, values), _expected(left, values)
        assert _evaluate(quotient, values) * divisor == expected * divisor


@settings(max_examples=200, deadline=None)
@given(WRITTEN, VALUES)
def test_a_coefficient_is_the_step_of_an_index(written: Written, values: dict[str, int]) -> None:
    coefficient = dims.coefficient_of(written.dim, INDEX)
    if coefficient is not None:
        values = values | {"i": 0}
        step = _expected(written, values | {"i": 1}) - _expected(written, values)
        assert _evaluate(coefficient, values) == step


@settings(max_examples=200, deadline=None)
@given(LEAVES, LEAVES, LEAVES)
def test_sums_and_products_are_canonical(x: Written, y: Written, z: Written) -> None:
    a, b, c = x.dim, y.dim, z.dim
    assert (a + b) * c == c * b + a * c
    assert (a + b) + c == a + (c + b)
    assert (a * b) * c == a * (c * b)
    assert a - a == 0


def test_atoms_of_one_name_are_told_apart() -> None:
    symbol, index, longer = (dims.from_atom(x) for x in (Symbol("i"), INDEX, LoopIndex("i", 4)))
    for left, right in ((symbol, index), (index, longer)):
        assert left * right == right * left
        assert left + right == right + left
        assert left != right


@pytest.mark.parametrize(("left", "right"), [(1, 1), (1, 5), (5, 1), (5, 5), (0, 1), (1, 0), (0, 0)])
def test_broadcast_sizes(left: int, right: int) -> None:
    wanted = _broadcast(left, right)
    values = {"a": left, "b": right}
    assert dims.evaluate(dims.broadcast(A, B), values) == wanted
    assert dims.evaluate(dims.broadcast(A, right), values) == wanted or right == 1
    assert dims.broadcast(left, right) == wanted


def test_sizes_that_divide_leave_no_division() -> None:
    assert (4 * A) // 4 == A
    assert (A * B) // B == A
    assert (dims.from_atom(J) + A * dims.from_atom(INDEX)) // A == dims.from_atom(INDEX)
    assert (dims.from_atom(J) + A * dims.from_atom(INDEX)) % A == dims.from_atom(J)
    assert dims.exact_quotient(A * A - B * B, A - B) == A + B
    assert dims.exact_quotient(2 * A, 4) is None
    assert dims.exact_quotient(A, 0) is None


def test_a_symbol_without_a_value_is_named() -> None:
    with pytest.raises(KeyError, match="b"):
        dims.evaluate(A + B, {"a": 1})
    with pytest.raises(ValueError, match="not a constant"):
        dims.evaluate(dims.from_atom(INDEX), {})
    with pytest.raises(ZeroDivisionError):
        dims.floordiv(A, 0)
