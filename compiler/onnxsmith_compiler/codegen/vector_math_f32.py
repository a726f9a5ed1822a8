"""Elementary functions of float32 that LLVM vectorises: no branches, no tables, no library calls.

Each docstring states the largest error in units in the last place of the correctly rounded result ("ulp"),
over all float32 arguments, subnormal ones and results included; infinities, NaN and signed zeros give what
C's functions give. The polynomials come from tools/fit_polynomials.py. Sums are never reassociated, and every
product that a sum takes up is written as a `muladd`, so that no compiler flag changes a result.
"""

from __future__ import annotations

from typing import Any

from numpy import float32, int32

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

Float = Any  # a float32; numpy arrays of them also pass through the uncompiled functions

INF = float("inf")
NAN = float("nan")
LOG2_E = 1.4426950408889634
LN2 = 0.6931471805599453
# ln 2 in two parts: the first has few enough bits that its multiples by exponents are exact.
LN2_HIGH = 0.693145751953125
LN2_LOW = 1.428606820309417e-06
# 1.5 * 2^23: adding it to a small float rounds that to an integer, which the low bits of the sum then hold.
ROUNDER = 12582912.0
ROUNDER_BITS = 0x4B400000
BIASED_ROUNDER = 12583039.0  # the same with the bias of exponents: what the low bits hold is 2^n's exponent
LOG10_2_HIGH = 0.301025390625
LOG10_2_LOW = 4.605038981195214e-06
HALF_PI = 1.5707963705062866
HALF_PI_LOW = -4.371139000186241e-08
SQRT_HALF_BITS = 0x3F3504F3
ERF_BOUND = 3.8  # erf is 1 from here on, but for a little more than an ulp
SMALLEST_NORMAL = 1.1754943508222875e-38


@helper("float32", "float32")
def exp_reduced_f32(r: Float) -> Float:
    """e^r for r between -ln(2) / 2 and ln(2) / 2."""
    return polynomial(
        r,
        1.0,
        1.0,
        0.4999999403953552,
        0.1666651964187622,
        0.04166823625564575,
        0.008368827402591705,
        0.0013823540648445487,
    )


@helper("float32", "float32", "int32")
def exp_bounded_f32(x: Float, exponent: Any) -> Float:
    """e^x * 2^exponent for x up to 91 and an exponent of 0 or -1."""
    x = select(x < float32(-104.0), float32(-104.0), x)
    rounded = muladd(x, float32(LOG2_E), float32(ROUNDER))
    n = rounded - float32(ROUNDER)
    r = muladd(n, float32(-LN2_HIGH), x)
    r = muladd(n, float32(-LN2_LOW), r)
    return ldexp(exp_reduced_f32(r), int32(float_to_bits(rounded) - int32(ROUNDER_BITS) + exponent))


@helper("float32", "float32", "int32")
def exp_scaled_f32(x: Float, exponent: Any) -> Float:
    """e^x * 2^exponent for an exponent of 0 or -1: no overflow before the result's own."""
    return exp_bounded_f32(select(x > float32(91.0), float32(91.0), x), exponent)


@helper("float32", "float32")
def exp_rough_f32(x: Float) -> Float:
    """e^x for x between -20 and 0, to 2^-22 of itself: for results that it is a small part of."""
    rounded = muladd(x, float32(LOG2_E), float32(BIASED_ROUNDER))
    r = muladd(rounded - float32(BIASED_ROUNDER), float32(-LN2), x)
    p = polynomial(
        r,
        1.0,
        0.9999997019767761,
        0.49999141693115234,
        0.16667644679546356,
        0.04189884662628174,
        0.008290166035294533,
    )
    return p * bits_to_float(shift_left(float_to_bits(rounded), int32(23)))


@helper("float32", "float32")
def exp_negative_f32(x: Float) -> Float:
    """e^x for x up to 0, within 1.2 ulp; 0 below -87, where the result is about to be subnormal.

    Nor is anything on the way: a CPU takes a hundred times as long for a vector with a subnormal number in it.
    """
    bounded = select(x < float32(-87.0), float32(-87.0), x)
    rounded = muladd(bounded, float32(LOG2_E), float32(BIASED_ROUNDER))
    n = rounded - float32(BIASED_ROUNDER)
    p = exp_reduced_f32(muladd(n, float32(-LN2_LOW), muladd(n, float32(-LN2_HIGH), bounded)))
    scaled = p * bits_to_float(shift_left(float_to_bits(rounded), int32(23)))
    return select(x < float32(-87.0), float32(0.0), scaled)


@helper("float32", "float32")
def exp_f32(x: Float) -> Float:
    """e^x, within 1.2 ulp."""
    return exp_scaled_f32(x, int32(0))


@helper("float32", "float32")
def exp2_f32(x: Float) -> Float:
    """2^x, within 1.2 ulp."""
    x = select(x > float32(129.0), float32(129.0), x)
    x = select(x < float32(-151.0), float32(-151.0), x)
    rounded = x + float32(ROUNDER)
    p = polynomial(
        x - (rounded - float32(ROUNDER)),
        1.0,
        0.6931471824645996,
        0.24022647738456726,
        0.05550359562039375,
        0.009618500247597694,
        0.0013390970416367054,
        0.00015328906010836363,
    )
    return ldexp(p, int32(float_to_bits(rounded) - int32(ROUNDER_BITS)))


@helper("float32", "float32")
def expm1_f32(x: Float) -> Float:
    """e^x - 1, within 2 ulp."""
    a = select(x > float32(89.0), float32(89.0), x)
    a = select(a < float32(-18.0), float32(-18.0), a)
    rounded = muladd(a, float32(LOG2_E), float32(ROUNDER))
    n = rounded - float32(ROUNDER)
    r = muladd(n, float32(-LN2_HIGH), a)
    r = muladd(n, float32(-LN2_LOW), r)
    p = polynomial(
        r,
        0.4999999701976776,
        0.1666654348373413,
        0.04166754335165024,
        0.008366554975509644,
        0.001386075746268034,
    )
    p = muladd(r * r, p, r)
    # 2^n p + 2^n - 1 from half of 2^n, which is finite where e^x - 1 is.
    half = bits_to_float(shift_left(int32(float_to_bits(rounded) + int32(126)), int32(23)))
    return copysign(float32(2.0) * muladd(half, p, half - float32(0.5)), x)


@helper("float32", "float32", "float32")
def log_reduced_f32(f: Float, n: Float) -> Float:
    """log((1 + f) * 2^n) for 1 + f between sqrt(1/2) and sqrt(2)."""
    p = polynomial(
        f,
        0.3333333134651184,
        -0.250008225440979,
        0.2000124305486679,
        -0.16623307764530182,
        0.1420147716999054,
        -0.13160492479801178,
        0.1276339739561081,
        -0.0763564258813858,
    )
    tail = muladd(f * f, muladd(f, p, float32(-0.5)), n * float32(LN2_LOW))
    return muladd(n, float32(LN2_HIGH), tail + f)


@helper("float32", "float32", "float32")
def log_specials_f32(x: Float, result: Float) -> Float:
    """The result, or what a logarithm gives for x of 0, below 0, infinite or NaN."""
    result = select(x < float32(INF), result, x)
    return select(x > float32(0.0), result, select(x == float32(0.0), float32(-INF), float32(NAN)))


@helper("int32", "int32")
def exponent_f32(bits: Any) -> Any:
    """n such that the positive normal float of these bits is m * 2^n, m between sqrt(1/2) and sqrt(2)."""
    return shift_right(int32(bits - int32(SQRT_HALF_BITS)), int32(23))


@helper("float32", "float32")
def log_fraction_f32(x: Float) -> Float:
    """f such that x = (1 + f) * 2^n, 1 + f between sqrt(1/2) and sqrt(2)."""
    bits = float_to_bits(select(x < float32(SMALLEST_NORMAL), x * float32(8388608.0), x))
    return bits_to_float(int32(bits - shift_left(exponent_f32(bits), int32(23)))) - float32(1.0)


@helper("float32", "float32")
def log_power_f32(x: Float) -> Float:
    """The n that belongs to log_fraction_f32."""
    is_tiny = x < float32(SMALLEST_NORMAL)
    n = exponent_f32(float_to_bits(select(is_tiny, x * float32(8388608.0), x)))
    return float32(n) - select(is_tiny, float32(23.0), float32(0.0))


@helper("float32", "float32")
def log_f32(x: Float) -> Float:
    """The natural logarithm, within 1 ulp."""
    return log_specials_f32(x, log_reduced_f32(log_fraction_f32(x), log_power_f32(x)))


@helper("float32", "float32")
def log1p_f32(x: Float) -> Float:
    """log(1 + x), within 2 ulp."""
    u = x + float32(1.0)
    lost = select(x < float32(1.0), x - (u - float32(1.0)), float32(1.0) - (u - x))
    bits = float_to_bits(u)
    exponent = exponent_f32(bits)
    step = shift_left(exponent, int32(23))
    f = bits_to_float(int32(bits - step)) - float32(1.0)
    # 2^-exponent, or 0 for the exponent 128
    f = muladd(lost, bits_to_float(maximum(int32(int32(0x3F800000) - step), int32(0))), f)
    result = log_reduced_f32(f, float32(exponent))
    return copysign(log_specials_f32(u, result), x)


@helper("float32", "float32")
def log2_f32(x: Float) -> Float:
    """The logarithm to base 2, within 2 ulp."""
    f = log_fraction_f32(x)
    n = log_power_f32(x)
    p = polynomial(
        f,
        1.4426950216293335,
        -0.7213473916053772,
        0.480909138917923,
        -0.36069977283477783,
        0.28794652223587036,
        -0.2390349954366684,
        0.2155720591545105,
        -0.20666570961475372,
        0.12543421983718872,
    )
    return log_specials_f32(x, muladd(f, p, n))


@helper("float32", "float32")
def log10_f32(x: Float) -> Float:
    """The logarithm to base 10, within 2 ulp."""
    f = log_fraction_f32(x)
    n = log_power_f32(x)
    p = polynomial(
        f,
        0.4342944622039795,
        -0.21714720129966736,
        0.14476999640464783,
        -0.10858176648616791,
        0.08662990480661392,
        -0.07193352282047272,
        0.06530851870775223,
        -0.06246776878833771,
        0.03700760006904602,
    )
    # log10(2) in two parts, as ln 2 above.
    tail = muladd(f, p, n * float32(LOG10_2_LOW))
    return log_specials_f32(x, muladd(n, float32(LOG10_2_HIGH), tail))


@helper("float32", "float32")
def sigmoid_f32(x: Float) -> Float:
    """1 / (1 + e^-x), within 2 ulp."""
    e = exp_bounded_f32(-absolute(x), int32(0))
    q = e / (e + float32(1.0))
    # e / (1 + e) = e - e q, where the error of q counts less.
    return select(x < float32(0.0), muladd(-e, q, e), float32(1.0) - q)


@helper("float32", "float32")
def softplus_f32(x: Float) -> Float:
    """log(1 + e^x), within 2 ulp."""
    return select(x > float32(0.0), x, float32(0.0)) + log1p_f32(exp_bounded_f32(-absolute(x), int32(0)))


@helper("float32", "float32")
def tanh_f32(x: Float) -> Float:
    """The hyperbolic tangent, within 2 ulp."""
    z = x * x
    p = polynomial(
        z,
        -0.3333292007446289,
        0.13320088386535645,
        -0.05262983217835426,
        0.016355831176042557,
    )
    small = muladd(x * z, p, x)
    # (1 - e^-2a) / (1 + e^-2a); it rounds to 1 from 9.01 on.
    doubled = absolute(x) * float32(-2.0)
    e = exp_rough_f32(select(doubled < float32(-18.5), float32(-18.5), doubled))
    large = (float32(1.0) - e) / (float32(1.0) + e)
    return copysign(select(doubled > float32(-1.1), small, large), x)


@helper("float32", "float32")
def sinh_f32(x: Float) -> Float:
    """The hyperbolic sine, within 2 ulp."""
    a = absolute(x)
    z = x * x
    p = polynomial(
        z,
        0.1666666716337204,
        0.00833331048488617,
        0.0001984289410756901,
        2.782230694720056e-06,
    )
    small = muladd(a * z, p, a)
    half = exp_scaled_f32(a, int32(-1))
    large = half - float32(0.25) / half
    return copysign(select(a < float32(1.0), small, large), x)


@helper("float32", "float32")
def cosh_f32(x: Float) -> Float:
    """The hyperbolic cosine, within 2 ulp."""
    half = exp_scaled_f32(absolute(x), int32(-1))
    return half + float32(0.25) / half


@helper("float32", "float32")
def erf_f32(x: Float) -> Float:
    """The error function, within 3.6 ulp; no more than 1."""
    a = absolute(x)
    is_large = a > float32(ERF_BOUND)
    bounded = select(is_large, float32(ERF_BOUND), a)
    # erf(a) = a g(u), u running from -1 to 1 as a^2 does from 0 to the bound's.
    p = polynomial(
        muladd(bounded * bounded, float32(2.0 / (ERF_BOUND * ERF_BOUND)), float32(-1.0)),
        0.372107595205307,
        -0.18564094603061676,
        0.137741357088089,
        -0.11119601875543594,
        0.09080305695533752,
        -0.0723927691578865,
        0.05524478107690811,
        -0.03957176208496094,
        0.02611694112420082,
        -0.016670772805809975,
        0.01085667870938778,
        -0.005630360450595617,
        0.0016598365036770701,
        -0.0010382795007899404,
        0.0012382661225274205,
        -0.0004697320982813835,
    )
    return copysign(select(is_large, float32(1.0), bounded * p), x)


@helper("float32", "float32")
def asin_f32(x: Float) -> Float:
    """The arc sine, within 3 ulp; NaN beyond 1."""
    a = absolute(x)
    is_small = a < float32(0.5)
    z = select(is_small, a * a, muladd(a, float32(-0.5), float32(0.5)))
    s = select(is_small, a, sqrt(z))
    p = asin_polynomial_f32(s, z)
    # asin(a) = pi/2 - 2 asin(sqrt((1 - a) / 2))
    large = muladd(p, float32(-2.0), float32(HALF_PI_LOW)) + float32(HALF_PI)
    return copysign(select(is_small, p, large), x)


@helper("float32", "float32")
def acos_f32(x: Float) -> Float:
    """The arc cosine, within 2 ulp; NaN beyond 1."""
    a = absolute(x)
    is_small = a < float32(0.5)
    z = select(is_small, a * a, muladd(a, float32(-0.5), float32(0.5)))
    s = select(is_small, x, sqrt(z))
    p = asin_polynomial_f32(s, z)
    small = (float32(HALF_PI_LOW) - p) + float32(HALF_PI)
    obtuse = muladd(p, float32(-2.0), float32(2.0 * HALF_PI_LOW)) + float32(2.0 * HALF_PI)
    large = select(x < float32(0.0), obtuse, float32(2.0) * p)
    return select(is_small, small, large)


@helper("float32", "float32", "float32")
def asin_polynomial_f32(s: Float, z: Float) -> Float:
    """asin(s), |s| <= 1/2, z = s^2."""
    p = polynomial(
        z,
        0.16666752099990845,
        0.0749531164765358,
        0.04546878859400749,
        0.024186596274375916,
        0.04215546324849129,
    )
    return muladd(s * z, p, s)


@helper("float32", "float32")
def atan_f32(x: Float) -> Float:
    """The arc tangent, within 2 ulp."""
    a = absolute(x)
    is_large = a > float32(1.0)
    t = select(is_large, float32(-1.0) / a, a)
    z = t * t
    p = polynomial(
        z,
        -0.33333298563957214,
        0.1999853104352951,
        -0.14264056086540222,
        0.10951215773820877,
        -0.08400625735521317,
        0.05790939927101135,
        -0.03112996369600296,
        0.010888963006436825,
        -0.0017879015067592263,
    )
    p = muladd(t * z, p, t)
    return copysign(select(is_large, p + float32(HALF_PI), p), x)


@helper("float32", "float32")
def rsqrt_f32(x: Float) -> Float:
    """1 / sqrt(x), within 2 ulp."""
    return reciprocal(sqrt(x))
