"""Hints that memory is about to be used; they change no result and never fault."""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba.core import types

from onnxsmith_compiler.codegen.kernel_function import Intrinsic
from onnxsmith_compiler.codegen.storage import StoragePointer

_I8 = ir.IntType(8)
_I32 = ir.IntType(32)
L1, L2 = 3, 2
"""How near the memory is to come: LLVM's locality, for the first and the second level of cache."""


def emit_prefetch(builder: ir.IRBuilder, address: ir.Value, locality: int, *, write: bool = False) -> None:
    """Bring the cache line at `address`, an i8*, near; `write`: it will be written."""
    module = builder.module
    name = "llvm.prefetch.p0"
    declared = module.globals.get(name)
    if declared is None:
        kind = ir.FunctionType(ir.VoidType(), [_I8.as_pointer(), _I32, _I32, _I32])
        declared = ir.Function(module, kind, name)
    builder.call(declared, [address, _I32(int(write)), _I32(locality), _I32(1)])


def _hint(name: str, *, write: bool) -> Intrinsic:
    def definition(context: Any, *kinds: Any) -> Any:
        if (
            len(kinds) != 2
            or not isinstance(kinds[0], StoragePointer)
            or not isinstance(kinds[1], types.Integer)
        ):
            return None

        def emit(context: Any, builder: ir.IRBuilder, signature: Any, arguments: Any) -> ir.Value:
            place = builder.bitcast(builder.gep(arguments[0], [arguments[1]]), _I8.as_pointer())
            emit_prefetch(builder, place, L1, write=write)
            return context.get_dummy_value()

        return types.void(kinds[0], types.int64), emit

    return Intrinsic(name, definition, lambda pointer, index: None)


PREFETCHES: dict[str, Intrinsic] = {
    "prefetch": _hint("prefetch", write=False),
    "prefetch_write": _hint("prefetch_write", write=True),
}
