"""Products of pairs of bfloat16 that are added to float32: AVX512-BF16's `vdpbf16ps`, and the same in numpy.

A lane adds both products of its pair: that of the second elements first, then that of the first ones, each as a
fused multiply-add, rounded to nearest even. Whatever the thread's rounding mode, subnormal operands and subnormal
sums are zero. Source: Intel, "BFLOAT16 - Hardware Numerics Definition", 2018.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from llvmlite import ir

Array = np.ndarray[Any, Any]

_SMALLEST_NORMAL = np.float32(2.0**-126)


class _BFloat(ir.Type):  # type: ignore[misc]
    """LLVM's bfloat, which llvmlite lacks."""

    def _to_string(self) -> str:
        return "bfloat"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _BFloat)

    def __hash__(self) -> int:
        return hash(_BFloat)


_PAIRS = ir.VectorType(_BFloat(), 32)
_SUMS = ir.VectorType(ir.FloatType(), 16)


def add_products(builder: ir.IRBuilder, a: ir.Value, b: ir.Value, sums: ir.Value) -> ir.Value:
    """`sums`, 16 of float32, plus the products of the pairs in the 16 words of 32 bits of `a` and of `b`."""
    name = "llvm.x86.avx512bf16.dpbf16ps.512"
    function = builder.module.globals.get(name)
    if function is None:
        function = ir.Function(builder.module, ir.FunctionType(_SUMS, [_SUMS, _PAIRS, _PAIRS]), name)
    return builder.call(function, [sums, builder.bitcast(a, _PAIRS), builder.bitcast(b, _PAIRS)])


def sum_of_products(a: Array, b: Array, start: Array) -> Array:
    """For bfloat16 a[K] and b[K, N], K even: the float32 sums [N] of all pairs in order, from `start`."""
    wide_a, wide_b = (_flushed(array.astype(np.float32)) for array in (a, b))
    total = start
    for first in range(0, len(a), 2):
        for k in (first + 1, first):
            # The product is exact in float64.
            exact = wide_a[k].astype(np.float64) * wide_b[k].astype(np.float64)
            total = _flushed((exact + total).astype(np.float32))
    return total


def _flushed(array: Array) -> Array:
    """float32 with subnormal numbers made zero."""
    return np.where(np.abs(array) < _SMALLEST_NORMAL, np.copysign(np.float32(0), array), array)
