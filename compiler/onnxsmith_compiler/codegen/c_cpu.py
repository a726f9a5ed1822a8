"""Whether the CPU has what the library's kernels need, asked by instructions that every CPU has."""

# Intrinsics and helpers are typed by numba, and are Any to mypy.
# mypy: disable-error-code="no-any-return"

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba.core import types

import onnxsmith.native_layout as abi
from onnxsmith_compiler.codegen import c_layout as c
from onnxsmith_compiler.codegen.kernel_function import helper, intrinsic
from onnxsmith_compiler.codegen.native_intrinsics import peek

_I32 = ir.IntType(32)
_I64 = ir.IntType(64)
_EXTENDED_LEAVES = 0x80000000


def _python_cpu_id(leaf: int, subleaf: int, register: int) -> int:
    raise NotImplementedError("Python does not ask the CPU")


@intrinsic(_python_cpu_id)
def cpu_id(context: Any, leaf: Any, subleaf: Any, register: Any) -> Any:
    """What CPUID leaves in register 0 to 3 (eax, ebx, ecx, edx); 0 on other machines than x86."""

    def emit(context: Any, builder: ir.IRBuilder, signature: Any, arguments: Any) -> ir.Value:
        if context.kernel_target.architecture != "x86_64":
            return _I64(0)
        registers = ir.LiteralStructType([_I32] * 4)
        kind = ir.FunctionType(registers, [_I32, _I32])
        leaves = [builder.trunc(argument, _I32) for argument in arguments[:2]]
        # No optimiser may think that all leaves are the same.
        found = builder.asm(kind, "cpuid", "={eax},={ebx},={ecx},={edx},{eax},{ecx}", leaves, True)
        chosen = builder.extract_value(found, 0)
        for number in range(1, 4):
            is_it = builder.icmp_signed("==", arguments[2], _I64(number))
            chosen = builder.select(is_it, builder.extract_value(found, number), chosen)
        return builder.zext(chosen, _I64)

    return types.int64(types.int64, types.int64, types.int64), emit


@intrinsic(lambda: 0)
def kept_states(context: Any) -> Any:
    """XCR0: which registers the operating system keeps for a thread. CPUID must have said that it can be asked."""

    def emit(context: Any, builder: ir.IRBuilder, signature: Any, arguments: Any) -> ir.Value:
        if context.kernel_target.architecture != "x86_64":
            return _I64(0)
        kind = ir.FunctionType(ir.LiteralStructType([_I32] * 2), [_I32])
        found = builder.asm(kind, "xgetbv", "={eax},={edx},{ecx}", [_I32(0)], True)
        return builder.zext(builder.extract_value(found, 0), _I64)

    return types.int64(), emit


@helper("bool", "int64")
def cpu_fits(program: int) -> bool:
    """Whether CPUID says all that the program wants, and the operating system keeps what the kernels use."""
    for number in range(peek(program, c.PROGRAM_CPU_COUNT)):
        wanted = program + peek(program, c.PROGRAM_CPU) + number * c.CPU_WORDS * abi.WORD
        leaf = peek(wanted, c.CPU_LEAF)
        if cpu_id(leaf & _EXTENDED_LEAVES, 0, 0) < leaf:
            return False
        mask = peek(wanted, c.CPU_MASK)
        if cpu_id(leaf, peek(wanted, c.CPU_SUBLEAF), peek(wanted, c.CPU_REGISTER)) & mask != mask:
            return False
    states = peek(program, c.PROGRAM_CPU_STATES)
    return states == 0 or kept_states() & states == states
