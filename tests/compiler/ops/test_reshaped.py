"""Rearranged arrays: the same elements as numpy's, in memory that was not walked in strides."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.graphs import normal

from onnxsmith_compiler.ops.arrays import in_panels, reshaped


@st.composite
def _reshapes(draw: st.DrawFn) -> tuple[np.ndarray, tuple[int, ...]]:
    """A transposed array, and another shape for its elements."""
    factors = draw(st.lists(st.integers(1, 3), min_size=1, max_size=5))
    array = np.arange(math.prod(factors)).reshape(factors).transpose(draw(st.permutations(range(len(factors)))))
    cuts = sorted(draw(st.lists(st.integers(0, len(factors)), max_size=4)))
    shape = tuple(math.prod(array.shape[a:b]) for a, b in zip([0, *cuts], [*cuts, len(factors)], strict=True))
    return array, shape


@given(_reshapes())
def test_reshaped_as_numpy_does(case: tuple[np.ndarray, tuple[int, ...]]) -> None:
    array, shape = case
    np.testing.assert_array_equal(reshaped(array, shape), array.reshape(shape))


def test_splits_and_merges_across_axes() -> None:
    array = np.arange(24).reshape(4, 6).T
    for shape in ((24,), (8, 3), (2, 3, 4), (3, 8), (1, 6, 1, 4, 1)):
        np.testing.assert_array_equal(reshaped(array, shape), array.reshape(shape))


def test_nothing_in_it() -> None:
    assert reshaped(np.zeros((0, 3)).T, (0, 5)).shape == (0, 5)


def test_a_copy_keeps_the_order_of_memory() -> None:
    rows = np.arange(5 * 6).reshape(5, 2, 3)
    columns = reshaped(rows.transpose(2, 1, 0), (6, 5))  # a merge that takes a copy
    np.testing.assert_array_equal(columns, rows.transpose(2, 1, 0).reshape(6, 5))
    assert columns.T.flags.c_contiguous


@pytest.mark.parametrize("shape", [(3, 8), (3, 7), (3, 3), (2, 3, 9), (3, 0)])
@pytest.mark.parametrize("turned", [False, True])
def test_panels_are_filled_up_with_zeros(shape: tuple[int, ...], turned: bool) -> None:
    matrices = normal(*shape)
    if turned:
        matrices = np.asarray(matrices.swapaxes(-1, -2), order="C").swapaxes(-1, -2)
    panels = in_panels(matrices, 4)
    wide = np.zeros((*shape[:-1], -(-shape[-1] // 4) * 4), np.float32)
    wide[..., : shape[-1]] = matrices
    assert panels.flags.c_contiguous
    np.testing.assert_array_equal(panels, wide.reshape(*shape[:-1], -1, 4).swapaxes(-3, -2))
