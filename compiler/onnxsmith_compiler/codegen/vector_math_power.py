"""Powers x^y of floats, with no branches: LLVM vectorises them. Errors are stated as in vector_math_f32."""

from __future__ import annotations

from typing import Any

from numpy import float32, float64, int32, int64

from onnxsmith_compiler.codegen.kernel_function import helper
from onnxsmith_compiler.codegen.scalar import (
    absolute,
    bits_to_float,
    float_to_bits,
    fma,
    isinf,
    ldexp,
    muladd,
    polynomial,
    rint,
    select,
    shift_left,
    shift_right,
    signbit,
)
from onnxsmith_compiler.codegen.vector_math_f64 import (
    LN2_HIGH,
    LN2_LOW,
    LOG2_E,
    ROUNDER,
    ROUNDER_BITS,
    SQRT_HALF_BITS,
    exp_polynomial_f64,
    log_fraction_f64,
    log_power_f64,
)

Float = Any

INF = float("inf")
NAN = float("nan")
TWO_THIRDS = 0.6666666666666666
TWO_THIRDS_LOW = 3.700743415417188e-17


@helper("float32", "float32", "float32")
def pow_f32(x: Float, y: Float) -> Float:
    """x^y, within 1 ulp, with IEEE 754's special cases (x^0 and 1^y are 1, also of NaN)."""
    magnitude = absolute(x)
    wide = float64(magnitude)
    bits = float_to_bits(wide)
    exponent = shift_right(int64(bits - int64(SQRT_HALF_BITS)), int64(52))
    f = bits_to_float(int64(bits - shift_left(exponent, int64(52)))) - float64(1.0)
    p = polynomial(
        f,
        1.4426950409408472,
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
    rounded = power + float64(ROUNDER)
    p = polynomial(
        power - (rounded - float64(ROUNDER)),
        1.0000000005546625,
        0.6931472057356661,
        0.24022646886942114,
        0.055503287795314625,
        0.009618489719686655,
        0.001339992981129882,
        0.00015345525157471068,
    )
    scale = bits_to_float(shift_left(int64(float_to_bits(rounded) + int64(1023)), int64(52)))
    return pow_specials_f32(x, y, float32(p * scale))


@helper("float32", "float32", "float32", "float32")
def pow_specials_f32(x: Float, y: Float, result: Float) -> Float:
    """x^y where `result` is |x|^y."""
    half = y * float32(0.5)
    is_integer = rint(y) == y
    is_odd = is_integer & (rint(half) != half)
    result = select(is_odd & signbit(x), -result, result)
    has_no_root = (x < float32(0.0)) & (x > float32(-INF)) & (rint(y) != y)
    result = select(has_no_root, float32(NAN), result)
    is_one = (x == float32(1.0)) | (y == float32(0.0)) | ((absolute(x) == float32(1.0)) & isinf(y))
    return select(is_one, float32(1.0), result)


@helper("float64", "float64")
def log_factor_f64(f: Float) -> Float:
    """s = f / (2 + f), by which log(1 + f) = 2 s + 2/3 s^3 + ..."""
    return f * (float64(1.0) / (float64(2.0) + f))


@helper("float64", "float64")
def log_factor_low_f64(f: Float) -> Float:
    """f / (2 + f) less its float64."""
    divisor = float64(2.0) + f
    lost = f - (divisor - float64(2.0))
    s = log_factor_f64(f)
    remainder = muladd(-s, lost, fma(-s, divisor, f))
    return remainder * (float64(1.0) / divisor)


@helper("float64", "float64", "float64", "int64")
def log_sum_f64(f: Float, n: Float, part: Any) -> Float:
    """log((1 + f) * 2^n) to about 2^-64 of itself: part 0 is its float64, part 1 what that leaves."""
    s = log_factor_f64(f)
    s_low = log_factor_low_f64(f)
    square = s * s
    square_low = muladd(s + s, s_low, fma(s, s, -square))
    rest = square * polynomial(
        square,
        0.40000000000002267,
        0.2857142857009549,
        0.2222222252050587,
        0.18181784325339256,
        0.1538675893570042,
        0.13256786175142748,
        0.1319657904129538,
    )
    # 2 s + s^3 (2/3 + rest), in products and sums with their errors
    slope = float64(TWO_THIRDS) + rest
    slope_low = ((float64(TWO_THIRDS) - slope) + rest) + float64(TWO_THIRDS_LOW)
    cubic = square * slope
    cubic_low = muladd(square, slope_low, muladd(square_low, slope, fma(square, slope, -cubic)))
    bend = s * cubic
    bend_low = muladd(s, cubic_low, muladd(s_low, cubic, fma(s, cubic, -bend)))
    whole = n * float64(LN2_HIGH)
    double = s + s
    first = whole + double
    first_low = double - (first - whole)
    second = first + bend
    second_low = bend - (second - first)
    low = (first_low + second_low) + muladd(n, float64(LN2_LOW), muladd(s_low, float64(2.0), bend_low))
    result = second + low
    return select(part == int64(0), result, low - (result - second))


@helper("float64", "float64", "float64")
def exp_sum_f64(high: Float, low: Float) -> Float:
    """e^(high + low) for a small low."""
    high = select(high > float64(711.0), float64(711.0), high)
    high = select(high < float64(-746.0), float64(-746.0), high)
    rounded = muladd(high, float64(LOG2_E), float64(ROUNDER))
    n = rounded - float64(ROUNDER)
    r = muladd(n, float64(-LN2_HIGH), high) + muladd(n, float64(-LN2_LOW), low)
    return ldexp(exp_polynomial_f64(r), int32(int64(float_to_bits(rounded) - int64(ROUNDER_BITS))))


@helper("float64", "float64", "float64")
def pow_f64(x: Float, y: Float) -> Float:
    """x^y, within 2 ulp, with IEEE 754's special cases (x^0 and 1^y are 1, also of NaN)."""
    magnitude = absolute(x)
    f = log_fraction_f64(magnitude)
    n = log_power_f64(magnitude)
    logarithm = log_sum_f64(f, n, int64(0))
    logarithm = select(magnitude < float64(INF), logarithm, magnitude)
    logarithm = select(magnitude == float64(0.0), float64(-INF), logarithm)
    high = y * logarithm
    low = muladd(y, log_sum_f64(f, n, int64(1)), fma(y, logarithm, -high))
    low = select(absolute(high) < float64(800.0), low, float64(0.0))
    return pow_specials_f64(x, y, exp_sum_f64(high, low))


@helper("float64", "float64", "float64", "float64")
def pow_specials_f64(x: Float, y: Float, result: Float) -> Float:
    """x^y where `result` is |x|^y."""
    half = y * float64(0.5)
    is_integer = rint(y) == y
    is_odd = is_integer & (rint(half) != half)
    result = select(is_odd & signbit(x), -result, result)
    has_no_root = (x < float64(0.0)) & (x > float64(-INF)) & (rint(y) != y)
    result = select(has_no_root, float64(NAN), result)
    is_one = (x == float64(1.0)) | (y == float64(0.0)) | ((absolute(x) == float64(1.0)) & isinf(y))
    return select(is_one, float64(1.0), result)
