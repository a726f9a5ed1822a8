"""Sine, cosine and tangent of all float32 and float64 arguments, with no branches: LLVM vectorises them.

Arguments are reduced by multiplying them with 2/pi modulo 4 (M. Payne, R. Hanek, "Radian reduction for
trigonometric functions", 1983): x = m * 2^k with an integer m, and (2/pi * 2^k) mod 4 is known to more bits
than the product can cancel. The polynomials come from tools/fit_polynomials.py; errors are stated as in
vector_math_f32.
"""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import numpy as np
from llvmlite import ir
from numba.core import types
from numpy import float32, float64, int32, int64

from onnxsmith_compiler.codegen.kernel_function import Intrinsic, helper
from onnxsmith_compiler.codegen.scalar import (
    absolute,
    bit_and,
    bit_xor,
    bits_to_float,
    float_to_bits,
    fma,
    muladd,
    polynomial,
    rint,
    select,
    shift_left,
    shift_right,
)

Float = Any

ROUNDER_F64 = 6755399441055744.0  # 1.5 * 2^52: the low bits of its sum with a small float hold that rounded
HALF_PI = 1.5707963267948966
HALF_PI_LOW = 6.123233995736766e-17

_TWO_OVER_PI_BITS = 1280
_TWO_OVER_PI = int(
    "a2f9836e4e441529fc2757d1f534ddc0db6295993c439041fe5163abdebbc561b7246e3a424dd2e0"
    "06492eea09d1921cfe1deb1cb129a73ee88235f52ebb4484e99c7026b45f7e413991d639835339f4"
    "9c845f8bbdf9283b1ff897ffde05980fef2f118b5a0a6d1f6d367ecf27cb09b74f463f669e5fea2d"
    "7527bac7ebe5f17b3d0739f78a5292ea6bfb5fb11f8d5d0856033046fc7b6babf0cfbc209af4361d",
    16,
)


def turn_part(shift: int, part: int) -> float:
    """Part 0, 1, 2 or 3 of (2/pi * 2^shift) mod 4: float64s, each what the ones before it leave."""
    scale = 1 << (_TWO_OVER_PI_BITS - shift)
    rest = Fraction(_TWO_OVER_PI % (4 * scale), scale)
    for _ in range(part):
        rest -= Fraction(float(rest))
    return float(rest)


# float32 arguments by size: 2/pi for small ones; else 2/pi modulo 2^26, 2^50, 2^74 or 2^98, in each case a
# multiple of 4 times what the arguments are multiples of.
TURN_0 = turn_part(0, 0)
TURN_0_LOW = turn_part(0, 1)
TURN_24 = turn_part(24, 0) * 2.0**-24
TURN_24_LOW = turn_part(24, 1) * 2.0**-24
TURN_48 = turn_part(48, 0) * 2.0**-48
TURN_48_LOW = turn_part(48, 1) * 2.0**-48
TURN_72 = turn_part(72, 0) * 2.0**-72
TURN_72_LOW = turn_part(72, 1) * 2.0**-72
TURN_96 = turn_part(96, 0) * 2.0**-96
TURN_96_LOW = turn_part(96, 1) * 2.0**-96

# float64 arguments: bucket b holds (2/pi * 2^(16 b)) mod 4.
_BUCKETS = 61
_TURN_TABLE = tuple(turn_part(16 * bucket, part) for part in range(4) for bucket in range(_BUCKETS))
_TURN_SYMBOL = "onnxsmith.two_over_pi"


def _look_turn_part_up(part: Any, bucket: Any) -> Any:
    return np.asarray(_TURN_TABLE)[part * _BUCKETS + bucket]


def _define_turn_lookup(_context: Any, part: Any, bucket: Any) -> Any:
    def codegen(_context: Any, builder: ir.IRBuilder, _signature: Any, values: list[ir.Value]) -> ir.Value:
        table = builder.module.globals.get(_TURN_SYMBOL) or _add_turn_table(builder.module)
        index = builder.add(builder.mul(values[0], ir.Constant(values[0].type, _BUCKETS)), values[1])
        return builder.load(builder.gep(table, [ir.Constant(index.type, 0), index], inbounds=True))

    return types.float64(types.int64, types.int64), codegen


def _add_turn_table(module: ir.Module) -> ir.GlobalVariable:
    kind = ir.ArrayType(ir.DoubleType(), len(_TURN_TABLE))
    table = ir.GlobalVariable(module, kind, _TURN_SYMBOL)
    table.initializer = ir.Constant(kind, _TURN_TABLE)
    table.global_constant = True
    table.linkage = "internal"
    table.unnamed_addr = True
    return table


# look_turn_up(part, bucket), 0 <= part < 4, 0 <= bucket < 61
look_turn_up = Intrinsic("look_turn_up", _define_turn_lookup, _look_turn_part_up)


@helper("float64", "float64")
def turn_f32(a: Float) -> Float:
    """What to multiply a, a float32 as float64, with to get its quarter turns modulo 4."""
    turn = select(a < float64(2.0**119), float64(TURN_72), float64(TURN_96))
    turn = select(a < float64(2.0**95), float64(TURN_48), turn)
    turn = select(a < float64(2.0**71), float64(TURN_24), turn)
    return select(a < float64(2.0**47), float64(TURN_0), turn)


@helper("float64", "float64")
def turn_low_f32(a: Float) -> Float:
    """The part of the exact factor that turn_f32 leaves."""
    turn = select(a < float64(2.0**119), float64(TURN_72_LOW), float64(TURN_96_LOW))
    turn = select(a < float64(2.0**95), float64(TURN_48_LOW), turn)
    turn = select(a < float64(2.0**71), float64(TURN_24_LOW), turn)
    return select(a < float64(2.0**47), float64(TURN_0_LOW), turn)


@helper("float64", "float64")
def quadrant_sum_f32(a: Float) -> Float:
    """ROUNDER_F64 + the quarter turns in a, modulo 4, rounded to an integer."""
    turns = a * turn_f32(a)
    return turns + float64(ROUNDER_F64)


@helper("float64", "float64")
def quadrant_angle_f32(a: Float) -> Float:
    """The angle from the nearest quarter turn to a, between -pi/4 and pi/4."""
    turn = turn_f32(a)
    high = a * turn
    low = muladd(a, turn_low_f32(a), fma(a, turn, -high))
    whole = quadrant_sum_f32(a) - float64(ROUNDER_F64)
    return ((high - whole) + low) * float64(HALF_PI)


@helper("float32", "float32")
def sin_reduced_f32(r: Float) -> Float:
    z = r * r
    p = polynomial(
        z,
        -0.1666664183139801,
        0.008331441320478916,
        -0.0001942779344972223,
    )
    return muladd(r * z, p, r)


@helper("float32", "float32")
def cos_reduced_f32(r: Float) -> Float:
    z = r * r
    p = polynomial(
        z,
        0.04166662320494652,
        -0.0013886339729651809,
        2.433313784422353e-05,
    )
    return muladd(z * z, p, muladd(z, float32(-0.5), float32(1.0)))


@helper("float32", "float32", "int32")
def sin_of_quadrant_f32(r: Float, quadrant: Any) -> Float:
    """The sine of `quadrant` quarter turns and the angle r."""
    is_even = bit_and(quadrant, int32(1)) == int32(0)
    value = select(is_even, sin_reduced_f32(r), cos_reduced_f32(r))
    sign = shift_left(bit_and(quadrant, int32(2)), int32(30))
    return bits_to_float(bit_xor(float_to_bits(value), sign))


@helper("float32", "float32", "float32")
def odd_f32(x: Float, result: Float) -> Float:
    """f(x) from `result` = f(|x|), for odd functions with f(x) = x + O(x^3)."""
    sign = bit_xor(float_to_bits(x), float_to_bits(absolute(x)))
    signed = bits_to_float(bit_xor(float_to_bits(result), sign))
    return select(absolute(x) < float32(2.0**-12), x, signed)


@helper("float32", "float32")
def sin_f32(x: Float) -> Float:
    """The sine of radians, within 2 ulp; NaN of infinities."""
    a = float64(absolute(x))
    quadrant = int32(float_to_bits(quadrant_sum_f32(a)))
    return odd_f32(x, sin_of_quadrant_f32(float32(quadrant_angle_f32(a)), quadrant))


@helper("float32", "float32")
def cos_f32(x: Float) -> Float:
    """The cosine of radians, within 2 ulp; NaN of infinities."""
    a = float64(absolute(x))
    quadrant = int32(float_to_bits(quadrant_sum_f32(a)))
    return sin_of_quadrant_f32(float32(quadrant_angle_f32(a)), int32(quadrant + int32(1)))


@helper("float32", "float32")
def tan_f32(x: Float) -> Float:
    """The tangent of radians, within 2 ulp; NaN of infinities."""
    a = float64(absolute(x))
    r = quadrant_angle_f32(a)
    z = r * r
    p = polynomial(
        z,
        0.33333318839433956,
        0.13333925665464258,
        0.05388618426497559,
        0.02241344412005283,
        0.006900536529281288,
        0.0076101098926185775,
        -0.003073524138786077,
        0.0029905763904166066,
    )
    tangent = float32(muladd(r * z, p, r))
    quadrant = int32(float_to_bits(quadrant_sum_f32(a)))
    is_even = bit_and(quadrant, int32(1)) == int32(0)
    return odd_f32(x, select(is_even, tangent, float32(-1.0) / tangent))


@helper("int64", "float64")
def bucket_f64(a: Float) -> Any:
    """b such that a is a multiple of 2^(16 b) and below 2^(16 b + 68); 0 for small a."""
    bucket = shift_right(int64(shift_right(float_to_bits(a), int64(52)) - int64(1023 + 52)), int64(4))
    return select(bucket > int64(0), bucket, int64(0))


@helper("float64", "float64")
def scaled_f64(a: Float) -> Float:
    """The integer below 2^68 that a is times 2^(16 bucket); a itself where it is small."""
    exponent = int64(int64(1023) - shift_left(bucket_f64(a), int64(4)))
    return a * bits_to_float(shift_left(exponent, int64(52)))


@helper("float64", "float64")
def modulo_4(x: Float) -> Float:
    """x less the nearest multiple of 4, which is exact."""
    return muladd(rint(x * float64(0.25)), float64(-4.0), x)


@helper("float64", "float64", "float64")
def sum_error(a: Float, b: Float) -> Float:
    """a + b less its rounded value (Knuth)."""
    total = a + b
    of_b = total - a
    return (a - (total - of_b)) + (b - of_b)


@helper("float64", "float64", "int64")
def product_f64(a: Float, part: Any) -> Float:
    """The product of the argument and one part of 2/pi."""
    return scaled_f64(a) * look_turn_up(part, bucket_f64(a))


@helper("float64", "float64", "int64")
def product_error_f64(a: Float, part: Any) -> Float:
    return fma(scaled_f64(a), look_turn_up(part, bucket_f64(a)), -product_f64(a, part))


@helper("float64", "float64")
def quarter_turns_f64(a: Float) -> Float:
    """The quarter turns in a, modulo 4, to about 2^-36."""
    return (
        modulo_4(product_f64(a, int64(0)))
        + modulo_4(product_error_f64(a, int64(0)))
        + modulo_4(product_f64(a, int64(1)))
    )


@helper("float64", "float64", "int64")
def quadrant_angle_f64(a: Float, part: Any) -> Float:
    """The angle from the nearest quarter turn to a: part 0 is its float64, part 1 what that leaves."""
    first = modulo_4(product_f64(a, int64(0)))
    second = modulo_4(product_error_f64(a, int64(0)))
    third = modulo_4(product_f64(a, int64(1)))
    rounding = sum_error(first, second)
    rounding_2 = sum_error(first + second, third)
    fraction = quarter_turns_f64(a) - rint(quarter_turns_f64(a))
    # What remains to be added, from large to small: each sum is kept with its error.
    fourth = product_error_f64(a, int64(1))
    fifth = product_f64(a, int64(2))
    middle = fourth + fifth
    small = rounding + rounding_2
    high = fraction + middle
    total = high + small
    tail = sum_error(fourth, fifth) + sum_error(rounding, rounding_2)
    tail = tail + (product_error_f64(a, int64(2)) + product_f64(a, int64(3)))
    tail = tail + (sum_error(fraction, middle) + sum_error(high, small))
    turns = total + tail
    turns_low = tail - (turns - total)
    angle = turns * float64(HALF_PI)
    angle_low = muladd(turns_low, float64(HALF_PI), turns * float64(HALF_PI_LOW))
    angle_low = fma(turns, float64(HALF_PI), -angle) + angle_low
    return select(part == int64(0), angle, angle_low)


@helper("int64", "float64")
def quadrant_f64(a: Float) -> Any:
    """The quarter turns in a, rounded: right in its last two bits."""
    return float_to_bits(rint(quarter_turns_f64(a)) + float64(ROUNDER_F64))


@helper("float64", "float64", "float64")
def sin_reduced_f64(r: Float, low: Float) -> Float:
    z = r * r
    p = polynomial(
        z,
        -0.16666666666666666,
        0.008333333333333042,
        -0.00019841269840962345,
        2.755731907380638e-06,
        -2.5052070840725868e-08,
        1.6054296029151615e-10,
        -7.388431319915756e-13,
    )
    return r + muladd(r * z, p, muladd(z * float64(-0.5), low, low))


@helper("float64", "float64", "float64")
def cos_reduced_f64(r: Float, low: Float) -> Float:
    z = r * r
    p = polynomial(
        z,
        0.041666666666666595,
        -0.0013888888888873346,
        2.480158728900548e-05,
        -2.7557314217987024e-07,
        2.0875705506588872e-09,
        -1.1358753714894647e-11,
    )
    half = float64(0.5) * z
    whole = float64(1.0) - half
    return whole + muladd(z * z, p, muladd(-r, low, (float64(1.0) - whole) - half))


@helper("float64", "float64", "float64", "int64")
def sin_of_quadrant_f64(r: Float, low: Float, quadrant: Any) -> Float:
    """The sine of `quadrant` quarter turns and the angle r + low."""
    is_even = bit_and(quadrant, int64(1)) == int64(0)
    value = select(is_even, sin_reduced_f64(r, low), cos_reduced_f64(r, low))
    sign = shift_left(bit_and(quadrant, int64(2)), int64(62))
    return bits_to_float(bit_xor(float_to_bits(value), sign))


@helper("float64", "float64", "float64")
def odd_f64(x: Float, result: Float) -> Float:
    """f(x) from `result` = f(|x|), for odd functions with f(x) = x + O(x^3)."""
    sign = bit_xor(float_to_bits(x), float_to_bits(absolute(x)))
    signed = bits_to_float(bit_xor(float_to_bits(result), sign))
    return select(absolute(x) < float64(2.0**-27), x, signed)


@helper("float64", "float64")
def sin_f64(x: Float) -> Float:
    """The sine of radians, within 1 ulp; NaN of infinities."""
    a = absolute(x)
    quadrant = quadrant_f64(a)
    return odd_f64(x, sin_of_quadrant_f64(quadrant_angle_f64(a, int64(0)), quadrant_angle_f64(a, int64(1)), quadrant))


@helper("float64", "float64")
def cos_f64(x: Float) -> Float:
    """The cosine of radians, within 1 ulp; NaN of infinities."""
    a = absolute(x)
    quadrant = int64(quadrant_f64(a) + int64(1))
    return sin_of_quadrant_f64(quadrant_angle_f64(a, int64(0)), quadrant_angle_f64(a, int64(1)), quadrant)


@helper("float64", "float64")
def tan_f64(x: Float) -> Float:
    """The tangent of radians, within 3 ulp; NaN of infinities."""
    a = absolute(x)
    r = quadrant_angle_f64(a, int64(0))
    low = quadrant_angle_f64(a, int64(1))
    sine = sin_reduced_f64(r, low)
    cosine = cos_reduced_f64(r, low)
    is_even = bit_and(quadrant_f64(a), int64(1)) == int64(0)
    return odd_f64(x, select(is_even, sine, -cosine) / select(is_even, cosine, sine))
