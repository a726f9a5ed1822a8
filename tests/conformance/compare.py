"""Whether outputs are what a case expects: as the suite's own runner compares, and dtypes and lengths too."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import ml_dtypes
import numpy as np

_BFLOAT16 = np.dtype(ml_dtypes.bfloat16)
_BFLOAT16_RTOL = 2**-6
_SHOWN = 24


def differences(found: Sequence[Any], expected: Sequence[Any], rtol: float, atol: float) -> list[str]:
    """What differs, one line an output; empty where all is as expected."""
    if len(found) != len(expected):
        return [f"{len(found)} outputs, expected {len(expected)}"]
    pairs = enumerate(zip(found, expected, strict=True))
    return [f"output {number} {why}" for number, (a, b) in pairs if (why := _difference(a, b, rtol, atol))]


def _difference(found: Any, expected: Any, rtol: float, atol: float) -> str:
    if expected is None or found is None:
        return "" if expected is found else f"is {_kind(found)}, expected {_kind(expected)}"
    if isinstance(expected, list | tuple) or isinstance(found, list | tuple):
        return _sequence_difference(found, expected, rtol, atol)
    found, expected = np.asarray(found), np.asarray(expected)
    if _dtype(found) != _dtype(expected) or found.shape != expected.shape:
        return f"is {_kind(found)}, expected {_kind(expected)}"
    if expected.size == 0 or _close(found, expected, rtol, atol):
        return ""
    return f"is {_short(found)}, expected {_short(expected)}"


def _sequence_difference(found: Any, expected: Any, rtol: float, atol: float) -> str:
    if not isinstance(found, list | tuple) or not isinstance(expected, list | tuple):
        return f"is {_kind(found)}, expected {_kind(expected)}"
    if len(found) != len(expected):
        return f"has {len(found)} elements, expected {len(expected)}"
    pairs = enumerate(zip(found, expected, strict=True))
    wrong = [f"element {number} {why}" for number, (a, b) in pairs if (why := _difference(a, b, rtol, atol))]
    return "; ".join(wrong)


def _dtype(array: np.ndarray) -> np.dtype:
    return np.dtype(object) if array.dtype.kind in "OUST" else array.dtype


def _close(found: np.ndarray, expected: np.ndarray, rtol: float, atol: float) -> bool:
    if _dtype(expected) == np.dtype(object):
        return bool(found.tolist() == expected.tolist())
    if expected.dtype.kind in "iub":
        return bool(np.array_equal(found, expected))
    if expected.dtype.kind == "c":
        return bool(np.allclose(found, expected, rtol, atol, equal_nan=True))
    if expected.dtype == _BFLOAT16:
        rtol = max(rtol, _BFLOAT16_RTOL)
    wide = np.float64
    return bool(np.allclose(found.astype(wide), expected.astype(wide), rtol, atol, equal_nan=True))


def _kind(value: Any) -> str:
    if isinstance(value, np.ndarray | np.generic):
        return f"{value.dtype}{list(value.shape)}"
    return "missing" if value is None else type(value).__name__


def _short(array: np.ndarray) -> str:
    values = array.reshape(-1).tolist()
    return f"[{', '.join(_number(value) for value in values[:_SHOWN])}{', ...' if len(values) > _SHOWN else ''}]"


def _number(value: Any) -> str:
    return f"{value:.7g}" if isinstance(value, float) else repr(value)
