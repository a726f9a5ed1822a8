"""Plain Python bodies of the scalar intrinsics: what each one computes, bit for bit.

They take numpy scalars or numpy arrays of one dtype (element by element) and return the same kind.
`scalar.py` holds the compiled form of each. Results that overflow or are NaN are meant: run them under
`numpy.errstate(all="ignore")` where numpy's warnings are unwanted.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

Scalar = Any  # a numpy scalar or array: numpy's own types do not follow dtypes through arithmetic


def _dtype(x: Scalar) -> np.dtype[Any]:
    return np.asarray(x).dtype


def _convert(x: Scalar, dtype: Any) -> Scalar:
    return np.asarray(x).astype(dtype)[()]


def _bits(x: Scalar) -> Scalar:
    """The bits of floats as signed integers."""
    return np.asarray(x).view(np.dtype(f"i{_dtype(x).itemsize}"))[()]


def _two_sum(a: Scalar, b: Scalar) -> tuple[Scalar, Scalar]:
    """The rounded sum and its exact error (Knuth)."""
    s = a + b
    bb = s - a
    return s, (a - (s - bb)) + (b - bb)


def _two_product(a: Scalar, b: Scalar) -> tuple[Scalar, Scalar]:
    """The rounded float64 product and its exact error, short of overflow and underflow (Dekker, Veltkamp)."""
    splitter = np.float64(134217729.0)
    ah = splitter * a - (splitter * a - a)
    bh = splitter * b - (splitter * b - b)
    al, bl = a - ah, b - bh
    p = a * b
    return p, al * bl - (((p - ah * bh) - al * bh) - ah * bl)


def _sum_to_odd(a: Scalar, b: Scalar) -> Scalar:
    """a + b in float64, where it is inexact rounded to the neighbour whose last bit is set."""
    s, error = _two_sum(a, b)
    bits = np.asarray(s).view(np.int64)
    away = np.where((error > 0) == (s > 0), 1, -1)
    odd = np.where((error != 0) & np.isfinite(error) & (bits & 1 == 0), bits + away, bits)
    return odd.view(np.float64)[()]


def fma(a: Scalar, b: Scalar, c: Scalar) -> Scalar:
    """a * b + c rounded once; of float64s only where no partial product under- or overflows."""
    with np.errstate(all="ignore"):
        if _dtype(a) == np.float32:
            return _convert(_sum_to_odd(np.float64(a) * np.float64(b), np.float64(c)), np.float32)
        uh, ul = _two_product(a, b)
        th, tl = _two_sum(c, ul)
        vh, vl = _two_sum(uh, th)
        fused = vh + _sum_to_odd(tl, vl)
        plain = a * b + c
        return np.where(np.isfinite(fused), fused, plain)[()]


def muladd(a: Scalar, b: Scalar, c: Scalar) -> Scalar:
    """a * b + c: rounded once where the target has the instruction (and here), else twice."""
    return fma(a, b, c)


def polynomial(x: Scalar, *coefficients: float) -> Scalar:
    """Horner's rule in muladds, constant coefficient first, in the type of x."""
    result = _convert(coefficients[-1], _dtype(x))
    for coefficient in reversed(coefficients[:-1]):
        result = fma(result, x, _convert(coefficient, _dtype(x)))
    return result


def maximum(a: Scalar, b: Scalar) -> Scalar:
    """The larger; NaN if either is NaN. Of 0 and -0 it may be either."""
    return np.maximum(a, b)


def minimum(a: Scalar, b: Scalar) -> Scalar:
    """The smaller; NaN if either is NaN. Of 0 and -0 it may be either."""
    return np.minimum(a, b)


def select(condition: Scalar, a: Scalar, b: Scalar) -> Scalar:
    """a where the condition holds, else b. Both are computed."""
    chosen: Scalar = np.where(condition, a, b)
    return chosen[()]


def sum_step(accumulator: Scalar, x: Scalar) -> Scalar:
    """accumulator + x, which the compiler may reassociate with the other steps of its loop."""
    return _convert(accumulator + x, _dtype(accumulator))


def prod_step(accumulator: Scalar, x: Scalar) -> Scalar:
    """accumulator * x, which the compiler may reassociate with the other steps of its loop."""
    return _convert(accumulator * x, _dtype(accumulator))


def _float_to_signed(x: Scalar, dtype: np.dtype[Any]) -> Scalar:
    """Truncation; the least integer for NaN and what is out of range, as x86 does."""
    limit = np.ldexp(_dtype(x).type(1), 8 * dtype.itemsize - 1)
    fits = (x >= -limit) & (x < limit)
    return _convert(np.where(fits, np.where(fits, x, 0).astype(dtype), np.iinfo(dtype).min), dtype)


def _float_to_integer(x: Scalar, dtype: np.dtype[Any]) -> Scalar:
    if dtype.itemsize < 4:
        return _convert(_float_to_signed(x, np.dtype(np.int32)), dtype)
    signed = np.dtype(f"i{dtype.itemsize}")
    if dtype.kind == "i":
        return _float_to_signed(x, signed)
    half = np.ldexp(_dtype(x).type(1), 8 * dtype.itemsize - 1)
    upper = _float_to_signed(x - half, signed) ^ np.iinfo(signed).min
    return _convert(np.where(x >= half, upper, _float_to_signed(x, signed)), dtype)


def _conversion(name: str) -> Callable[[Scalar], Scalar]:
    dtype = np.dtype(name)

    def convert(x: Scalar) -> Scalar:
        return _float_to_integer(x, dtype) if _dtype(x).kind == "f" else _convert(x, dtype)

    convert.__name__ = convert.__qualname__ = f"trunc_to_{name}"
    convert.__doc__ = (
        f"x as {name}: floats are truncated, integers wrap. NaN and floats out of range give what "
        "onnxruntime's Cast gives on x86: the least integer for int32 and int64."
    )
    return convert


trunc_to_int8 = _conversion("int8")
trunc_to_int16 = _conversion("int16")
trunc_to_int32 = _conversion("int32")
trunc_to_int64 = _conversion("int64")
trunc_to_uint8 = _conversion("uint8")
trunc_to_uint16 = _conversion("uint16")
trunc_to_uint32 = _conversion("uint32")
trunc_to_uint64 = _conversion("uint64")


def boolean(x: Scalar) -> Scalar:
    """x != 0: also of NaN."""
    return np.not_equal(x, 0)


def _divisor(a: Scalar, b: Scalar) -> Scalar:
    """b, or 1 where a / b has no quotient of its type."""
    wraps = (b == -1) & (a == np.iinfo(_dtype(a)).min) if _dtype(a).kind == "i" else False
    return np.where((b == 0) | wraps, 1, b).astype(_dtype(a))


def int_floordiv(a: Scalar, b: Scalar) -> Scalar:
    """a // b rounded down; 0 where b is 0; the least integer over -1 wraps to itself."""
    return _convert(np.where(b == 0, 0, a // _divisor(a, b)), _dtype(a))


def int_div(a: Scalar, b: Scalar) -> Scalar:
    """a / b rounded towards 0, as C does; 0 where b is 0; the least integer over -1 wraps to itself."""
    quotient = a // _divisor(a, b)
    rest = a - quotient * _divisor(a, b)
    return _convert(np.where(b == 0, 0, quotient + ((rest != 0) & ((a < 0) != (b < 0)))), _dtype(a))


def int_mod(a: Scalar, b: Scalar) -> Scalar:
    """The remainder with the sign of b, as Python does; 0 where b is 0."""
    return _convert(np.where(b == 0, 0, a % _divisor(a, b)), _dtype(a))


def int_rem(a: Scalar, b: Scalar) -> Scalar:
    """The remainder with the sign of a, as C does; 0 where b is 0."""
    return _convert(np.where(b == 0, 0, np.fmod(a, _divisor(a, b))), _dtype(a))


def ipow(base: Scalar, exponent: Scalar) -> Scalar:
    """base to the exponent modulo 2^bits; exponents below 0 truncate: 0, but for the bases 1 and -1."""
    dtype = _dtype(base)
    rest = np.asarray(exponent).astype(np.dtype(f"u{dtype.itemsize}"))
    power, square = np.ones_like(base), np.asarray(base)
    with np.errstate(over="ignore"):
        for _ in range(8 * dtype.itemsize):
            power = np.where(rest & 1, power * square, power)
            square = square * square
            rest = rest >> 1
    has_inverse = (base == 1) | ((base == -1) if dtype.kind == "i" else False)
    return _convert(np.where((exponent < 0) & ~has_inverse, 0, power), dtype)


def bit_and(a: Scalar, b: Scalar) -> Scalar:
    """a & b of integers or booleans."""
    return a & b


def bit_or(a: Scalar, b: Scalar) -> Scalar:
    """a | b of integers or booleans."""
    return a | b


def bit_xor(a: Scalar, b: Scalar) -> Scalar:
    """a ^ b of integers or booleans."""
    return a ^ b


def bit_not(a: Scalar) -> Scalar:
    """~a of integers, not a of booleans."""
    return np.invert(a)


def _shift_count(a: Scalar, count: Scalar) -> tuple[Scalar, Scalar]:
    """Whether the count is below the width, and the count or 0."""
    inside = (count >= 0) & (count < 8 * _dtype(a).itemsize)
    return inside, np.where(inside, count, 0).astype(_dtype(a))


def shift_left(a: Scalar, count: Scalar) -> Scalar:
    """a << count; 0 where the count is negative or not below the width."""
    inside, safe = _shift_count(a, count)
    return _convert(np.where(inside, np.left_shift(a, safe), 0), _dtype(a))


def shift_right(a: Scalar, count: Scalar) -> Scalar:
    """a >> count, of signed types with the sign; its limit where the count is negative or not below the width."""
    inside, safe = _shift_count(a, count)
    limit = np.where(np.less(a, 0), -1, 0).astype(_dtype(a))
    return _convert(np.where(inside, np.right_shift(a, safe), limit), _dtype(a))


def popcount(a: Scalar) -> Scalar:
    """How many bits of an integer are set, in its own type."""
    unsigned = np.asarray(a).view(np.dtype(f"u{_dtype(a).itemsize}"))
    return _convert(np.bitwise_count(unsigned), _dtype(a))


def floor(x: Scalar) -> Scalar:
    """The float rounded down."""
    return np.floor(x)


def ceil(x: Scalar) -> Scalar:
    """The float rounded up."""
    return np.ceil(x)


def rint(x: Scalar) -> Scalar:
    """The float rounded to the nearest integer, halves to even."""
    return np.rint(x)


def trunc(x: Scalar) -> Scalar:
    """The float rounded towards 0."""
    return np.trunc(x)


def sqrt(x: Scalar) -> Scalar:
    """The correctly rounded square root; NaN below 0."""
    return np.sqrt(x)


def reciprocal(x: Scalar) -> Scalar:
    """1 / x of a float, correctly rounded."""
    return _dtype(x).type(1) / x


def abs(x: Scalar) -> Scalar:
    """|x| of a float or an integer; the least integer wraps to itself."""
    return np.absolute(x)


def copysign(x: Scalar, y: Scalar) -> Scalar:
    """|x| with the sign of y, of floats."""
    return np.copysign(x, y)


def isnan(x: Scalar) -> Scalar:
    """Whether the float is NaN."""
    return np.isnan(x)


def isinf(x: Scalar) -> Scalar:
    """Whether the float is an infinity."""
    return np.isinf(x)


def signbit(x: Scalar) -> Scalar:
    """Whether the float's sign bit is set (also of -0 and NaN)."""
    return np.signbit(x)


def sign(x: Scalar) -> Scalar:
    """-1, 0 or 1 in the type of x; NaN for NaN."""
    return np.sign(x)


def ldexp(x: Scalar, exponent: Scalar) -> Scalar:
    """x * 2^exponent, rounded once. The int32 exponent is within 250 of 0 for float32, 2000 for float64."""
    return np.ldexp(x, exponent)


def float_to_bits(x: Scalar) -> Scalar:
    """The bits of a float32 as int32, of a float64 as int64."""
    return _bits(x)


def bits_to_float(x: Scalar) -> Scalar:
    """The float32 whose bits are an int32 or uint32, the float64 of an int64 or uint64."""
    return np.asarray(x).view(np.dtype(f"f{_dtype(x).itemsize}"))[()]
