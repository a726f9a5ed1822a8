"""Scalar intrinsics of printed kernels: an LLVM instruction or a few each, without calls of a library.

Each is callable in plain Python; `scalar_reference.py` holds those bodies, whose docstrings say what each
computes. Operands must have one type: an intrinsic refuses a mixture (numba.TypingError), since numba would
widen it in silence.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from llvmlite import ir
from numba.core import types
from numba.core.errors import TypingError

from onnxsmith_compiler.codegen import fma_emulation, integer_power
from onnxsmith_compiler.codegen import scalar_reference as reference
from onnxsmith_compiler.codegen.kernel_function import Intrinsic

Type = Any  # a numba type
Values = list[ir.Value]
Emit = Callable[..., ir.Value]  # (builder, numba type of the operands, *operands) -> result

# Flags of a reduction's step alone: numba gives a kernel's flags only to instructions that have none.
_REASSOCIATED = ("reassoc", "contract")


def _same_type(name: str, arguments: tuple[Type, ...]) -> Type:
    first = arguments[0]
    if any(argument != first for argument in arguments):
        found = ", ".join(str(argument) for argument in arguments)
        raise TypingError(f"{name} needs operands of one type, got ({found}): convert them, as in float32(x)")
    return first


def _accept(name: str, kinds: str, operand: Type) -> None:
    """Raises unless the type's kind is among `kinds`: f float, i signed, u unsigned, b boolean."""
    if _kind(operand) not in kinds:
        wanted = [word for key, word in _KIND_NAMES.items() if key in kinds]
        raise TypingError(f"{name} takes {' or '.join(wanted)}, got {operand}")


_KIND_NAMES = {"f": "float32 and float64", "i": "signed integers", "u": "unsigned integers", "b": "booleans"}


def _kind(operand: Type) -> str:
    if operand in (types.float32, types.float64):
        return "f"
    if isinstance(operand, types.Boolean):
        return "b"
    if operand in types.signed_domain:
        return "i"
    return "u" if operand in types.unsigned_domain else "?"


def _intrinsic(name: str, kinds: str, emit: Emit, result: Type | None = None) -> Intrinsic:
    """An intrinsic on operands of one type of `kinds`; its result has that type, unless `result` is given."""

    def definition(_context: Any, *arguments: Type) -> Any:
        operand = _same_type(name, arguments)
        _accept(name, kinds, operand)

        def codegen(_context: Any, builder: ir.IRBuilder, _signature: Any, values: Values) -> ir.Value:
            return emit(builder, operand, *values)

        return (result or operand)(*arguments), codegen

    return Intrinsic(name, definition, getattr(reference, name))


def _call(builder: ir.IRBuilder, name: str, operands: tuple[ir.Value, ...]) -> ir.Value:
    """Calls LLVM's intrinsic `name` overloaded on the type of its operands, which is also its result's."""
    operand = operands[0].type
    function_type = ir.FunctionType(operand, [value.type for value in operands])
    return builder.call(builder.module.declare_intrinsic(name, [operand], function_type), operands)


def _llvm(name: str) -> Emit:
    """Emits LLVM's intrinsic `name` on floats."""

    def emit(builder: ir.IRBuilder, _operand: Type, *values: ir.Value) -> ir.Value:
        return _call(builder, name, values)

    return emit


def _emit_extremum(float_name: str, signed_name: str, unsigned_name: str) -> Emit:
    def emit(builder: ir.IRBuilder, operand: Type, a: ir.Value, b: ir.Value) -> ir.Value:
        name = {"f": float_name, "i": signed_name}.get(_kind(operand), unsigned_name)
        return _call(builder, name, (a, b))

    return emit


def _emit_step(float_operation: str, integer_operation: str) -> Emit:
    def emit(builder: ir.IRBuilder, operand: Type, accumulator: ir.Value, x: ir.Value) -> ir.Value:
        if _kind(operand) == "f":
            return getattr(builder, float_operation)(accumulator, x, flags=_REASSOCIATED)
        return getattr(builder, integer_operation)(accumulator, x)

    return emit


def _zero(value: ir.Value) -> ir.Constant:
    return ir.Constant(value.type, 0)


def _safe_divisor(builder: ir.IRBuilder, operand: Type, a: ir.Value, b: ir.Value) -> ir.Value:
    """b, or 1 where LLVM leaves a / b undefined."""
    undefined = builder.icmp_unsigned("==", b, _zero(b))
    if _kind(operand) == "i":
        least = ir.Constant(a.type, -(1 << (operand.bitwidth - 1)))
        overflows = builder.and_(
            builder.icmp_unsigned("==", a, least),
            builder.icmp_unsigned("==", b, ir.Constant(b.type, -1)),
        )
        undefined = builder.or_(undefined, overflows)
    return builder.select(undefined, ir.Constant(b.type, 1), b)


def _quotient(builder: ir.IRBuilder, operand: Type, a: ir.Value, b: ir.Value) -> ir.Value:
    divide = builder.sdiv if _kind(operand) == "i" else builder.udiv
    return divide(a, b)


def _remainder(builder: ir.IRBuilder, operand: Type, a: ir.Value, b: ir.Value) -> ir.Value:
    divide = builder.srem if _kind(operand) == "i" else builder.urem
    return divide(a, b)


def _zero_if_divided_by_zero(builder: ir.IRBuilder, b: ir.Value, result: ir.Value) -> ir.Value:
    return builder.select(builder.icmp_unsigned("==", b, _zero(b)), _zero(result), result)


def _emit_int_div(builder: ir.IRBuilder, operand: Type, a: ir.Value, b: ir.Value) -> ir.Value:
    quotient = _quotient(builder, operand, a, _safe_divisor(builder, operand, a, b))
    return _zero_if_divided_by_zero(builder, b, quotient)


def _emit_int_rem(builder: ir.IRBuilder, operand: Type, a: ir.Value, b: ir.Value) -> ir.Value:
    return _remainder(builder, operand, a, _safe_divisor(builder, operand, a, b))


def _rounds_down(builder: ir.IRBuilder, a: ir.Value, b: ir.Value, rest: ir.Value) -> ir.Value:
    """Whether the quotient of signed a and b, whose remainder is `rest`, lies below the truncated one."""
    signs_differ = builder.icmp_signed("<", builder.xor(a, b), _zero(a))
    return builder.and_(builder.icmp_unsigned("!=", rest, _zero(rest)), signs_differ)


def _emit_int_floordiv(builder: ir.IRBuilder, operand: Type, a: ir.Value, b: ir.Value) -> ir.Value:
    divisor = _safe_divisor(builder, operand, a, b)
    quotient = _quotient(builder, operand, a, divisor)
    if _kind(operand) == "i":
        below = _rounds_down(builder, a, b, _remainder(builder, operand, a, divisor))
        quotient = builder.sub(quotient, builder.zext(below, quotient.type))
    return _zero_if_divided_by_zero(builder, b, quotient)


def _emit_int_mod(builder: ir.IRBuilder, operand: Type, a: ir.Value, b: ir.Value) -> ir.Value:
    rest = _emit_int_rem(builder, operand, a, b)
    if _kind(operand) != "i":
        return rest
    return builder.select(_rounds_down(builder, a, b, rest), builder.add(rest, b), rest)


def _emit_ipow(builder: ir.IRBuilder, operand: Type, base: ir.Value, exponent: ir.Value) -> ir.Value:
    return integer_power.emit(builder, base, exponent, signed=_kind(operand) == "i")


def _emit_shift(left: bool) -> Emit:
    def emit(builder: ir.IRBuilder, operand: Type, a: ir.Value, count: ir.Value) -> ir.Value:
        inside = builder.icmp_unsigned("<", count, ir.Constant(count.type, operand.bitwidth))
        if not left and _kind(operand) == "i":
            last = ir.Constant(count.type, operand.bitwidth - 1)
            return builder.ashr(a, builder.select(inside, count, last))
        shift = builder.shl if left else builder.lshr
        return builder.select(inside, shift(a, count), _zero(a))

    return emit


def _emit_absolute(builder: ir.IRBuilder, operand: Type, x: ir.Value) -> ir.Value:
    kind = _kind(operand)
    if kind == "f":
        return _call(builder, "llvm.fabs", (x,))
    if kind == "u":
        return x
    return builder.select(builder.icmp_signed("<", x, _zero(x)), builder.neg(x), x)


def _emit_sign(builder: ir.IRBuilder, operand: Type, x: ir.Value) -> ir.Value:
    compare = builder.fcmp_ordered if _kind(operand) == "f" else builder.icmp_signed
    one = ir.Constant(x.type, 1)
    if _kind(operand) == "u":
        return builder.zext(builder.icmp_unsigned("!=", x, _zero(x)), x.type)
    negative = builder.select(compare("<", x, _zero(x)), ir.Constant(x.type, -1), _zero(x))
    result = builder.select(compare(">", x, _zero(x)), one, negative)
    if _kind(operand) == "f":
        return builder.select(builder.fcmp_unordered("uno", x, x), x, result)
    return result


def _emit_signbit(builder: ir.IRBuilder, operand: Type, x: ir.Value) -> ir.Value:
    bits = builder.bitcast(x, ir.IntType(operand.bitwidth))
    return builder.icmp_signed("<", bits, _zero(bits))


def _emit_isnan(builder: ir.IRBuilder, _operand: Type, x: ir.Value) -> ir.Value:
    return builder.fcmp_unordered("uno", x, x)


def _emit_isinf(builder: ir.IRBuilder, _operand: Type, x: ir.Value) -> ir.Value:
    return builder.fcmp_ordered("==", _call(builder, "llvm.fabs", (x,)), ir.Constant(x.type, float("inf")))


def _emit_reciprocal(builder: ir.IRBuilder, _operand: Type, x: ir.Value) -> ir.Value:
    return builder.fdiv(ir.Constant(x.type, 1.0), x)


def _define_select(_context: Any, condition: Type, a: Type, b: Type) -> Any:
    operand = _same_type("select", (a, b))
    _accept("select as its condition", "b", condition)
    _accept("select", "fiub", operand)

    def codegen(_context: Any, builder: ir.IRBuilder, _signature: Any, values: Values) -> ir.Value:
        return builder.select(*values)

    return operand(condition, a, b), codegen


def _define_fma(_context: Any, *arguments: Type) -> Any:
    operand = _same_type("fma", arguments)
    _accept("fma", "f", operand)

    def codegen(context: Any, builder: ir.IRBuilder, _signature: Any, values: Values) -> ir.Value:
        if context.kernel_target.fma:
            return _call(builder, "llvm.fma", tuple(values))
        return fma_emulation.emit(builder, *values)

    return operand(*arguments), codegen


def _define_ldexp(_context: Any, x: Type, exponent: Type) -> Any:
    _accept("ldexp", "f", x)
    if exponent != types.int32:
        raise TypingError(f"ldexp takes an int32 exponent, got {exponent}")

    def codegen(context: Any, builder: ir.IRBuilder, _signature: Any, values: Values) -> ir.Value:
        if context.kernel_target.has("avx512f"):  # one instruction; a library call elsewhere
            types_of_call = [values[0].type, values[1].type]
            function_type = ir.FunctionType(values[0].type, types_of_call)
            return builder.call(builder.module.declare_intrinsic("llvm.ldexp", types_of_call, function_type), values)
        return _scale_in_two_steps(builder, *values)

    return x(x, exponent), codegen


def _scale_in_two_steps(builder: ir.IRBuilder, x: ir.Value, exponent: ir.Value) -> ir.Value:
    """x times two powers of two that are normal numbers: only the second product can round."""
    half = builder.ashr(exponent, ir.Constant(exponent.type, 1))
    once = builder.fmul(x, _power_of_two(builder, half, x.type))
    return builder.fmul(once, _power_of_two(builder, builder.sub(exponent, half), x.type))


def _power_of_two(builder: ir.IRBuilder, exponent: ir.Value, result: ir.Type) -> ir.Value:
    bits, mantissa, bias = (32, 23, 127) if isinstance(result, ir.FloatType) else (64, 52, 1023)
    integer = ir.IntType(bits)
    biased = builder.add(exponent, ir.Constant(exponent.type, bias))
    wide = builder.zext(biased, integer) if bits == 64 else biased
    return builder.bitcast(builder.shl(wide, ir.Constant(integer, mantissa)), result)


def _define_polynomial(_context: Any, x: Type, *coefficients: Type) -> Any:
    _accept("polynomial", "f", x)

    def codegen(_context: Any, builder: ir.IRBuilder, _signature: Any, values: Values) -> ir.Value:
        point, *typed = values
        result = typed[-1]
        for coefficient in reversed(typed[:-1]):
            result = _call(builder, "llvm.fmuladd", (result, point, coefficient))
        return result

    return x(x, *(x for _ in coefficients)), codegen


def _conversion(name: str, target: Type) -> Intrinsic:
    """An intrinsic that converts any number or boolean to `target`."""

    def definition(_context: Any, x: Type) -> Any:
        _accept(name, "fiub", x)

        def codegen(_context: Any, builder: ir.IRBuilder, _signature: Any, values: Values) -> ir.Value:
            return _emit_conversion(builder, values[0], x, target)

        return target(x), codegen

    return Intrinsic(name, definition, getattr(reference, name))


def _emit_conversion(builder: ir.IRBuilder, value: ir.Value, source: Type, target: Type) -> ir.Value:
    if source == target:
        return value
    if _kind(target) == "b":
        if _kind(source) == "f":
            return builder.fcmp_unordered("!=", value, _zero(value))
        return builder.icmp_unsigned("!=", value, _zero(value))
    if _kind(source) == "f":
        return _float_to_integer(builder, value, target)
    wide = ir.IntType(target.bitwidth)
    if value.type.width >= target.bitwidth:
        return builder.trunc(value, wide) if value.type.width > target.bitwidth else value
    return builder.sext(value, wide) if _kind(source) == "i" else builder.zext(value, wide)


def _float_to_integer(builder: ir.IRBuilder, x: ir.Value, target: Type) -> ir.Value:
    """What x86 compilers make of C's cast, without its undefined cases (see scalar_reference)."""
    if target.bitwidth < 32:
        return builder.trunc(_float_to_signed(builder, x, 32), ir.IntType(target.bitwidth))
    low = _float_to_signed(builder, x, target.bitwidth)
    if target.signed:
        return low
    half = ir.Constant(x.type, 2.0 ** (target.bitwidth - 1))
    high = _float_to_signed(builder, builder.fsub(x, half), target.bitwidth)
    high = builder.xor(high, ir.Constant(high.type, -(1 << (target.bitwidth - 1))))
    return builder.select(builder.fcmp_ordered(">=", x, half), high, low)


def _float_to_signed(builder: ir.IRBuilder, x: ir.Value, bits: int) -> ir.Value:
    """Truncation; the least integer where fptosi is poison (a select drops the arm it does not take)."""
    limit = 2.0 ** (bits - 1)
    fits = builder.and_(
        builder.fcmp_ordered(">=", x, ir.Constant(x.type, -limit)),
        builder.fcmp_ordered("<", x, ir.Constant(x.type, limit)),
    )
    least = ir.Constant(ir.IntType(bits), -(1 << (bits - 1)))
    return builder.select(fits, builder.fptosi(x, least.type), least)


def _define_float_to_bits(_context: Any, x: Type) -> Any:
    _accept("float_to_bits", "f", x)
    result = types.int32 if x == types.float32 else types.int64

    def codegen(_context: Any, builder: ir.IRBuilder, _signature: Any, values: Values) -> ir.Value:
        return builder.bitcast(values[0], ir.IntType(result.bitwidth))

    return result(x), codegen


def _define_bits_to_float(_context: Any, x: Type) -> Any:
    result = {32: types.float32, 64: types.float64}.get(getattr(x, "bitwidth", 0))
    if result is None or _kind(x) not in "iu":
        raise TypingError(f"bits_to_float takes int32, uint32, int64 or uint64, got {x}")

    def codegen(_context: Any, builder: ir.IRBuilder, _signature: Any, values: Values) -> ir.Value:
        return builder.bitcast(values[0], ir.FloatType() if result == types.float32 else ir.DoubleType())

    return result(x), codegen


def _plain(operation: str) -> Emit:
    def emit(builder: ir.IRBuilder, _operand: Type, *values: ir.Value) -> ir.Value:
        return getattr(builder, operation)(*values)

    return emit


fma = Intrinsic("fma", _define_fma, reference.fma)
muladd = _intrinsic("muladd", "f", _llvm("llvm.fmuladd"))
polynomial = Intrinsic("polynomial", _define_polynomial, reference.polynomial)
maximum = _intrinsic("maximum", "fiub", _emit_extremum("llvm.maximum", "llvm.smax", "llvm.umax"))
minimum = _intrinsic("minimum", "fiub", _emit_extremum("llvm.minimum", "llvm.smin", "llvm.umin"))
select = Intrinsic("select", _define_select, reference.select)
sum_step = _intrinsic("sum_step", "fiu", _emit_step("fadd", "add"))
prod_step = _intrinsic("prod_step", "fiu", _emit_step("fmul", "mul"))

int_div = _intrinsic("int_div", "iu", _emit_int_div)
int_floordiv = _intrinsic("int_floordiv", "iu", _emit_int_floordiv)
int_mod = _intrinsic("int_mod", "iu", _emit_int_mod)
int_rem = _intrinsic("int_rem", "iu", _emit_int_rem)
ipow = _intrinsic("ipow", "iu", _emit_ipow)
bit_and = _intrinsic("bit_and", "iub", _plain("and_"))
bit_or = _intrinsic("bit_or", "iub", _plain("or_"))
bit_xor = _intrinsic("bit_xor", "iub", _plain("xor"))
bit_not = _intrinsic("bit_not", "iub", _plain("not_"))
shift_left = _intrinsic("shift_left", "iu", _emit_shift(left=True))
shift_right = _intrinsic("shift_right", "iu", _emit_shift(left=False))
popcount = _intrinsic("popcount", "iu", _llvm("llvm.ctpop"))

floor = _intrinsic("floor", "f", _llvm("llvm.floor"))
ceil = _intrinsic("ceil", "f", _llvm("llvm.ceil"))
rint = _intrinsic("rint", "f", _llvm("llvm.rint"))
trunc = _intrinsic("trunc", "f", _llvm("llvm.trunc"))
sqrt = _intrinsic("sqrt", "f", _llvm("llvm.sqrt"))
reciprocal = _intrinsic("reciprocal", "f", _emit_reciprocal)
absolute = _intrinsic("abs", "fiu", _emit_absolute)
sign = _intrinsic("sign", "fiu", _emit_sign)
copysign = _intrinsic("copysign", "f", _llvm("llvm.copysign"))
isnan = _intrinsic("isnan", "f", _emit_isnan, types.boolean)
isinf = _intrinsic("isinf", "f", _emit_isinf, types.boolean)
signbit = _intrinsic("signbit", "f", _emit_signbit, types.boolean)
ldexp = Intrinsic("ldexp", _define_ldexp, reference.ldexp)
float_to_bits = Intrinsic("float_to_bits", _define_float_to_bits, reference.float_to_bits)
bits_to_float = Intrinsic("bits_to_float", _define_bits_to_float, reference.bits_to_float)

trunc_to_int8 = _conversion("trunc_to_int8", types.int8)
trunc_to_int16 = _conversion("trunc_to_int16", types.int16)
trunc_to_int32 = _conversion("trunc_to_int32", types.int32)
trunc_to_int64 = _conversion("trunc_to_int64", types.int64)
trunc_to_uint8 = _conversion("trunc_to_uint8", types.uint8)
trunc_to_uint16 = _conversion("trunc_to_uint16", types.uint16)
trunc_to_uint32 = _conversion("trunc_to_uint32", types.uint32)
trunc_to_uint64 = _conversion("trunc_to_uint64", types.uint64)
boolean = _conversion("boolean", types.boolean)

_ALL = (
    fma, muladd, polynomial, maximum, minimum, select, sum_step, prod_step,
    int_div, int_floordiv, int_mod, int_rem, ipow,
    bit_and, bit_or, bit_xor, bit_not, shift_left, shift_right, popcount,
    floor, ceil, rint, trunc, sqrt, reciprocal, absolute, sign, copysign, isnan, isinf, signbit, ldexp,
    float_to_bits, bits_to_float, boolean,
    trunc_to_int8, trunc_to_int16, trunc_to_int32, trunc_to_int64,
    trunc_to_uint8, trunc_to_uint16, trunc_to_uint32, trunc_to_uint64,
)  # fmt: skip
SCALAR_INTRINSICS: dict[str, Intrinsic] = {operation.name: operation for operation in _ALL}
"""Every scalar intrinsic, by the name that printed kernels use."""
