"""Prints the kernel that begins a recurrent layer: it sets the states, checks the lengths and resets the counters."""

from __future__ import annotations

from onnxsmith_compiler.codegen.contraction_source import indent, kernel_source, sizes
from onnxsmith_compiler.codegen.source import KernelSource, Parameter


def start_source(dtype: str, *, has_lengths: bool, states: int) -> KernelSource:
    """last = first for every state, zero for a sequence of length 0.

    Fault 3: a length that is negative or above the number of steps.

    Parameters: lengths (if there are any), then for each of `states` states first and last; counters; steps, batch,
    hidden, directions, counter_count; for each state the strides of first (direction, sequence); those of last.
    """
    names = ["h", "c"][:states]
    pointers = [Parameter("lengths", "int32*", noalias=True)] if has_lengths else []
    for name in names:
        pointers += [Parameter(f"{end}_{name}", f"{dtype}*", noalias=True) for end in ("first", "last")]
    pointers.append(Parameter("counters", "int64*", noalias=True))
    strides = [f"first_{name}_{axis}" for name in names for axis in ("direction", "row")]
    counts = ("steps", "batch", "hidden", "directions", "counter_count")
    body = [
        "for number in range(counter_count):",
        "    store(counters, number, 0)",
        *(_check_lengths() if has_lengths else []),
        "for direction in range(directions):",
        "    for row in range(batch):",
        "        place = direction * last_direction + row * last_row",
        *(line for name in names for line in indent(_copy(name, dtype, has_lengths), 2)),
    ]
    return kernel_source("recurrent_start", (*pointers, *sizes(*counts, *strides, "last_direction", "last_row")), body)


def _check_lengths() -> list[str]:
    return [
        "for row in range(batch):",
        "    length = int64(load(lengths, row))",
        "    if length < 0 or length > steps:",
        "        store(ctx, 3, length)",
        "        store(ctx, 4, steps)",
        "        return 3",
    ]


def _copy(name: str, dtype: str, has_lengths: bool) -> list[str]:
    element = f"load(first_{name}, origin + j)"
    if has_lengths:
        element = f"select(load(lengths, row) == 0, {dtype}(0.0), {element})"
    return [
        f"origin = direction * first_{name}_direction + row * first_{name}_row",
        "for j in range(hidden):",
        f"    store(last_{name}, place + j, {element})",
    ]
