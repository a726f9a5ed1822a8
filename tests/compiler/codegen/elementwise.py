"""An expression of printed kernels applied to every element of numpy arrays, and errors in ulp."""

from __future__ import annotations

from typing import Any

import numpy as np
from kernel_harness import Loaded, host, kernel

from onnxsmith_compiler.codegen.source import KernelSource
from onnxsmith_compiler.codegen.target import Target

Array = np.ndarray[Any, Any]


def elementwise_source(expression: str, arguments: tuple[str, ...], result: str) -> KernelSource:
    """A kernel that stores `expression` of a, b, ..., elements of arrays of the types `arguments`."""
    names = "abcd"[: len(arguments)]
    loads = "\n".join(f"    {name} = load({name}_, i)" for name in names)
    body = f"for i in range(n):\n{loads}\n    store(y, i, {expression})"
    pointers = [f"{kind}* {name}_" for kind, name in zip(arguments, names, strict=True)]
    return kernel(body, *pointers, f"{result}* y!", "int64 n", label=expression)


class Elementwise:
    """The compiled expression; called on arrays of one length."""

    def __init__(self, expression: str, arguments: tuple[str, ...], result: str, target: Target | None = None) -> None:
        self.result = np.dtype(result)
        self.loaded = Loaded(elementwise_source(expression, arguments, result), target or host())

    def __call__(self, *arrays: Array) -> Array:
        y = np.zeros(len(arrays[0]), self.result)
        assert self.loaded(*map(np.ascontiguousarray, arrays), y, len(y)) == 0
        return y


def ulp_errors(actual: Array, exact: Array) -> Array:
    """|actual - exact| in units in the last place of `exact`, which is of a wider type than `actual`.

    NaN must meet NaN, and a zero one of its own sign: else the error is infinite. What rounds to infinity
    counts as the power of two that the largest finite number falls short of.
    """
    limits = np.finfo(actual.dtype)
    wide = exact.dtype.type
    with np.errstate(all="ignore"):
        exponent = np.frexp(exact)[1] - 1
        exponent = np.clip(exponent, limits.minexp, limits.maxexp - 1)
        unit = np.ldexp(wide(1), exponent - limits.nmant)
        infinity = np.ldexp(wide(1), limits.maxexp)
        found = np.clip(actual.astype(wide), -infinity, infinity)
        error = np.abs(found - np.clip(exact, -infinity, infinity)) / unit
    error = np.where(np.isnan(actual) & np.isnan(exact), 0, error)
    wrong = np.isnan(actual) != np.isnan(exact)
    wrong |= (actual == 0) & (exact == 0) & (np.signbit(actual) != np.signbit(exact))
    return np.where(wrong, np.inf, error)


def same_bits(actual: Array, expected: Array) -> Array:
    """Where the elements are the same, the sign of zero included; any NaN is the same as another."""
    if actual.dtype.kind != "f":
        return actual == expected
    both_nan = np.isnan(actual) & np.isnan(expected)
    return both_nan | ((actual == expected) & (np.signbit(actual) == np.signbit(expected)))
