"""Elementary functions of float64 that LLVM vectorises: no branches, no tables, no library calls.

Errors are stated as in vector_math_f32. The polynomials come from tools/fit_polynomials.py; tanh's quotient
is that of Cephes (S. Moshier), the logarithm's evaluation that of fdlibm (Sun Microsystems).
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
    ldexp,
    maximum,
    muladd,
    polynomial,
    reciprocal,
    select,
    shift_left,
    shift_right,
    sqrt,
)

Float = Any  # a float64 (of the functions named _f32, a float32); numpy arrays also pass uncompiled

INF = float("inf")
NAN = float("nan")
LOG2_E = 1.4426950408889634
LOG10_E = 0.4342944819032518
LN2 = 0.6931471805599453
# Constants in two parts: the first has few enough bits that its multiples by exponents are exact.
LN2_HIGH = 0.6931471805598903
LN2_LOW = 5.497923018708371e-14
LOG10_2_HIGH = 0.30102999566395283
LOG10_2_LOW = 2.8363394551044964e-14
HALF_PI = 1.5707963267948966
HALF_PI_LOW = 6.123233995736766e-17
# 1.5 * 2^52: adding it to a small float rounds that to an integer, which the low bits of the sum then hold.
ROUNDER = 6755399441055744.0
ROUNDER_BITS = 0x4338000000000000
SQRT_HALF_BITS = 0x3FE6A09E667F3BCD
SMALLEST_NORMAL = 2.2250738585072014e-308


@helper("float64", "float64")
def exp_polynomial_f64(r: Float) -> Float:
    """e^r, |r| at most ln(2) / 2."""
    return polynomial(
        r,
        1.0,
        1.0,
        0.5000000000000011,
        0.16666666666666438,
        0.04166666666652662,
        0.00833333333347958,
        0.0013888888944504532,
        0.00019841269536957274,
        2.48014922223444e-05,
        2.755756016947555e-06,
        2.763055592384337e-07,
        2.5008200483479983e-08,
    )


@helper("float64", "float64", "int32")
def exp_scaled_f64(x: Float, exponent: Any) -> Float:
    """e^x * 2^exponent for an exponent of 0 or -1: no overflow before the result's own."""
    x = select(x > float64(711.0), float64(711.0), x)
    x = select(x < float64(-746.0), float64(-746.0), x)
    rounded = muladd(x, float64(LOG2_E), float64(ROUNDER))
    n = rounded - float64(ROUNDER)
    r = muladd(n, float64(-LN2_HIGH), x)
    r = muladd(n, float64(-LN2_LOW), r)
    power = int32(int64(float_to_bits(rounded) - int64(ROUNDER_BITS)))
    return ldexp(exp_polynomial_f64(r), int32(power + exponent))


@helper("float64", "float64")
def exp_f64(x: Float) -> Float:
    """e^x, within 1.2 ulp."""
    return exp_scaled_f64(x, int32(0))


@helper("float64", "float64")
def exp2_f64(x: Float) -> Float:
    """2^x, within 2 ulp."""
    x = select(x > float64(1025.0), float64(1025.0), x)
    x = select(x < float64(-1080.0), float64(-1080.0), x)
    rounded = x + float64(ROUNDER)
    r = (x - (rounded - float64(ROUNDER))) * float64(LN2)
    return ldexp(exp_polynomial_f64(r), int32(int64(float_to_bits(rounded) - int64(ROUNDER_BITS))))


@helper("float64", "float64")
def expm1_f64(x: Float) -> Float:
    """e^x - 1, within 3 ulp."""
    a = select(x > float64(710.0), float64(710.0), x)
    a = select(a < float64(-38.0), float64(-38.0), a)
    rounded = muladd(a, float64(LOG2_E), float64(ROUNDER))
    n = rounded - float64(ROUNDER)
    r = muladd(n, float64(-LN2_HIGH), a)
    r = muladd(n, float64(-LN2_LOW), r)
    p = polynomial(
        r,
        0.5000000000000006,
        0.16666666666666605,
        0.04166666666657355,
        0.008333333333379845,
        0.0013888888932434454,
        0.000198412697400129,
        2.480150434187864e-05,
        2.755738864199632e-06,
        2.76263813966126e-07,
        2.50598308961651e-08,
    )
    p = muladd(r * r, p, r)
    # 2^n p + 2^n - 1 from half of 2^n, which is finite where e^x - 1 is.
    half = bits_to_float(shift_left(int64(float_to_bits(rounded) + int64(1022)), int64(52)))
    return copysign(float64(2.0) * muladd(half, p, half - float64(0.5)), x)


@helper("float64", "float64", "float64")
def log_reduced_f64(f: Float, n: Float) -> Float:
    """log((1 + f) * 2^n) for 1 + f between sqrt(1/2) and sqrt(2)."""
    s = f / (f + float64(2.0))
    z = s * s
    p = polynomial(
        z,
        -1.1358211714298138e-18,
        0.33333333333333826,
        0.19999999999649698,
        0.14285714380620693,
        0.11111098499283689,
        0.0909181728907756,
        0.07656228221062783,
        0.07405204214953341,
    )
    # log(1 + f) = 2 s + 2 s p = f - (f^2 / 2 - s (f^2 / 2 + 2 p)), which keeps f exact.
    half_square = float64(0.5) * f * f
    below = muladd(-s, muladd(float64(2.0), p, half_square), half_square)
    return muladd(n, float64(LN2_HIGH), f - muladd(n, float64(-LN2_LOW), below))


@helper("float64", "float64", "float64")
def log_specials_f64(x: Float, result: Float) -> Float:
    """The result, or what a logarithm gives for x of 0, below 0, infinite or NaN."""
    result = select(x < float64(INF), result, x)
    return select(x > float64(0.0), result, select(x == float64(0.0), float64(-INF), float64(NAN)))


@helper("int64", "int64")
def exponent_f64(bits: Any) -> Any:
    """n such that the positive normal float of these bits is m * 2^n, m between sqrt(1/2) and sqrt(2)."""
    return shift_right(int64(bits - int64(SQRT_HALF_BITS)), int64(52))


@helper("float64", "float64")
def log_fraction_f64(x: Float) -> Float:
    """f such that x = (1 + f) * 2^n, 1 + f between sqrt(1/2) and sqrt(2)."""
    bits = float_to_bits(select(x < float64(SMALLEST_NORMAL), x * float64(2.0**52), x))
    return bits_to_float(int64(bits - shift_left(exponent_f64(bits), int64(52)))) - float64(1.0)


@helper("float64", "float64")
def log_power_f64(x: Float) -> Float:
    """The n that belongs to log_fraction_f64."""
    is_tiny = x < float64(SMALLEST_NORMAL)
    n = exponent_f64(float_to_bits(select(is_tiny, x * float64(2.0**52), x)))
    return float64(n) - select(is_tiny, float64(52.0), float64(0.0))


@helper("float64", "float64")
def log_f64(x: Float) -> Float:
    """The natural logarithm, within 1 ulp."""
    return log_specials_f64(x, log_reduced_f64(log_fraction_f64(x), log_power_f64(x)))


@helper("float64", "float64")
def log1p_f64(x: Float) -> Float:
    """log(1 + x), within 2 ulp."""
    u = x + float64(1.0)
    lost = select(x < float64(1.0), x - (u - float64(1.0)), float64(1.0) - (u - x))
    bits = float_to_bits(u)
    exponent = exponent_f64(bits)
    step = shift_left(exponent, int64(52))
    f = bits_to_float(int64(bits - step)) - float64(1.0)
    # 2^-exponent, or 0 for the exponent 1024
    scale = bits_to_float(maximum(int64(int64(0x3FF0000000000000) - step), int64(0)))
    result = log_reduced_f64(muladd(lost, scale, f), float64(exponent))
    return copysign(log_specials_f64(u, result), x)


@helper("float64", "float64")
def log2_f64(x: Float) -> Float:
    """The logarithm to base 2, within 2 ulp."""
    logarithm = log_reduced_f64(log_fraction_f64(x), float64(0.0))
    return log_specials_f64(x, muladd(logarithm, float64(LOG2_E), log_power_f64(x)))


@helper("float64", "float64")
def log10_f64(x: Float) -> Float:
    """The logarithm to base 10, within 2 ulp."""
    n = log_power_f64(x)
    logarithm = log_reduced_f64(log_fraction_f64(x), float64(0.0))
    tail = muladd(logarithm, float64(LOG10_E), n * float64(LOG10_2_LOW))
    return log_specials_f64(x, muladd(n, float64(LOG10_2_HIGH), tail))


@helper("float64", "float64")
def sigmoid_f64(x: Float) -> Float:
    """1 / (1 + e^-x), within 2 ulp."""
    e = exp_f64(-absolute(x))
    q = e / (e + float64(1.0))
    # e / (1 + e) = e - e q, where the error of q counts less.
    return select(x < float64(0.0), muladd(-e, q, e), float64(1.0) - q)


@helper("float64", "float64")
def softplus_f64(x: Float) -> Float:
    """log(1 + e^x), within 2 ulp."""
    return select(x > float64(0.0), x, float64(0.0)) + log1p_f64(exp_f64(-absolute(x)))


@helper("float64", "float64")
def tanh_f64(x: Float) -> Float:
    """The hyperbolic tangent, within 2 ulp."""
    a = absolute(x)
    z = x * x
    numerator = polynomial(z, -1.61468768441708447952e3, -9.92877231001918586564e1, -9.64399179425052238628e-1)
    denominator = polynomial(z, 4.84406305325125486048e3, 2.23548839060100448583e3, 1.12811678491632931402e2, 1.0)
    e = exp_f64(a * float64(-2.0))
    # One division serves both ranges: a + a z P / Q, and (1 - e) / (1 + e).
    is_small = a < float64(0.625)
    quotient = select(is_small, numerator, float64(1.0) - e) / select(is_small, denominator, float64(1.0) + e)
    return copysign(select(is_small, muladd(a * z, quotient, a), quotient), x)


@helper("float64", "float64")
def sinh_f64(x: Float) -> Float:
    """The hyperbolic sine, within 2 ulp."""
    a = absolute(x)
    z = x * x
    p = polynomial(
        z,
        0.16666666666666669,
        0.008333333333332919,
        0.00019841269841584544,
        2.7557319110461455e-06,
        2.5052130307241892e-08,
        1.605671881492305e-10,
        7.774662753739658e-13,
    )
    small = muladd(a * z, p, a)
    half = exp_scaled_f64(a, int32(-1))
    large = half - float64(0.25) / half
    return copysign(select(a < float64(1.0), small, large), x)


@helper("float64", "float64")
def cosh_f64(x: Float) -> Float:
    """The hyperbolic cosine, within 2 ulp."""
    half = exp_scaled_f64(absolute(x), int32(-1))
    return half + float64(0.25) / half


@helper("float64", "float64")
def asinh_f64(x: Float) -> Float:
    """The inverse hyperbolic sine, within 3 ulp."""
    a = absolute(x)
    is_huge = a > float64(2.0**60)
    square = a * a
    rest = a + square / (float64(1.0) + sqrt(square + float64(1.0)))
    result = log1p_f64(select(is_huge, a, rest)) + select(is_huge, float64(LN2), float64(0.0))
    return copysign(result, x)


@helper("float64", "float64")
def acosh_f64(x: Float) -> Float:
    """The inverse hyperbolic cosine, within 3 ulp; NaN below 1."""
    is_huge = x > float64(2.0**60)
    excess = x - float64(1.0)
    rest = excess + sqrt(excess * (excess + float64(2.0)))
    result = log1p_f64(select(is_huge, x, rest)) + select(is_huge, float64(LN2), float64(0.0))
    return select(x >= float64(1.0), result, float64(NAN))


@helper("float64", "float64")
def atanh_f64(x: Float) -> Float:
    """The inverse hyperbolic tangent, within 3 ulp; NaN beyond 1."""
    a = absolute(x)
    return copysign(float64(0.5) * log1p_f64(float64(2.0) * a / (float64(1.0) - a)), x)


@helper("float32", "float32")
def asinh_f32(x: Float) -> Float:
    """The inverse hyperbolic sine, within 1 ulp."""
    return float32(asinh_f64(float64(x)))


@helper("float32", "float32")
def acosh_f32(x: Float) -> Float:
    """The inverse hyperbolic cosine, within 1 ulp; NaN below 1."""
    return float32(acosh_f64(float64(x)))


@helper("float32", "float32")
def atanh_f32(x: Float) -> Float:
    """The inverse hyperbolic tangent, within 1 ulp; NaN beyond 1."""
    return float32(atanh_f64(float64(x)))


@helper("float64", "float64")
def erf_f64(x: Float) -> Float:
    """The error function, within 2 ulp."""
    a = absolute(x)
    p = polynomial(
        x * x,
        0.1283791670955126,
        -0.3761263890318414,
        0.11283791670975768,
        -0.02686617064949929,
        0.005223977673850474,
        -0.0008548330231699429,
        0.00012055469916574505,
        -1.492957618049183e-05,
        1.6539287090132787e-06,
        -1.740872794504341e-07,
        2.433131576175152e-08,
        -6.844001266167373e-09,
        2.0222035292143547e-09,
        -2.988280620481594e-10,
    )
    small = muladd(a, p, a)
    # erf(a) = 1 - exp(-a - a g(a)); it rounds to 1 from 5.93 on.
    bounded = select(a > float64(6.0), float64(6.0), a)
    g = polynomial(
        bounded,
        0.1283791179742747,
        0.6366201876503145,
        0.10277110291061088,
        -0.019125685801856234,
        -0.00021073523072367444,
        0.001690888514150048,
        -0.0005729359625756569,
        -2.3115561535419377e-06,
        9.629967896418794e-05,
        -5.642849412135836e-05,
        2.049880479592996e-05,
        -5.428938163564079e-06,
        1.0881531607417173e-06,
        -1.6476707043991034e-07,
        1.8352580752851702e-08,
        -1.4218939834188862e-09,
        6.850024255222713e-11,
        -1.5452416342463658e-12,
    )
    large = float64(1.0) - exp_f64(-muladd(bounded, g, bounded))
    return copysign(select(a < float64(1.0), small, large), x)


@helper("float64", "float64", "float64")
def asin_polynomial_f64(s: Float, z: Float) -> Float:
    """asin(s), |s| <= 1/2, z = s^2."""
    p = polynomial(
        z,
        0.1666666666666676,
        0.07499999999970824,
        0.04464285717462698,
        0.03038194270574501,
        0.02237221507375572,
        0.01735161004466055,
        0.013980848465209434,
        0.011398652848230603,
        0.010781862021047296,
        0.0036997955819965426,
        0.021724737434074524,
        -0.02102511363953544,
        0.03264584575650312,
    )
    return muladd(s * z, p, s)


@helper("float64", "float64")
def asin_f64(x: Float) -> Float:
    """The arc sine, within 3 ulp; NaN beyond 1."""
    a = absolute(x)
    is_small = a < float64(0.5)
    z = select(is_small, a * a, muladd(a, float64(-0.5), float64(0.5)))
    p = asin_polynomial_f64(select(is_small, a, sqrt(z)), z)
    # asin(a) = pi/2 - 2 asin(sqrt((1 - a) / 2))
    large = muladd(p, float64(-2.0), float64(HALF_PI_LOW)) + float64(HALF_PI)
    return copysign(select(is_small, p, large), x)


@helper("float64", "float64")
def acos_f64(x: Float) -> Float:
    """The arc cosine, within 2 ulp; NaN beyond 1."""
    a = absolute(x)
    is_small = a < float64(0.5)
    z = select(is_small, a * a, muladd(a, float64(-0.5), float64(0.5)))
    p = asin_polynomial_f64(select(is_small, x, sqrt(z)), z)
    small = (float64(HALF_PI_LOW) - p) + float64(HALF_PI)
    obtuse = muladd(p, float64(-2.0), float64(2.0 * HALF_PI_LOW)) + float64(2.0 * HALF_PI)
    large = select(x < float64(0.0), obtuse, float64(2.0) * p)
    return select(is_small, small, large)


@helper("float64", "float64")
def atan_f64(x: Float) -> Float:
    """The arc tangent, within 2 ulp."""
    a = absolute(x)
    is_large = a > float64(2.414213562373095)
    is_middle = (a > float64(0.4142135623730951)) & (a <= float64(2.414213562373095))
    # tan(b - pi/2) = -1 / tan(b), tan(b - pi/4) = (tan(b) - 1) / (tan(b) + 1)
    numerator = select(is_large, float64(-1.0), select(is_middle, a - float64(1.0), a))
    denominator = select(is_large, a, select(is_middle, a + float64(1.0), float64(1.0)))
    turn = select(is_large, float64(HALF_PI), select(is_middle, float64(0.5 * HALF_PI), float64(0.0)))
    turn_low = select(is_large, float64(HALF_PI_LOW), select(is_middle, float64(0.5 * HALF_PI_LOW), float64(0.0)))
    t = numerator / denominator
    z = t * t
    p = polynomial(
        z,
        -0.3333333333333319,
        0.1999999999995235,
        -0.14285714280083933,
        0.11111110778280779,
        -0.09090897618976951,
        0.07692057894154389,
        -0.06663079069541197,
        0.05847716243611798,
        -0.05038559002784225,
        0.03804638069235165,
        -0.017888051871385757,
    )
    return copysign(turn + (muladd(t * z, p, turn_low) + t), x)


@helper("float64", "float64")
def rsqrt_f64(x: Float) -> Float:
    """1 / sqrt(x), within 2 ulp."""
    return reciprocal(sqrt(x))
