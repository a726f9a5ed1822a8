"""Fused multiply-add for targets that lack the instruction, from plain float64 operations.

S. Boldo, G. Melquiond, "Emulation of a FMA and correctly rounded sums: proved algorithms using rounding to
odd", 2008.
"""

from __future__ import annotations

from llvmlite import ir

_F32 = ir.FloatType()
_F64 = ir.DoubleType()
_I64 = ir.IntType(64)
_SPLITTER = 134217729.0  # 2^27 + 1: halves a float64's 53 bits (Veltkamp)


def emit(builder: ir.IRBuilder, a: ir.Value, b: ir.Value, c: ir.Value) -> ir.Value:
    """a * b + c rounded once; of float64s only where no partial product under- or overflows."""
    if a.type == _F64:
        return _fma_f64(builder, a, b, c)
    wide_a, wide_b, wide_c = (builder.fpext(value, _F64) for value in (a, b, c))
    product = builder.fmul(wide_a, wide_b)  # exact: 24 + 24 bits
    return builder.fptrunc(_sum_to_odd(builder, product, wide_c), _F32)


def _fma_f64(builder: ir.IRBuilder, a: ir.Value, b: ir.Value, c: ir.Value) -> ir.Value:
    high, low = _two_product(builder, a, b)
    sum_high, sum_low = _two_sum(builder, c, low)
    total, rest = _two_sum(builder, high, sum_high)
    fused = builder.fadd(total, _sum_to_odd(builder, sum_low, rest))
    plain = builder.fadd(builder.fmul(a, b), c)
    is_finite = builder.fcmp_ordered("==", builder.fsub(fused, fused), ir.Constant(_F64, 0.0))
    return builder.select(is_finite, fused, plain)


def _two_sum(builder: ir.IRBuilder, a: ir.Value, b: ir.Value) -> tuple[ir.Value, ir.Value]:
    """The rounded sum and its exact error (Knuth)."""
    total = builder.fadd(a, b)
    of_b = builder.fsub(total, a)
    of_a = builder.fsub(total, of_b)
    return total, builder.fadd(builder.fsub(a, of_a), builder.fsub(b, of_b))


def _split(builder: ir.IRBuilder, a: ir.Value) -> tuple[ir.Value, ir.Value]:
    """Two halves of 26 bits whose sum is a."""
    scaled = builder.fmul(a, ir.Constant(_F64, _SPLITTER))
    high = builder.fsub(scaled, builder.fsub(scaled, a))
    return high, builder.fsub(a, high)


def _two_product(builder: ir.IRBuilder, a: ir.Value, b: ir.Value) -> tuple[ir.Value, ir.Value]:
    """The rounded product and its exact error (Dekker)."""
    a_high, a_low = _split(builder, a)
    b_high, b_low = _split(builder, b)
    product = builder.fmul(a, b)
    error = builder.fsub(product, builder.fmul(a_high, b_high))
    error = builder.fsub(error, builder.fmul(a_low, b_high))
    error = builder.fsub(error, builder.fmul(a_high, b_low))
    return product, builder.fsub(builder.fmul(a_low, b_low), error)


def _sum_to_odd(builder: ir.IRBuilder, a: ir.Value, b: ir.Value) -> ir.Value:
    """a + b, where inexact rounded to the neighbour whose last bit is set.

    Rounding that to a narrower type gives what rounding the exact sum gives.
    """
    total, error = _two_sum(builder, a, b)
    zero = ir.Constant(_F64, 0.0)
    bits = builder.bitcast(total, _I64)
    grows = builder.xor(builder.fcmp_ordered(">", error, zero), builder.fcmp_ordered("<", total, zero))
    neighbour = builder.add(bits, builder.select(grows, _I64(1), _I64(-1)))
    # Ordered: an infinite sum has a NaN as its error and stays.
    is_inexact = builder.fcmp_ordered("!=", error, zero)
    is_even = builder.icmp_unsigned("==", builder.and_(bits, _I64(1)), _I64(0))
    moves = builder.and_(is_inexact, is_even)
    return builder.bitcast(builder.select(moves, neighbour, bits), _F64)
