"""Hints that memory is about to be used; they change no result and never fault."""

from __future__ import annotations

from llvmlite import ir

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
