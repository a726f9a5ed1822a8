"""Integer powers in LLVM instructions."""

from __future__ import annotations

from llvmlite import ir


def emit(builder: ir.IRBuilder, base: ir.Value, exponent: ir.Value, *, signed: bool) -> ir.Value:
    """base to the exponent, modulo 2^bits, by repeated squaring: a loop of at most `bits` rounds.

    Below 0 the exponent gives the power truncated towards 0: 0, but for the bases 1 and -1.
    """
    kind = base.type
    zero, one = ir.Constant(kind, 0), ir.Constant(kind, 1)
    before = builder.block
    loop = builder.append_basic_block("power.loop")
    after = builder.append_basic_block("power.end")
    builder.branch(loop)

    builder.position_at_end(loop)
    power, square, rest = (builder.phi(kind) for _ in range(3))
    is_odd = builder.trunc(rest, ir.IntType(1))
    next_power = builder.select(is_odd, builder.mul(power, square), power)
    next_rest = builder.lshr(rest, one)
    for value, start, step in (
        (power, one, next_power),
        (square, base, builder.mul(square, square)),
        (rest, exponent, next_rest),
    ):
        value.add_incoming(start, before)
        value.add_incoming(step, loop)
    builder.cbranch(builder.icmp_unsigned("==", next_rest, zero), after, loop)

    builder.position_at_end(after)
    if not signed:
        return next_power
    # Only the bases 1 and -1 have an integer inverse, themselves.
    is_unit = builder.icmp_unsigned("<=", builder.add(base, one), ir.Constant(kind, 2))
    is_unit = builder.and_(is_unit, builder.icmp_unsigned("!=", base, zero))
    inverse = builder.select(is_unit, next_power, zero)
    return builder.select(builder.icmp_signed("<", exponent, zero), inverse, next_power)
