"""Machine words for the native core: memory, atomics and calls of addresses, as llvmlite instructions.

Addresses are int64, as in the runtime's tables; words are naturally aligned. The plain Python references work
on the process's own memory through ctypes, for one thread.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Sequence
from typing import Any

from llvmlite import ir
from numba.core import cgutils, types

from onnxsmith_compiler.codegen.kernel_function import Intrinsic

_I1 = ir.IntType(1)
_I32 = ir.IntType(32)
_I64 = ir.IntType(64)
_WORDS = _I64.as_pointer()
_INT64_MIN, _INT64_MAX = -(1 << 63), (1 << 63) - 1

_Emit = Callable[..., ir.Value]


def _intrinsic(
    name: str, arity: int, emit: _Emit, reference: Callable[..., Any], result: types.Type = types.int64
) -> Intrinsic:
    """An Intrinsic of `arity` int64 arguments; `emit(context, builder, *words)` returns the LLVM value."""

    def definition(context: Any, *arguments: types.Type) -> Any:
        if len(arguments) != arity or not all(isinstance(a, types.Integer) for a in arguments):
            return None

        def emit_call(context: Any, builder: ir.IRBuilder, signature: Any, values: Any) -> ir.Value:
            return emit(context, builder, *values)

        return result(*[types.int64] * arity), emit_call

    return Intrinsic(name, definition, reference)


def _word(builder: ir.IRBuilder, base: ir.Value, index: ir.Value) -> ir.Value:
    return builder.gep(builder.inttoptr(base, _WORDS), [index])


def _peek(context: Any, builder: ir.IRBuilder, base: ir.Value, index: ir.Value) -> ir.Value:
    return builder.load(_word(builder, base, index))


def _poke(context: Any, builder: ir.IRBuilder, base: ir.Value, index: ir.Value, value: ir.Value) -> ir.Value:
    builder.store(value, _word(builder, base, index))
    return value


def _peek_narrow(width: int) -> _Emit:
    def emit(context: Any, builder: ir.IRBuilder, address: ir.Value) -> ir.Value:
        pointer = builder.inttoptr(address, ir.IntType(width).as_pointer())
        return builder.sext(builder.load(pointer), _I64)

    return emit


def _atomic_load(ordering: str) -> _Emit:
    def emit(context: Any, builder: ir.IRBuilder, base: ir.Value, index: ir.Value) -> ir.Value:
        return builder.load_atomic(_word(builder, base, index), ordering, 8)

    return emit


def _atomic_store(ordering: str) -> _Emit:
    def emit(context: Any, builder: ir.IRBuilder, base: ir.Value, index: ir.Value, value: ir.Value) -> ir.Value:
        builder.store_atomic(value, _word(builder, base, index), ordering, 8)
        return value

    return emit


def _atomic_add(context: Any, builder: ir.IRBuilder, base: ir.Value, index: ir.Value, value: ir.Value) -> ir.Value:
    return builder.atomic_rmw("add", _word(builder, base, index), value, "seq_cst")


def _compare_swap(
    context: Any, builder: ir.IRBuilder, base: ir.Value, index: ir.Value, old: ir.Value, new: ir.Value
) -> ir.Value:
    pair = builder.cmpxchg(_word(builder, base, index), old, new, "seq_cst", "seq_cst")
    return builder.extract_value(pair, 1)


def _overflows(operation: str) -> _Emit:
    def emit(context: Any, builder: ir.IRBuilder, a: ir.Value, b: ir.Value) -> ir.Value:
        kind = ir.FunctionType(ir.LiteralStructType([_I64, _I1]), [_I64, _I64])
        function = cgutils.get_or_insert_function(builder.module, kind, f"llvm.{operation}.with.overflow.i64")
        return builder.extract_value(builder.call(function, [a, b]), 1)

    return emit


# An intrinsic, and the values of its arguments of 32 bits: ARM's barrier waits longer than its `yield`, which most
# CPUs pass over.
_ISB: tuple[str, Sequence[int]] = ("llvm.aarch64.isb", [15])
_PAUSES = {"x86_64": ("llvm.x86.sse2.pause", []), "aarch64": _ISB, "arm64": _ISB}


def _pause(context: Any, builder: ir.IRBuilder) -> ir.Value:
    name, arguments = _PAUSES[context.kernel_target.architecture]
    kind = ir.FunctionType(ir.VoidType(), [_I32] * len(arguments))
    builder.call(cgutils.get_or_insert_function(builder.module, kind, name), list(map(_I32, arguments)))
    return _I64(0)


def _call_kernel(
    context: Any, builder: ir.IRBuilder, kernel: ir.Value, thread: ir.Value, args: ir.Value, *tiles: ir.Value
) -> ir.Value:
    kind = ir.FunctionType(_I32, [_WORDS, _WORDS, _I64, _I64])
    function = builder.inttoptr(kernel, kind.as_pointer())
    arguments = [builder.inttoptr(thread, _WORDS), builder.inttoptr(args, _WORDS), *tiles]
    return builder.sext(builder.call(function, arguments), _I64)


def _call_parallel(
    context: Any,
    builder: ir.IRBuilder,
    function: ir.Value,
    state: ir.Value,
    count: ir.Value,
    task: ir.Value,
    argument: ir.Value,
) -> ir.Value:
    pointer = ir.IntType(8).as_pointer()
    kind = ir.FunctionType(ir.VoidType(), [pointer, _I32, pointer, pointer])
    pointers = [builder.inttoptr(word, pointer) for word in (state, task, argument)]
    callee = builder.inttoptr(function, kind.as_pointer())
    builder.call(callee, [pointers[0], builder.trunc(count, _I32), *pointers[1:]])
    return _I64(0)


def _call_variadic(
    context: Any, builder: ir.IRBuilder, function: ir.Value, number: ir.Value, *arguments: ir.Value
) -> ir.Value:
    kind = ir.FunctionType(_I64, [_I64], var_arg=True)
    return builder.call(builder.inttoptr(function, kind.as_pointer()), [number, *arguments])


def _call_words(context: Any, builder: ir.IRBuilder, function: ir.Value, *arguments: ir.Value) -> ir.Value:
    kind = ir.FunctionType(_I64, [_I64] * len(arguments))
    return builder.call(builder.inttoptr(function, kind.as_pointer()), arguments)


def _python_peek(base: int, index: int) -> int:
    return ctypes.c_int64.from_address(base + 8 * index).value


def _python_poke(base: int, index: int, value: int) -> int:
    ctypes.c_int64.from_address(base + 8 * index).value = value
    return value


def _python_add(base: int, index: int, value: int) -> int:
    old = _python_peek(base, index)
    _python_poke(base, index, old + value)
    return old


def _python_compare_swap(base: int, index: int, old: int, new: int) -> bool:
    equal = _python_peek(base, index) == old
    if equal:
        _python_poke(base, index, new)
    return equal


def _python_call_kernel(kernel: int, thread: int, args: int, begin: int, end: int) -> int:
    kind = ctypes.CFUNCTYPE(ctypes.c_int32, *[ctypes.c_int64] * 4)
    return int(kind(kernel)(thread, args, begin, end))


def _python_call_parallel(function: int, state: int, count: int, task: int, argument: int) -> int:
    kind = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_int32, ctypes.c_void_p, ctypes.c_void_p)
    kind(function)(state, count, task, argument)
    return 0


def _python_call_variadic(function: int, *arguments: int) -> int:
    return int(ctypes.CFUNCTYPE(ctypes.c_int64, *[ctypes.c_int64] * 7)(function)(*arguments))


def _python_call_words(function: int, *arguments: int) -> int:
    return int(ctypes.CFUNCTYPE(ctypes.c_int64, *[ctypes.c_int64] * 4)(function)(*arguments))


def _python_call_function(function: int, argument: int) -> int:
    return int(ctypes.PYFUNCTYPE(ctypes.c_int64, ctypes.c_int64)(function)(argument))


def _leaves_int64(value: int) -> bool:
    return not _INT64_MIN <= value <= _INT64_MAX


# Word `index` of the table at address `base`; poke(base, index, value).
peek = _intrinsic("peek", 2, _peek, _python_peek)
poke = _intrinsic("poke", 3, _poke, _python_poke)

# The signed integer at a byte address.
peek_int32 = _intrinsic("peek_int32", 1, _peek_narrow(32), lambda a: ctypes.c_int32.from_address(a).value)
peek_int16 = _intrinsic("peek_int16", 1, _peek_narrow(16), lambda a: ctypes.c_int16.from_address(a).value)
peek_int8 = _intrinsic("peek_int8", 1, _peek_narrow(8), lambda a: ctypes.c_int8.from_address(a).value)

# The same words, shared between threads: "ordered" is sequentially consistent.
load_acquire = _intrinsic("load_acquire", 2, _atomic_load("acquire"), _python_peek)
load_ordered = _intrinsic("load_ordered", 2, _atomic_load("seq_cst"), _python_peek)
store_release = _intrinsic("store_release", 3, _atomic_store("release"), _python_poke)
store_ordered = _intrinsic("store_ordered", 3, _atomic_store("seq_cst"), _python_poke)
# add_ordered(base, index, value) is the value before; compare_swap(base, index, old, new) whether it was
# `old`.
add_ordered = _intrinsic("add_ordered", 3, _atomic_add, _python_add)
compare_swap = _intrinsic("compare_swap", 4, _compare_swap, _python_compare_swap, types.boolean)

# Does a + b (a - b, a * b) leave int64?
add_overflows = _intrinsic("add_overflows", 2, _overflows("sadd"), lambda a, b: _leaves_int64(a + b), types.boolean)
sub_overflows = _intrinsic("sub_overflows", 2, _overflows("ssub"), lambda a, b: _leaves_int64(a - b), types.boolean)
mul_overflows = _intrinsic("mul_overflows", 2, _overflows("smul"), lambda a, b: _leaves_int64(a * b), types.boolean)

# One turn of a spin loop's wait.
pause = _intrinsic("pause", 0, _pause, lambda: 0)

# call_kernel(kernel, ctx, args, begin, end), by the kernel ABI.
call_kernel = _intrinsic("call_kernel", 5, _call_kernel, _python_call_kernel)
# call_parallel(function, state, count, task, argument): a C function that lends threads, as `c_header` says.
call_parallel = _intrinsic("call_parallel", 5, _call_parallel, _python_call_parallel)
# call_function(function, word): C's `long function(long word)`; its result is of no meaning where it returns nothing.
call_function = _intrinsic("call_function", 2, _call_words, _python_call_function)
# call_variadic(function, number, a, b, c, d, e, f): C's `long function(long number, ...)`.
call_variadic = _intrinsic("call_variadic", 8, _call_variadic, _python_call_variadic)
# call_words(function, a, b, c, d): C's function of up to four words, by the system's calling convention.
call_words = _intrinsic("call_words", 5, _call_words, _python_call_words)

# What kernels use whose tiles work together.
SHARING_INTRINSICS: dict[str, Intrinsic] = {
    function.name: function for function in (load_acquire, add_ordered, compare_swap, pause)
}
