"""Rounding to floats narrower than float32, once: numpy forms of what kernels do.

Two roundings, to float32 and from there, may end beside the nearest value. They do not where the first one is to odd.
S. Boldo, G. Melquiond, "Emulation of a FMA and correctly rounded sums: proved algorithms using rounding to odd", 2008.
"""

from __future__ import annotations

import numpy as np

_EXACT_BITS = 53
_DROPPED = (1 << (64 - _EXACT_BITS)) - 1


def float32_to_odd(array: np.ndarray) -> np.ndarray:
    """float64 or integers as float32, where inexact the neighbour whose last bit is set; of any shape."""
    wide = _wide(array)
    with np.errstate(over="ignore", invalid="ignore"):
        near = np.asarray(wide.astype(np.float32))
        back = near.astype(np.float64)
        bits = near.view(np.int32)
        step = np.where(np.abs(back) > np.abs(wide), -1, 1).astype(np.int32)
        moves = (back != wide) & ~np.isnan(wide) & (bits & 1 == 0)
        return np.asarray(np.where(moves, bits + step, bits)).view(np.float32)


def _wide(array: np.ndarray) -> np.ndarray:
    """As float64, where integers of more than 53 bits are rounded to odd."""
    if array.dtype.kind == "f" or array.dtype.itemsize < 8:
        return array.astype(np.float64)
    size = np.abs(array).view(np.uint64)  # the least integer too
    odd = (size & ~np.uint64(_DROPPED)) | np.where(size & np.uint64(_DROPPED), np.uint64(_DROPPED + 1), np.uint64(0))
    exact = np.where(size >> np.uint64(_EXACT_BITS), odd, size).astype(np.float64)
    return np.asarray(np.where(array < 0, -exact, exact))


def narrowed(array: np.ndarray, storage: np.dtype) -> np.ndarray:
    """`array` as floats of `storage`, a type of 16 bits or less, rounded once to nearest even."""
    needs_care = array.dtype.itemsize >= 4 and array.dtype != np.float32
    with np.errstate(over="ignore", invalid="ignore"):
        return np.asarray((float32_to_odd(array) if needs_care else array).astype(storage))
