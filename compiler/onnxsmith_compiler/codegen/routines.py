"""Routines: native functions that kernels share, such as register tiles.

A kernel only calls a routine. Its code is an object of its own, which is compiled once for all kernels and models and
linked beside them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from llvmlite import ir
from numba.core import types

from onnxsmith_compiler.codegen.kernel_function import Intrinsic, Routine
from onnxsmith_compiler.codegen.storage import StoragePointer, named_type, storage_type
from onnxsmith_compiler.codegen.target import Target

_I64 = ir.IntType(64)


def routine(
    name: str,
    arguments: Sequence[str],
    build: Callable[[ir.Function, Target], None],
    reference: Callable[..., None],
) -> Intrinsic:
    """The intrinsic that calls the routine `name`; see Routine. `reference` does the same in plain Python."""
    made = Routine(name, tuple(arguments), build)
    expected = tuple(map(named_type, arguments))

    def definition(context: Any, *kinds: Any) -> Any:
        if len(kinds) != len(expected):
            return None
        for given, wanted in zip(kinds, expected, strict=True):
            if given != wanted and not (wanted is types.int64 and isinstance(given, types.Integer)):
                return None

        def emit(context: Any, builder: ir.IRBuilder, signature: Any, arguments: Any) -> ir.Value:
            context.routines_called[made.name] = made
            builder.call(builder.module.globals.get(made.symbol) or declare(builder.module, made), arguments)
            return context.get_dummy_value()

        return types.void(*expected), emit

    return Intrinsic(name, definition, reference, routine=made)


def declare(module: ir.Module, routine: Routine) -> ir.Function:
    """The function of `routine` in `module`, without a body."""
    kinds = [_llvm_type(named_type(argument)) for argument in routine.arguments]
    function = ir.Function(module, ir.FunctionType(ir.VoidType(), kinds), routine.symbol)
    function.attributes.add("nounwind")
    return function


def routine_module(routine: Routine, target: Target) -> ir.Module:
    """The module that defines `routine`."""
    module = ir.Module(routine.name)
    function = declare(module, routine)
    function.attributes.add("noinline")
    routine.build(function, target)
    return module


def _llvm_type(kind: types.Type) -> ir.Type:
    return storage_type(kind.dtype).as_pointer() if isinstance(kind, StoragePointer) else _I64
