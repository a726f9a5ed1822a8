"""Sizes of a program for given symbols, in plain Python: what the native core computes before a run."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from onnxsmith.program import Opcode, Program

_OPERATIONS: dict[Opcode, Callable[[int, int], int]] = {
    Opcode.ADD: lambda a, b: a + b,
    Opcode.SUB: lambda a, b: a - b,
    Opcode.MUL: lambda a, b: a * b,
    Opcode.FLOORDIV: lambda a, b: a // b,
    Opcode.MOD: lambda a, b: a % b,
    Opcode.MAX: max,
    Opcode.MIN: min,
}


def evaluate(program: Program, symbols: Mapping[str, int]) -> list[int | None]:
    """The slot table for `symbols`; None in every slot that depends on a symbol without a size."""
    slots: list[int | None] = list(program.slots)
    for index, name in enumerate(program.symbols):
        slots[index] = symbols.get(name)
    for segment in program.segments:
        for instruction in segment.instructions:
            a, b = slots[instruction.a], slots[instruction.b]
            divides_by_zero = b == 0 and instruction.op in (Opcode.FLOORDIV, Opcode.MOD)
            known = a is not None and b is not None and not divides_by_zero
            slots[instruction.dst] = _OPERATIONS[instruction.op](a, b) if known else None  # type: ignore[arg-type]
    return slots
