"""Conversions between element types, rounded once: against the nearest of all values of the type."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import ml_dtypes
import numpy as np
import pytest

from tests.support import Array, Case, Fixed, check, node_case

NARROW = {
    "float16": (np.float16, 10),
    "bfloat16": (ml_dtypes.bfloat16, 16),
    "float8e4m3fn": (ml_dtypes.float8_e4m3fn, 17),
    "float8e4m3fnuz": (ml_dtypes.float8_e4m3fnuz, 18),
    "float8e5m2": (ml_dtypes.float8_e5m2, 19),
    "float8e5m2fnuz": (ml_dtypes.float8_e5m2fnuz, 20),
}
"""Numpy's type, and ONNX's number of it."""


def values_of(dtype: Any) -> Array:
    """Every finite value of a type, in order, as float64."""
    bits = 8 * np.dtype(dtype).itemsize
    codes = np.arange(1 << bits, dtype=np.uint16 if bits == 16 else np.uint8)
    with np.errstate(invalid="ignore"):
        values = codes.view(dtype).astype(np.float64)
    return np.unique(values[np.isfinite(values)])


def nearest(x: Array, dtype: Any) -> Array:
    """x, float64 within the range of the type, rounded half to even."""
    values = values_of(dtype)
    above = np.searchsorted(values, x).clip(1, len(values) - 1)
    low, high = values[above - 1], values[above]
    middle = (low + high) / 2
    low_code = np.ascontiguousarray(low.astype(dtype)).view(f"u{np.dtype(dtype).itemsize}")
    up = (x > middle) | ((x == middle) & (low_code % 2 == 1))
    return np.where(up, high, low).astype(dtype)


def near_middles(dtype: Any) -> Array:
    """Float64 numbers beside the middles between neighbours, nearer than float32 can tell, and the middles."""
    values = values_of(dtype)
    middles = ((values[1:] + values[:-1]) / 2)[:: max(1, len(values) // 1000)]
    return np.concatenate([middles, *(np.nextafter(middles, side) for side in (-np.inf, np.inf))])


def narrowing_cases() -> Iterator[Case]:
    for dtype, code in NARROW.values():
        x = near_middles(dtype)
        for value in (x, Fixed(x)):
            yield node_case("Cast", value, opset=25, to=code, expected=[nearest(x, dtype)], rtol=0, atol=0)
    extremes = np.array([np.nan, np.inf, -np.inf, 1e300, -1e300, 1e-300, -1e-300, 0.0, -0.0, 3.5e38])
    for dtype, code in (NARROW["float16"], NARROW["bfloat16"]):
        with np.errstate(over="ignore"):
            expected = extremes.astype(dtype)
        for value in (extremes, Fixed(extremes)):
            yield node_case("Cast", value, opset=25, to=code, expected=[expected], rtol=0, atol=0)


def integer_cases() -> Iterator[Case]:
    dtype, code = NARROW["bfloat16"]
    for kind in (np.int32, np.uint32, np.int64, np.uint64):
        bits, signed = 8 * np.dtype(kind).itemsize, np.dtype(kind).kind == "i"
        powers = [1 << power for power in range(9, bits - signed)]
        middles = [power + (power >> 8) + step for power in powers for step in (-1, 0, 1)]
        numbers = [*middles, *(-middle for middle in middles if signed)]
        x = np.array(numbers, kind)
        expected = np.array([_nearest_integer(number) for number in numbers]).astype(dtype)
        for value in (x, Fixed(x)):
            yield node_case("Cast", value, opset=25, to=code, expected=[expected], rtol=0, atol=0)


def _nearest_integer(number: int) -> float:
    """Rounded half to even to 8 significant bits, by the definition."""
    size = abs(number)
    drop = max(0, size.bit_length() - 8)
    whole, rest = divmod(size, 1 << drop)
    half = (1 << drop) / 2
    whole += rest > half or (rest == half and whole % 2 == 1)
    return float((whole << drop) * (1 if number >= 0 else -1))


@pytest.mark.parametrize("cases", [narrowing_cases, integer_cases], ids=["floats", "integers"])
def test_rounded_once(cases: Any) -> None:
    check(list(cases()))
