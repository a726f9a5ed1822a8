"""The exported functions around numba's own, and the attributes of all functions.

numba's take two more parameters, first: where to write the result, and an exception. They return a status,
which is 0 if no exception was raised.
"""

from __future__ import annotations

from collections.abc import Sequence

from llvmlite import ir

from onnxsmith_compiler.codegen.target import Target

_I32 = ir.IntType(32)
_I64 = ir.IntType(64)
_FAULT_INVALID = 3


def _call_inner(builder: ir.IRBuilder, inner: ir.Function, arguments: Sequence[ir.Value]) -> tuple[ir.Value, ir.Value]:
    """(numba's status code, the returned value) of a call that is always inlined."""
    returned = builder.alloca(inner.args[0].type.pointee)
    exception = builder.alloca(inner.args[1].type.pointee)
    inner.attributes.add("alwaysinline")
    status = builder.call(inner, [returned, exception, *arguments])
    return status, returned


def wrap_kernel(symbol: str, arguments: Sequence[str], module: ir.Module, inner: ir.Function) -> None:
    """Add `int32 symbol(int64* ctx, int64* args, int64 begin, int64 end)`.

    It passes `inner` ctx, what `args` holds, begin and end; `arguments` are the type names of all of these.
    """
    words = _I64.as_pointer()
    wrapper = ir.Function(module, ir.FunctionType(_I32, [words, words, _I64, _I64]), symbol)
    ctx, table, begin, end = wrapper.args
    builder = ir.IRBuilder(wrapper.append_basic_block("entry"))
    values = [ctx]
    for index, kind in enumerate(arguments[1:-2]):
        word = builder.load(builder.gep(table, [_I64(index)], inbounds=True))
        values.append(builder.inttoptr(word, inner.args[index + 3].type) if kind.endswith("*") else word)
    status, returned = _call_inner(builder, inner, [*values, begin, end])
    failed = builder.icmp_unsigned("!=", status, ir.Constant(status.type, 0))
    builder.ret(builder.select(failed, _I32(_FAULT_INVALID), builder.load(returned)))


def wrap_native(
    symbol: str, returns: bool, module: ir.Module, inner: ir.Function, *, always_inline: bool = False
) -> None:
    """Add `symbol`, which takes `inner`'s arguments and returns what it returns, or nothing."""
    result = inner.args[0].type.pointee if returns else ir.VoidType()
    wrapper = ir.Function(module, ir.FunctionType(result, [value.type for value in inner.args[2:]]), symbol)
    if always_inline:
        wrapper.attributes.add("alwaysinline")
    builder = ir.IRBuilder(wrapper.append_basic_block("entry"))
    _, returned = _call_inner(builder, inner, wrapper.args)
    if returns:
        builder.ret(builder.load(returned))
    else:
        builder.ret_void()


def set_attributes(module: ir.Module, target: Target) -> None:
    """Say of every function in `module` what holds for all code of kernels."""
    for function in module.functions:
        if function.is_declaration:
            continue
        function.attributes.add("nounwind")
        # llvmlite checks names against a list that lacks these, so go around its `add`.
        for attribute in ('"no-builtins"', f'"prefer-vector-width"="{target.vector_bits}"'):
            set.add(function.attributes, attribute)
