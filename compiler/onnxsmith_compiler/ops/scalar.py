"""The scalar functions that pointwise nodes and loop-IR expressions are made of: arity, result type, numpy form."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from onnxsmith_compiler.ir import dim as dims
from onnxsmith_compiler.ir.bounds import is_nonnegative
from onnxsmith_compiler.ir.polynomial import Poly
from onnxsmith_compiler.ops.rounding import narrowed


@dataclass(frozen=True)
class ScalarFunction:
    """`result` is "same" (as the first argument), "second" (as the second) or "bool". `cost` is in rough flops."""

    name: str
    arity: int
    result: str
    numpy: Callable[..., np.ndarray]
    cost: int = 1


def _divide(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """ONNX Div: integers truncate towards zero, and x / 0 is 0 as in kernels."""
    if a.dtype == object:
        return dims_divide(a, b)
    if a.dtype.kind not in "iu":
        return np.asarray(np.true_divide(a, b)).astype(a.dtype)
    quotient = np.where(b == 0, 0, a // np.where(b == 0, 1, b))
    remainder = a - quotient * b
    return np.asarray(quotient + ((remainder != 0) & ((remainder < 0) != (b < 0)) & (quotient < 0) & (b != 0))).astype(
        a.dtype
    )


def dims_divide(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Truncating division of Dims, which must not be negative for it to be floor division."""

    def divide(x: dims.Dim, y: dims.Dim) -> dims.Dim:
        if isinstance(x, int) and isinstance(y, int):
            return (abs(x) // abs(y)) * (1 if (x < 0) == (y < 0) else -1) if y else 0
        if y == 0 or not is_nonnegative(x) or not is_nonnegative(y):
            raise TypeError("sign of a symbolic quotient is not known")
        return dims.floordiv(x, y)

    return np.asarray(np.frompyfunc(divide, 2, 1)(a, b), dtype=object)


def _power(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Of integers as in kernels: modulo 2^bits, and truncated towards 0 where the exponent is negative."""
    if a.dtype.kind not in "iu":
        return np.asarray(np.power(a, b))
    power = np.power(a, np.where(b < 0, 0, b))
    inverse = np.where(a == 1, 1, np.where(a == -1, np.where(b % 2 == 0, 1, -1), 0)) if a.dtype.kind == "i" else power
    return np.asarray(np.where(b < 0, inverse, power)).astype(a.dtype)


def _compare(name: str) -> Callable[[np.ndarray, np.ndarray], np.ndarray]:
    ufunc = getattr(np, name)

    def certain(x: dims.Dim, y: dims.Dim) -> bool:
        difference = x - y
        if not isinstance(difference, int):
            if is_nonnegative(difference - 1):
                difference = 1
            elif is_nonnegative(-difference - 1):
                difference = -1
            else:
                raise TypeError("the order of two symbolic sizes is not known")
        return bool(ufunc(difference, 0))

    def compare(a: np.ndarray, b: np.ndarray) -> np.ndarray:
        if a.dtype == object or b.dtype == object:
            return np.asarray(np.frompyfunc(certain, 2, 1)(a, b), dtype=object)
        return np.asarray(ufunc(a, b))

    return compare


def _extreme(kind: str) -> Callable[[np.ndarray, np.ndarray], np.ndarray]:
    symbolic = np.frompyfunc(dims.maximum if kind == "maximum" else dims.minimum, 2, 1)
    ufunc = getattr(np, kind)

    def extreme(a: np.ndarray, b: np.ndarray) -> np.ndarray:
        return np.asarray(symbolic(a, b) if object in (a.dtype, b.dtype) else ufunc(a, b))

    return extreme


def _select(condition: np.ndarray, a: np.ndarray, b: np.ndarray) -> np.ndarray:
    if any(isinstance(element, Poly) for element in np.asarray(condition, dtype=object).flat):
        raise TypeError("a symbolic condition")
    return np.where(condition.astype(bool), a, b)


def _mod(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return np.where(b == 0, 0, np.mod(a, np.where(b == 0, 1, b))) if a.dtype.kind in "iu" else np.mod(a, b)


def _fmod(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return np.where(b == 0, 0, np.fmod(a, np.where(b == 0, 1, b))) if a.dtype.kind in "iu" else np.fmod(a, b)


def _shift(name: str) -> Callable[[np.ndarray, np.ndarray], np.ndarray]:
    ufunc = getattr(np, name)

    def shift(a: np.ndarray, b: np.ndarray) -> np.ndarray:
        inside = (b >= 0) & (b < a.dtype.itemsize * 8)
        beyond = np.where((a < 0) & (name == "right_shift"), -1, 0).astype(a.dtype)
        return np.where(inside, ufunc(a, np.where(inside, b, 0).astype(a.dtype)), beyond)

    return shift


def _float(function: Callable[[np.ndarray], np.ndarray]) -> Callable[[np.ndarray], np.ndarray]:
    """Floats narrower than float64 are computed in it and rounded once."""

    def evaluate(x: np.ndarray) -> np.ndarray:
        result = np.asarray(function(x.astype(np.float64)))
        return narrowed(result, x.dtype) if x.dtype.itemsize < 4 else result.astype(x.dtype)

    return evaluate


def _elementwise(function: Callable[[float], float]) -> Callable[[np.ndarray], np.ndarray]:
    return _float(lambda x: np.vectorize(function, otypes=[np.float64])(x))


def _sigmoid(x: np.ndarray) -> np.ndarray:
    power = np.exp(-np.abs(x))
    return np.asarray(np.where(x >= 0, 1 / (1 + power), power / (1 + power)))


_FUNCTIONS = (
    ScalarFunction("add", 2, "same", np.add),
    ScalarFunction("sub", 2, "same", np.subtract),
    ScalarFunction("mul", 2, "same", np.multiply),
    ScalarFunction("div", 2, "same", _divide, 4),
    ScalarFunction("mod", 2, "same", _mod, 8),
    ScalarFunction("fmod", 2, "same", _fmod, 8),
    ScalarFunction("pow", 2, "same", _power, 30),
    ScalarFunction("min", 2, "same", _extreme("minimum")),
    ScalarFunction("max", 2, "same", _extreme("maximum")),
    ScalarFunction("eq", 2, "bool", _compare("equal")),
    ScalarFunction("ne", 2, "bool", _compare("not_equal")),
    ScalarFunction("lt", 2, "bool", _compare("less")),
    ScalarFunction("le", 2, "bool", _compare("less_equal")),
    ScalarFunction("gt", 2, "bool", _compare("greater")),
    ScalarFunction("ge", 2, "bool", _compare("greater_equal")),
    ScalarFunction("and", 2, "bool", np.logical_and),
    ScalarFunction("or", 2, "bool", np.logical_or),
    ScalarFunction("xor", 2, "bool", np.logical_xor),
    ScalarFunction("not", 1, "bool", np.logical_not),
    ScalarFunction("bitand", 2, "same", np.bitwise_and),
    ScalarFunction("bitor", 2, "same", np.bitwise_or),
    ScalarFunction("bitxor", 2, "same", np.bitwise_xor),
    ScalarFunction("bitnot", 1, "same", np.bitwise_not),
    ScalarFunction("shl", 2, "same", _shift("left_shift")),
    ScalarFunction("shr", 2, "same", _shift("right_shift")),
    ScalarFunction("select", 3, "second", _select),
    ScalarFunction("identity", 1, "same", lambda x: x, 0),
    ScalarFunction("neg", 1, "same", np.negative),
    ScalarFunction("abs", 1, "same", np.abs),
    ScalarFunction("sign", 1, "same", np.sign),
    ScalarFunction("floor", 1, "same", np.floor),
    ScalarFunction("ceil", 1, "same", np.ceil),
    ScalarFunction("round", 1, "same", np.rint),
    ScalarFunction("trunc", 1, "same", np.trunc),
    ScalarFunction("sqrt", 1, "same", np.sqrt, 4),
    ScalarFunction("reciprocal", 1, "same", np.reciprocal, 4),
    ScalarFunction("isnan", 1, "bool", np.isnan),
    ScalarFunction("isinf", 1, "bool", np.isinf),
    ScalarFunction("exp", 1, "same", _float(np.exp), 15),
    ScalarFunction("expm1", 1, "same", _float(np.expm1), 20),
    ScalarFunction("log", 1, "same", _float(np.log), 15),
    ScalarFunction("log1p", 1, "same", _float(np.log1p), 20),
    ScalarFunction("sin", 1, "same", _float(np.sin), 25),
    ScalarFunction("cos", 1, "same", _float(np.cos), 25),
    ScalarFunction("tan", 1, "same", _float(np.tan), 30),
    ScalarFunction("asin", 1, "same", _float(np.arcsin), 25),
    ScalarFunction("acos", 1, "same", _float(np.arccos), 25),
    ScalarFunction("atan", 1, "same", _float(np.arctan), 25),
    ScalarFunction("sinh", 1, "same", _float(np.sinh), 25),
    ScalarFunction("cosh", 1, "same", _float(np.cosh), 25),
    ScalarFunction("tanh", 1, "same", _float(np.tanh), 20),
    ScalarFunction("asinh", 1, "same", _float(np.arcsinh), 25),
    ScalarFunction("acosh", 1, "same", _float(np.arccosh), 25),
    ScalarFunction("atanh", 1, "same", _float(np.arctanh), 25),
    ScalarFunction("erf", 1, "same", _elementwise(math.erf), 20),
    ScalarFunction("sigmoid", 1, "same", _float(_sigmoid), 18),
    ScalarFunction("softplus", 1, "same", _float(lambda x: np.logaddexp(0, x)), 30),
)

SCALAR_FUNCTIONS = {function.name: function for function in _FUNCTIONS}
