"""Remainders of floats, exact: long division of the significands, as no instruction does it."""

from __future__ import annotations

from typing import Any

from numpy import float32, float64, int32, int64

from onnxsmith_compiler.codegen.kernel_function import helper
from onnxsmith_compiler.codegen.scalar import (
    absolute,
    bit_and,
    bit_or,
    copysign,
    float_to_bits,
    int_rem,
    ldexp,
    maximum,
    minimum,
    select,
    shift_left,
    shift_right,
)

Float = Any

NAN = float("nan")
INF_BITS = 0x7FF0000000000000
FRACTION = 0x000FFFFFFFFFFFFF
IMPLICIT = 0x0010000000000000
STEP = 10  # bits of quotient a round: the remainder's 53 and these fit an int64


@helper("int64", "int64")
def significand(bits: Any) -> Any:
    """The significand as an integer, from the bits of a float64 that is not negative."""
    fraction = bit_and(bits, int64(FRACTION))
    return select(bits > int64(FRACTION), bit_or(fraction, int64(IMPLICIT)), fraction)


@helper("int64", "int64")
def exponent(bits: Any) -> Any:
    """The biased exponent of that significand: 1 of subnormal numbers."""
    return maximum(shift_right(bits, int64(52)), int64(1))


@helper("float64", "float64", "float64")
def fmod_f64(x: Float, y: Float) -> Float:
    """x - n y, n = x / y truncated: exact, with the sign of x, as in C; NaN for infinite x, for y = 0."""
    dividend = float_to_bits(absolute(x))
    divisor = float_to_bits(absolute(y))
    if dividend >= int64(INF_BITS) or divisor > int64(INF_BITS) or divisor == int64(0):
        return float64(NAN)
    if dividend < divisor:
        return x
    divisor_significand = significand(divisor)
    rest = int_rem(significand(dividend), divisor_significand)
    count = int64(exponent(dividend) - exponent(divisor))
    while count > int64(0) and rest != int64(0):
        step = minimum(count, int64(STEP))
        rest = int_rem(shift_left(rest, step), divisor_significand)
        count = int64(count - step)
    return copysign(ldexp(float64(rest), int32(exponent(divisor) - int64(1075))), x)


@helper("float64", "float64", "float64")
def float_mod_f64(x: Float, y: Float) -> Float:
    """x - n y, n = x / y rounded down: with the sign of y, as Python's %."""
    rest = fmod_f64(x, y)
    if rest == float64(0.0):
        return copysign(rest, y)
    return rest + y if (rest < float64(0.0)) != (y < float64(0.0)) else rest


@helper("float32", "float32", "float32")
def fmod_f32(x: Float, y: Float) -> Float:
    """x - n y, n = x / y truncated: exact, with the sign of x, as in C; NaN for infinite x, for y = 0."""
    return float32(fmod_f64(float64(x), float64(y)))


@helper("float32", "float32", "float32")
def float_mod_f32(x: Float, y: Float) -> Float:
    """x - n y, n = x / y rounded down: with the sign of y, as Python's %."""
    rest = fmod_f32(x, y)
    if rest == float32(0.0):
        return copysign(rest, y)
    return rest + y if (rest < float32(0.0)) != (y < float32(0.0)) else rest
