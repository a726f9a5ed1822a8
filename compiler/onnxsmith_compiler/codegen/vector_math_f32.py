"""Elementary functions of float32 that LLVM vectorises: no branches, no tables, no library calls.

Each docstring states the largest error in units in the last place of the correctly rounded result ("ulp"), over
all float32 arguments, subnormal ones and results included; infinities, NaN and signed zeros give what C's
functions give. The polynomials come from tools/fit_polynomials.py. Sums are never reassociated, and every
product that a sum takes up is written as a `muladd`, so that no compiler flag changes a result.
"""

from __future__ import annotations

from typing import Any

from numpy import float32, float64, int32, int64

from onnxsmith_compiler.codegen.kernel_function import helper
from onnxsmith_compiler.codegen.scalar import (
    absolute,
    bits_to_float,
    copysign,
    float_to_bits,
    isinf,
    muladd,
    polynomial,
    rint,
    select,
    shift_left,
    shift_right,
    signbit,
)

Float = Any  # float32 scalar; numpy arrays also pass through the uncompiled functions

INF = float("inf")
NAN = float("nan")
LOG2_E = 1.4426950408889634
# ln 2 in two parts: the first has few enough bits that multiples of it by exponents are exact.
LN2_HIGH = 0.693145751953125
LN2_LOW = 1.428606820309417e-06
# 1.5 * 2^24 + 254: adding it rounds to an even integer 2 m and leaves m + 127 in the low bits.
EVEN_ROUNDER = 25166078.0
# The bits of sqrt(1/2): subtracting them puts the exponent's step where the significand is sqrt(2).
SQRT_HALF_BITS = 0x3F3504F3


@helper("float32", "float32")
def exp_f32(x: Float) -> Float:
    """e to the x, within 1.1 ulp."""
    x = select(x > float32(89.0), float32(89.0), x)
    x = select(x < float32(-104.0), float32(-104.0), x)
    rounded = muladd(x, float32(LOG2_E), float32(EVEN_ROUNDER))
    n = rounded - float32(EVEN_ROUNDER)
    r = muladd(n, float32(-LN2_HIGH), x)
    r = muladd(n, float32(-LN2_LOW), r)
    p = polynomial(
        r,
        0.5000003576278687,
        0.1666661649942398,
        0.04166119918227196,
        0.00833597220480442,
        0.0014105448499321938,
        0.00019628973677754402,
    )
    p = muladd(r * r, p, r) + float32(1.0)
    root_scale = bits_to_float(shift_left(float_to_bits(rounded), int32(23)))
    return p * root_scale * root_scale


@helper("float32", "float32")
def log_f32(x: Float) -> Float:
    """The natural logarithm, within 1 ulp; -inf of 0, NaN below."""
    is_tiny = x < float32(1.1754943508222875e-38)
    bits = float_to_bits(select(is_tiny, x * float32(8388608.0), x))
    exponent = shift_right(int32(bits - int32(SQRT_HALF_BITS)), int32(23))
    f = bits_to_float(int32(bits - shift_left(exponent, int32(23)))) - float32(1.0)
    n = float32(exponent) - select(is_tiny, float32(23.0), float32(0.0))
    p = polynomial(
        f,
        0.3333331346511841,
        -0.25000011920928955,
        0.20002076029777527,
        -0.1666785180568695,
        0.14220139384269714,
        -0.12408215552568436,
        0.11887063831090927,
        -0.11660938709974289,
        0.06731273233890533,
    )
    tail = muladd(f * f, muladd(f, p, float32(-0.5)), n * float32(LN2_LOW))
    result = muladd(n, float32(LN2_HIGH), tail + f)
    result = select(x < float32(INF), result, x)
    return select(x > float32(0.0), result, select(x == float32(0.0), float32(-INF), float32(NAN)))


@helper("float32", "float32")
def sigmoid_f32(x: Float) -> Float:
    """1 / (1 + exp(-x)), within 2 ulp."""
    e = exp_f32(-absolute(x))
    return select(x < float32(0.0), e, float32(1.0)) / (e + float32(1.0))


@helper("float32", "float32")
def tanh_f32(x: Float) -> Float:
    """The hyperbolic tangent, within 2 ulp."""
    a = absolute(x)
    z = x * x
    p = polynomial(
        z,
        -0.33333277702331543,
        0.13331323862075806,
        -0.05372953042387962,
        0.020604867488145828,
        -0.005665704142302275,
    )
    small = muladd(a * z, p, a)
    e = exp_f32(a * float32(-2.0))
    large = (float32(1.0) - e) / (float32(1.0) + e)
    return copysign(select(a < float32(0.625), small, large), x)


@helper("float32", "float32")
def erf_f32(x: Float) -> Float:
    """The error function, within 2 ulp."""
    a = absolute(x)
    small = polynomial(
        x * x,
        0.12837916612625122,
        -0.3761262595653534,
        0.11283580958843231,
        -0.026853546500205994,
        0.005187740549445152,
        -0.0008004633127711713,
        7.834699499653652e-05,
    )
    small = muladd(x, small, x)
    # erf(a) = 1 - exp(-a - a g(a)); it rounds to 1 from 3.92 on.
    a = select(a > float32(4.0), float32(4.0), a)
    g = polynomial(
        a,
        0.128648579120636,
        0.6351509094238281,
        0.10623763501644135,
        -0.023762794211506844,
        0.0036428445018827915,
        -0.00032290874514728785,
        1.1242796063015703e-05,
    )
    large = float32(1.0) - exp_f32(-muladd(a, g, a))
    return select(absolute(x) < float32(0.9375), small, copysign(large, x))


@helper("float32", "float32", "float32")
def pow_f32(x: Float, y: Float) -> Float:
    """x to the y, within 1 ulp, with IEEE 754's special cases (pow(x, 0) and pow(1, y) are 1, also of NaN)."""
    magnitude = absolute(x)
    wide = float64(magnitude)
    bits = float_to_bits(wide)
    exponent = shift_right(bits - int64(0x3FE6A09E667F3BCD), int64(52))
    f = bits_to_float(bits - shift_left(exponent, int64(52))) - float64(1.0)
    p = polynomial(
        f,
        1.4426950408409472,
        -0.7213475252131406,
        0.4808983199939865,
        -0.36067279988266976,
        0.2885406970451624,
        -0.24050424383293317,
        0.20609490037351122,
        -0.1790447836029461,
        0.1590153818360076,
        -0.15700766938506128,
        0.15480897843615005,
        -0.08624896354064505,
    )
    logarithm = muladd(f, p, float64(exponent))
    logarithm = select(magnitude < float32(INF), logarithm, wide)
    logarithm = select(magnitude == float32(0.0), float64(-INF), logarithm)
    power = float64(y) * logarithm
    power = select(power > float64(200.0), float64(200.0), power)
    power = select(power < float64(-200.0), float64(-200.0), power)
    n = rint(power)
    p = polynomial(
        power - n,
        1.0000000005546625,
        0.6931472057356661,
        0.24022646886942114,
        0.055503287795314625,
        0.009618489719686655,
        0.001339992981129882,
        0.00015345525157471068,
    )
    scale = bits_to_float(shift_left(int64(select(n == n, n, float64(0.0))) + int64(1023), int64(52)))
    result = float32(p * scale)

    half = y * float32(0.5)
    is_integer = rint(y) == y
    is_odd = is_integer & (rint(half) != half)
    result = select(is_odd & signbit(x), -result, result)
    result = select((x < float32(0.0)) & (x > float32(-INF)) & ~is_integer, float32(NAN), result)
    is_one = (x == float32(1.0)) | (y == float32(0.0)) | ((magnitude == float32(1.0)) & isinf(y))
    return select(is_one, float32(1.0), result)
