"""Conversions between float32 and the narrower floats, as LLVM integer instructions that vectorise.

Rounding is to nearest, ties to even. What overflows becomes infinity, NaN where the format has no
infinity, or the largest value where it has neither (float4e2m1), as in ml_dtypes.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass

from llvmlite import ir

I8 = ir.IntType(8)
I16 = ir.IntType(16)
I32 = ir.IntType(32)
F32 = ir.FloatType()

_F32_MANTISSA = 23
_F32_BIAS = 127
_F32_INF = 0x7F800000
_F32_NAN = 0x7FC00000
_F32_MAGNITUDE = 0x7FFFFFFF


@dataclass(frozen=True)
class NarrowFormat:
    """A float format with a sign bit, `exponent` exponent bits and `mantissa` mantissa bits.

    `inf` and `nan` are the magnitude bits of infinity and of the NaN that is written; None where the format
    lacks it. `unsigned_zero` marks the FNUZ formats, whose only NaN is the pattern of minus zero (`nan` is
    None).
    """

    bits: int
    exponent: int
    mantissa: int
    bias: int
    inf: int | None = None
    nan: int | None = None
    unsigned_zero: bool = False

    @property
    def storage(self) -> ir.IntType:
        return I16 if self.bits == 16 else I8

    @property
    def sign_bit(self) -> int:
        return 1 << (self.exponent + self.mantissa)

    @property
    def magnitude(self) -> int:
        return self.sign_bit - 1

    @property
    def largest(self) -> int:
        """Magnitude bits of the largest finite value."""
        if self.inf is not None:
            return self.inf - 1
        return self.magnitude if self.nan is None else self.nan - 1


FORMATS = {
    "float16": NarrowFormat(16, 5, 10, 15, inf=0x7C00, nan=0x7E00),
    "float8e4m3fn": NarrowFormat(8, 4, 3, 7, nan=0x7F),
    "float8e4m3fnuz": NarrowFormat(8, 4, 3, 8, unsigned_zero=True),
    "float8e5m2": NarrowFormat(8, 5, 2, 15, inf=0x7C, nan=0x7E),
    "float8e5m2fnuz": NarrowFormat(8, 5, 2, 16, unsigned_zero=True),
    "float4e2m1": NarrowFormat(4, 2, 1, 1),
}
STORAGE = {name: fmt.storage for name, fmt in FORMATS.items()} | {"bfloat16": I16, "float8e8m0": I8}


def largest(name: str) -> float:
    """The largest finite value of the DType `name`, one of FORMATS or bfloat16."""
    if name == "bfloat16":
        return (2.0 - 2.0**-7) * 2.0**_F32_BIAS
    fmt = FORMATS[name]
    exponent, mantissa = divmod(fmt.largest, 1 << fmt.mantissa)
    return float((1 + mantissa / (1 << fmt.mantissa)) * 2.0 ** (exponent - fmt.bias))


def widen(builder: ir.IRBuilder, name: str, stored: ir.Value, *, native_half: bool) -> ir.Value:
    """The float32 value of `stored`, an integer that holds an element of the DType `name`; exact. Or so for vectors."""
    if name == "float16" and native_half:
        half = builder.bitcast(stored, _as_many(stored, ir.HalfType()))
        return builder.fpext(half, _as_many(stored, F32))
    bits = builder.zext(stored, _as_many(stored, I32))
    if name == "bfloat16":
        return _float_of(builder, builder.shl(bits, _word(bits, 16)))
    if name == "float8e8m0":
        return _widen_e8m0(builder, bits)
    return _widen_format(builder, FORMATS[name], bits)


def _as_many(value: ir.Value, element: ir.Type) -> ir.Type:
    """`element`, or the vector of as many of them as the vector `value` has elements."""
    return ir.VectorType(element, value.type.count) if isinstance(value.type, ir.VectorType) else element


def _word(bits: ir.Value, number: int) -> ir.Constant:
    """`number` as a value of the type of `bits`, 32-bit integers."""
    count = bits.type.count if isinstance(bits.type, ir.VectorType) else 0
    return ir.Constant(bits.type, [number] * count) if count else ir.Constant(bits.type, number)


def _float_of(builder: ir.IRBuilder, bits: ir.Value) -> ir.Value:
    return builder.bitcast(bits, _as_many(bits, F32))


def narrow(builder: ir.IRBuilder, name: str, value: ir.Value, *, native_half: bool) -> ir.Value:
    """`value`, a float32, rounded to the DType `name`: the integer that is stored."""
    if name == "float16" and native_half:
        return builder.bitcast(builder.fptrunc(value, ir.HalfType()), I16)
    bits = builder.bitcast(value, I32)
    if name == "bfloat16":
        return builder.trunc(_narrow_bfloat16(builder, bits), I16)
    if name == "float8e8m0":
        return builder.trunc(_narrow_e8m0(builder, bits), I8)
    fmt = FORMATS[name]
    return builder.trunc(_narrow_format(builder, fmt, bits), fmt.storage)


def _widen_format(builder: ir.IRBuilder, fmt: NarrowFormat, bits: ir.Value) -> ir.Value:
    word = functools.partial(_word, bits)
    magnitude = builder.and_(bits, word(fmt.magnitude))
    shifted = builder.shl(magnitude, word(_F32_MANTISSA - fmt.mantissa))
    rebias = (_F32_BIAS - fmt.bias) << _F32_MANTISSA
    normal = builder.add(shifted, word(rebias))
    # A subnormal is m * 2**(1 - bias - mantissa): put m below an implicit one, then take that one away.
    one = word(rebias + (1 << _F32_MANTISSA))
    subnormal = builder.fsub(_float_of(builder, builder.add(shifted, one)), _float_of(builder, one))
    is_subnormal = builder.icmp_unsigned("<", magnitude, word(1 << fmt.mantissa))
    result = builder.select(is_subnormal, builder.bitcast(subnormal, bits.type), normal)
    if fmt.inf is not None:
        special = builder.icmp_unsigned(">=", magnitude, word(fmt.inf))
        is_inf = builder.icmp_unsigned("==", magnitude, word(fmt.inf))
        result = builder.select(special, builder.select(is_inf, word(_F32_INF), word(_F32_NAN)), result)
    elif fmt.nan is not None:
        is_nan = builder.icmp_unsigned("==", magnitude, word(fmt.nan))
        result = builder.select(is_nan, word(_F32_NAN), result)
    sign = builder.shl(builder.and_(bits, word(fmt.sign_bit)), word(31 - fmt.exponent - fmt.mantissa))
    result = builder.or_(result, sign)
    if fmt.unsigned_zero:
        is_nan = builder.icmp_unsigned("==", bits, word(fmt.sign_bit))
        result = builder.select(is_nan, word(_F32_NAN), result)
    return _float_of(builder, result)


def _narrow_format(builder: ir.IRBuilder, fmt: NarrowFormat, bits: ir.Value) -> ir.Value:
    magnitude = builder.and_(bits, I32(_F32_MAGNITUDE))
    drop = _F32_MANTISSA - fmt.mantissa
    odd = builder.and_(builder.lshr(magnitude, I32(drop)), I32(1))
    rounded = builder.add(builder.add(magnitude, I32((1 << (drop - 1)) - 1)), odd)
    normal = builder.sub(builder.lshr(rounded, I32(drop)), I32((_F32_BIAS - fmt.bias) << fmt.mantissa))
    # Adding the float whose last place is the smallest subnormal rounds to a multiple of it.
    place = I32((_F32_BIAS - fmt.bias + 1 + drop) << _F32_MANTISSA)
    aligned = builder.fadd(builder.bitcast(magnitude, F32), builder.bitcast(place, F32))
    subnormal = builder.sub(builder.bitcast(aligned, I32), place)
    smallest_normal = (_F32_BIAS - fmt.bias + 1) << _F32_MANTISSA
    is_subnormal = builder.icmp_unsigned("<", magnitude, I32(smallest_normal))
    result = builder.select(is_subnormal, subnormal, normal)
    # Compared as float32 bits: `normal` wraps for magnitudes far out of range.
    overflow = builder.icmp_unsigned(">", rounded, I32(_last_rounded(fmt, drop)))
    is_nan = builder.icmp_unsigned(">", magnitude, I32(_F32_INF))
    sign = builder.lshr(builder.and_(bits, I32(0x80000000)), I32(31 - fmt.exponent - fmt.mantissa))
    if fmt.unsigned_zero:
        is_zero = builder.icmp_unsigned("==", result, I32(0))
        result = builder.select(is_zero, result, builder.or_(result, sign))
        return builder.select(overflow, I32(fmt.sign_bit), result)
    if fmt.nan is None:
        result = builder.select(overflow, I32(fmt.largest), result)
        result = builder.or_(result, sign)
        return builder.select(is_nan, builder.xor(sign, I32(fmt.sign_bit)), result)
    result = builder.select(overflow, I32(fmt.nan if fmt.inf is None else fmt.inf), result)
    result = builder.select(is_nan, I32(fmt.nan), result)
    return builder.or_(result, sign)


def _last_rounded(fmt: NarrowFormat, drop: int) -> int:
    """The largest float32 magnitude, after the rounding addition, that still is `fmt.largest`."""
    return ((fmt.largest + ((_F32_BIAS - fmt.bias) << fmt.mantissa) + 1) << drop) - 1


def _narrow_bfloat16(builder: ir.IRBuilder, bits: ir.Value) -> ir.Value:
    odd = builder.and_(builder.lshr(bits, I32(16)), I32(1))
    rounded = builder.lshr(builder.add(builder.add(bits, I32(0x7FFF)), odd), I32(16))
    is_nan = builder.icmp_unsigned(">", builder.and_(bits, I32(_F32_MAGNITUDE)), I32(_F32_INF))
    quiet = builder.or_(builder.lshr(builder.and_(bits, I32(0x80000000)), I32(16)), I32(0x7FC0))
    return builder.select(is_nan, quiet, rounded)


def _widen_e8m0(builder: ir.IRBuilder, bits: ir.Value) -> ir.Value:
    word = functools.partial(_word, bits)
    power = builder.shl(bits, word(_F32_MANTISSA))
    is_smallest = builder.icmp_unsigned("==", bits, word(0))
    power = builder.select(is_smallest, word(1 << (_F32_MANTISSA - 1)), power)
    is_nan = builder.icmp_unsigned("==", bits, word(0xFF))
    return _float_of(builder, builder.select(is_nan, word(_F32_NAN), power))


def _narrow_e8m0(builder: ir.IRBuilder, bits: ir.Value) -> ir.Value:
    # The nearest power of two, halves upward, as ml_dtypes and ONNX find it: from the mantissa alone, even
    # below the smallest normal number, where it stands for another value. Only 2**-127, which has a code,
    # is kept. Zero, negative numbers and NaN have no code but NaN.
    half = 1 << (_F32_MANTISSA - 1)
    nearest = builder.lshr(builder.add(bits, I32(half)), I32(_F32_MANTISSA))
    is_smallest = builder.icmp_unsigned("==", bits, I32(half))
    result = builder.select(is_smallest, I32(0), nearest)
    invalid = builder.icmp_unsigned(">=", builder.sub(bits, I32(1)), I32(_F32_INF - 1))
    return builder.select(invalid, I32(0xFF), result)
