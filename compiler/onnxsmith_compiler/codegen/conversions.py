"""Rounding of floats to narrower ones and of integers to 4 and 2 bits, as ONNX Cast has it.

- `round_to_float8e5m2(x)`: the nearest value of the type, as a float32. What is out of range becomes the
  largest value (float8, float4), or infinity (float16, bfloat16).
- `round_to_float8e5m2_wrap(x)`: the same without saturation. What is out of range becomes infinity, or NaN
  where the type has none.
- `round_to_float8e8m0_up(x)`, `round_to_float8e8m0_wrap_up(x)`: a power of two; "up", "down" and "nearest"
  are by magnitude, and the sign is dropped.
- `float32_to_odd(x)`: a float64 or an integer as a float32, where inexact the neighbour whose last bit is set. Rounding
  that to a narrower type gives what rounding x gives.
- `int4(x)`, `wrap_int4(x)`: the low bits of an integer, or of a float truncated toward zero, as an int8.

Source: ONNX Cast, version 25, and `onnx.numpy_helper.to_float8e8m0`.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import numpy as np
from llvmlite import ir
from numba.core import types

from onnxsmith_compiler.codegen import narrow_float
from onnxsmith_compiler.codegen.kernel_function import Intrinsic
from onnxsmith_compiler.codegen.pointer_types import value_type
from onnxsmith_compiler.ir import dtype as dtypes
from onnxsmith_compiler.ir.dtype import DType
from onnxsmith_compiler.ops.rounding import float32_to_odd

_I1 = ir.IntType(1)
_I8 = ir.IntType(8)
_I32 = ir.IntType(32)
_I64 = ir.IntType(64)
_F32 = ir.FloatType()
_F64 = ir.DoubleType()
_F32_INF = 0x7F800000
_F32_NAN = 0x7FC00000
_F32_MANTISSA_MASK = 0x7FFFFF
_ROUNDINGS = ("up", "down", "nearest")
_Emit = Callable[[Any, ir.IRBuilder, ir.Value], ir.Value]


def _of_float32(name: str, emit: _Emit, reference: Callable[[Any], Any]) -> Intrinsic:
    """An intrinsic from float32 to float32."""

    def define(context: Any, *kinds: Any) -> Any:
        if kinds != (types.float32,):
            return None

        def codegen(context: Any, builder: ir.IRBuilder, signature: Any, arguments: Any) -> ir.Value:
            return emit(context, builder, arguments[0])

        return types.float32(types.float32), codegen

    return Intrinsic(name, define, reference)


def _round_to(dtype: DType, saturate: bool) -> Intrinsic:
    saturates = saturate and dtype.bits == 8
    largest = float(narrow_float.largest(dtype.name))

    def emit(context: Any, builder: ir.IRBuilder, value: ir.Value) -> ir.Value:
        if saturates:
            value = _clamp(builder, value, largest)
        half = context.kernel_target.native_half
        stored = narrow_float.narrow(builder, dtype.name, value, native_half=half)
        return narrow_float.widen(builder, dtype.name, stored, native_half=half)

    def reference(value: Any) -> np.float32:
        clipped = np.clip(np.float32(value), -largest, largest) if saturates else np.float32(value)
        with np.errstate(over="ignore", invalid="ignore"):
            return np.float32(np.asarray(clipped).astype(dtype.storage)[()])

    return _of_float32(f"round_to_{dtype.name}{'' if saturate else '_wrap'}", emit, reference)


def _clamp(builder: ir.IRBuilder, value: ir.Value, largest: float) -> ir.Value:
    """`value` within [-largest, largest]; NaN stays."""
    for comparison, limit in ((">", largest), ("<", -largest)):
        bound = ir.Constant(value.type, limit)
        value = builder.select(builder.fcmp_ordered(comparison, value, bound), bound, value)
    return value


def _round_to_e8m0(rounding: str, saturate: bool) -> Intrinsic:
    def emit(context: Any, builder: ir.IRBuilder, value: ir.Value) -> ir.Value:
        bits = builder.and_(builder.bitcast(value, _I32), _I32(0x7FFFFFFF))
        exponent = builder.lshr(bits, _I32(23))
        fraction = builder.and_(bits, _I32(_F32_MANTISSA_MASK))
        up = _rounds_up(builder, rounding, exponent, fraction)
        if saturate:
            up = builder.and_(up, builder.icmp_unsigned("!=", exponent, _I32(0xFE)))
        rounded = builder.add(exponent, builder.zext(up, _I32))
        invalid = builder.icmp_unsigned(">=", bits, _I32(_F32_INF))
        code = builder.select(invalid, _I32(0xFF), rounded)
        return narrow_float.widen(builder, "float8e8m0", builder.trunc(code, _I8), native_half=False)

    def reference(value: Any) -> np.float32:
        bits = int(np.float32(value).view(np.uint32)) & 0x7FFFFFFF
        exponent, fraction = bits >> 23, bits & _F32_MANTISSA_MASK
        if exponent == 0xFF:
            return np.float32("nan")
        up = {
            "up": fraction > 0,
            "down": False,
            "nearest": fraction > 0x400000 or (fraction == 0x400000 and exponent > 0),
        }[rounding]
        code = exponent + int(up and not (saturate and exponent == 0xFE))
        return np.float32("nan") if code == 0xFF else np.float32(2.0 ** (code - 127))

    return _of_float32(f"round_to_float8e8m0{'' if saturate else '_wrap'}_{rounding}", emit, reference)


def _rounds_up(builder: ir.IRBuilder, rounding: str, exponent: ir.Value, fraction: ir.Value) -> ir.Value:
    if rounding == "down":
        return _I1(0)
    if rounding == "up":
        return builder.icmp_unsigned("!=", fraction, _I32(0))
    tie = builder.icmp_unsigned("==", fraction, _I32(0x400000))
    tie_up = builder.and_(tie, builder.icmp_unsigned("!=", exponent, _I32(0)))
    return builder.or_(builder.icmp_unsigned(">", fraction, _I32(0x400000)), tie_up)


def _define_to_odd(context: Any, *kinds: Any) -> Any:
    if len(kinds) != 1 or not (isinstance(kinds[0], types.Integer) or kinds[0] == types.float64):
        return None
    (kind,) = kinds

    def codegen(context: Any, builder: ir.IRBuilder, signature: Any, arguments: Any) -> ir.Value:
        (value,) = arguments
        if isinstance(kind, types.Integer):
            value = _wide_to_odd(builder, value, kind.signed)
        return _narrow_to_odd(builder, value)

    return types.float32(kind), codegen


def _wide_to_odd(builder: ir.IRBuilder, value: ir.Value, signed: bool) -> ir.Value:
    """The float64 of an integer, which may have more than 53 bits."""
    if value.type.width < 64:
        return builder.sitofp(value, _F64) if signed else builder.uitofp(value, _F64)
    zero, dropped = _I64(0), _I64(0x7FF)
    negative = builder.icmp_signed("<", value, zero) if signed else _I1(0)
    size = builder.select(negative, builder.neg(value), value)
    inexact = builder.icmp_unsigned("!=", builder.and_(size, dropped), zero)
    odd = builder.or_(builder.and_(size, builder.not_(dropped)), builder.select(inexact, _I64(0x800), zero))
    is_long = builder.icmp_unsigned(">=", size, _I64(1 << 53))
    exact = builder.uitofp(builder.select(is_long, odd, size), _F64)
    return builder.select(negative, builder.fneg(exact), exact)


def _narrow_to_odd(builder: ir.IRBuilder, value: ir.Value) -> ir.Value:
    near = builder.fptrunc(value, _F32)
    back = builder.fpext(near, _F64)
    bits = builder.bitcast(near, _I32)
    negative = builder.fcmp_ordered("<", value, ir.Constant(_F64, 0.0))
    beyond = builder.select(
        negative, builder.fcmp_ordered("<", back, value), builder.fcmp_ordered(">", back, value)
    )  # further from zero than it should be
    neighbour = builder.add(bits, builder.select(beyond, _I32(-1), _I32(1)))
    # Ordered: a NaN stays.
    inexact = builder.fcmp_ordered("!=", back, value)
    is_even = builder.icmp_unsigned("==", builder.and_(bits, _I32(1)), _I32(0))
    return builder.bitcast(builder.select(builder.and_(inexact, is_even), neighbour, bits), _F32)


def _wrap(name: str, dtype: DType) -> Intrinsic:
    result = value_type(dtype)

    def define(context: Any, *kinds: Any) -> Any:
        if len(kinds) != 1 or not isinstance(kinds[0], types.Integer | types.Boolean | types.Float):
            return None

        def codegen(context: Any, builder: ir.IRBuilder, signature: Any, arguments: Any) -> ir.Value:
            value = arguments[0]
            if isinstance(kinds[0], types.Float):
                value = _truncate(builder, value)
            value = builder.zext(value, _I8) if value.type.width < 8 else value
            value = builder.trunc(value, _I8) if value.type.width > 8 else value
            unused = _I8(8 - dtype.bits)
            back = builder.ashr if dtype.kind == "int" else builder.lshr
            return back(builder.shl(value, unused), unused)

        return result(kinds[0]), codegen

    return Intrinsic(name, define, functools.partial(_wrapped, dtype))


def _truncate(builder: ir.IRBuilder, value: ir.Value) -> ir.Value:
    """The int32 toward zero; out of range is clamped and NaN is 0."""
    suffix = "f32" if isinstance(value.type, ir.FloatType) else "f64"
    name = f"llvm.fptosi.sat.i32.{suffix}"
    module = builder.module
    function = module.globals.get(name) or ir.Function(module, ir.FunctionType(_I32, [value.type]), name)
    return builder.call(function, [value])


def _wrapped(dtype: DType, value: Any) -> Any:
    number = 0 if value != value else int(max(min(value, 2**31 - 1), -(2**31)))
    low = number & ((1 << dtype.bits) - 1)
    if dtype.kind == "int" and low >> (dtype.bits - 1):
        return np.int8(low - (1 << dtype.bits))
    return np.int8(low) if dtype.kind == "int" else np.uint8(low)


_ROUNDED = (
    dtypes.FLOAT16, dtypes.BFLOAT16, dtypes.FLOAT8E4M3FN, dtypes.FLOAT8E4M3FNUZ, dtypes.FLOAT8E5M2,
    dtypes.FLOAT8E5M2FNUZ, dtypes.FLOAT4E2M1,
)  # fmt: skip
_WRAPPED = (dtypes.INT4, dtypes.UINT4, dtypes.INT2, dtypes.UINT2)

CONVERSIONS: dict[str, Intrinsic] = {
    function.name: function
    for function in (
        Intrinsic("float32_to_odd", _define_to_odd, lambda value: float32_to_odd(np.asarray(value))[()]),
        *(_round_to(dtype, saturate) for dtype in _ROUNDED for saturate in (True, False)),
        *(_round_to_e8m0(rounding, saturate) for rounding in _ROUNDINGS for saturate in (True, False)),
        *(_wrap(f"{prefix}{dtype.name}", dtype) for dtype in _WRAPPED for prefix in ("", "wrap_")),
    )
}
"""Every conversion, by the name that printed kernels use."""
