"""Routines: native functions that kernels share, such as register tiles.

A kernel only calls a routine. Its code is an object of its own, which is compiled once for all kernels and models and
linked beside them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from llvmlite import ir

from onnxsmith_compiler.codegen.kernel_function import Intrinsic, Routine
from onnxsmith_compiler.codegen.storage import storage_type
from onnxsmith_compiler.codegen.target import Target
from onnxsmith_compiler.ir import dtype as dtypes

_I64 = ir.IntType(64)


def routine(
    name: str,
    arguments: Sequence[str],
    build: Callable[[ir.Function, Target], None],
    reference: Callable[..., None],
) -> Intrinsic:
    """The intrinsic that calls the routine `name`; see Routine. `reference` does the same in plain Python."""
    return _call_of(Routine(name, tuple(arguments), build), reference)


def printed_routine(name: str, arguments: Sequence[str], text: str) -> Intrinsic:
    """The intrinsic that calls the routine `name`, which `text` defines; see Routine."""

    def reference(*given: Any) -> None:
        from onnxsmith_compiler.codegen.namespace import define_kernel  # here: it has this routine in it

        define_kernel(text)(*given)

    return _call_of(Routine(name, tuple(arguments), text=text), reference)


def _call_of(made: Routine, reference: Callable[..., None]) -> Intrinsic:
    def definition(context: Any, *kinds: Any) -> Any:
        from numba.core import types  # here: who prints a call of a routine has no need of numba

        from onnxsmith_compiler.codegen.pointer_types import named_type

        expected = tuple(map(named_type, made.arguments))
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

    return Intrinsic(made.name, definition, reference, routine=made)


def declare(module: ir.Module, routine: Routine) -> ir.Function:
    """The function of `routine` in `module`, without a body."""
    kinds = [_llvm_type(argument) for argument in routine.arguments]
    function = ir.Function(module, ir.FunctionType(ir.VoidType(), kinds), routine.symbol)
    function.attributes.add("nounwind")
    return function


def routine_module(routine: Routine, target: Target) -> ir.Module:
    """The module that defines `routine`, which is built."""
    assert routine.build is not None
    module = ir.Module(routine.name)
    function = declare(module, routine)
    function.attributes.add("noinline")
    routine.build(function, target)
    return module


def _llvm_type(name: str) -> ir.Type:
    """The LLVM type of a routine's argument: "int64", or a pointer, "float32*"."""
    return storage_type(dtypes.BY_NAME[name[:-1]]).as_pointer() if name.endswith("*") else _I64
