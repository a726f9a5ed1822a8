"""What is known of Dims at compile time: signs and ranges of symbols, loop indices and their sums."""

from __future__ import annotations

from onnxsmith_compiler.ir import dim as dims
from onnxsmith_compiler.ir import loop
from onnxsmith_compiler.ir.atom import LoopIndex
from onnxsmith_compiler.ir.bounds import bounds_of, is_nonnegative

SIZE = dims.symbol("batch")
ELEMENT = dims.symbol("?late_0", signed=True)
INDEX = LoopIndex("i", 10)


def test_sizes_are_not_negative_but_elements_of_tensors_may_be() -> None:
    assert is_nonnegative(SIZE)
    assert is_nonnegative(SIZE * SIZE + 3)
    assert not is_nonnegative(ELEMENT)
    assert not is_nonnegative(SIZE + ELEMENT)


def test_range_of_an_index_times_a_signed_symbol_is_unknown() -> None:
    position = dims.from_atom(INDEX)
    assert bounds_of(position * SIZE) == (0, 9 * SIZE)
    assert bounds_of(position * ELEMENT) == (None, None)
    assert bounds_of(position + ELEMENT) == (ELEMENT, ELEMENT + 9)


def test_a_shift_by_a_signed_symbol_is_checked_on_both_sides() -> None:
    position = dims.from_atom(INDEX)
    assert loop.in_range(position, 10) is None
    check = loop.in_range(position + ELEMENT, 10 + ELEMENT)
    assert check is not None
    assert "ge(" in str(check)
