"""A program as the int64 tables that the native core reads, and the form of each plan's own tables."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np

from onnxsmith import native_layout as abi
from onnxsmith.artifact import Argument, Binding, Place, Program
from onnxsmith.values import numpy_dtype

Words: TypeAlias = np.ndarray[Any, np.dtype[np.int64]]

_PROBE_DTYPES = {
    "bool": 1, "int8": -1, "int16": -2, "int32": -4, "int64": -8, "uint8": 1, "uint16": 2, "uint32": 4,
    "uint64": 8,
}  # fmt: skip


def words(rows: Sequence[Sequence[int]]) -> Words:
    """The rows one after the other, as int64."""
    return np.array([word for row in rows for word in row], np.int64)


@dataclass(frozen=True)
class SegmentTables:
    """One segment's constant tables (records of `native_layout`) and what they hold of each."""

    first_step: int
    step_count: int
    argument_count: int
    patch_count: int
    instructions: Words
    buffers: Words
    steps: Words
    arguments: Words


def segment_tables(program: Program, number: int, kernel_addresses: Sequence[int]) -> SegmentTables:
    """The tables of segment `number`; kernel_addresses[i] is where kernel i of the program is loaded."""
    segment = program.segments[number]
    arguments: list[Argument] = []
    steps = []
    for step in segment.steps:
        steps.append(
            (
                kernel_addresses[step.kernel],
                len(arguments),
                len(step.arguments),
                step.tiles,
                step.cost,
                step.scratch,
            )
        )
        arguments += step.arguments
    return SegmentTables(
        first_step=sum(len(earlier.steps) for earlier in program.segments[:number]),
        step_count=len(steps),
        argument_count=len(arguments),
        patch_count=sum(argument.place in (Place.INPUT, Place.OUTPUT) for argument in arguments),
        instructions=words([(i.op, i.dst, i.a, i.b) for i in segment.instructions]),
        buffers=words(
            [(i, b.size, b.first, b.last) for i, b in enumerate(program.buffers) if b.segment == number]
        ),
        steps=words(steps),
        arguments=words([(a.place, a.index, -1 if a.offset is None else a.offset) for a in arguments]),
    )


@dataclass(frozen=True)
class PlanForm:
    """Where a plan's tables lie in its block of words: offsets in words from its start.

    `template` is that block with everything in place that is the same for all plans, and `addresses` are the
    indices of those words that hold an offset in words and become an address in a real block.
    """

    template: Words
    addresses: Words
    runs: tuple[int, ...]
    slots: int
    buffers: int
    io: int
    dims: int
    probes: int
    dims_slots: Words
    dims_ranges: tuple[tuple[int, int], ...]


class _Block:
    """Lays tables out one after the other."""

    def __init__(self) -> None:
        self.size = 0
        self.addresses: list[tuple[int, int]] = []
        self.values: list[tuple[int, int]] = []

    def reserve(self, count: int, alignment: int = 1) -> int:
        start = -(-self.size // alignment) * alignment
        self.size = start + count
        return start

    def point(self, word: int, target: int) -> None:
        """Word `word` holds the address of word `target`."""
        self.addresses.append((word, target))

    def set(self, word: int, value: int) -> None:
        self.values.append((word, value))


def probe_size(dtype: str) -> int:
    """Bytes of an integer of that dtype name, negative where it is signed. TypeError for any other dtype."""
    if dtype not in _PROBE_DTYPES:
        raise TypeError(f"a size is read from a tensor of integers, not of {dtype}")
    return _PROBE_DTYPES[dtype]


def plan_form(
    program: Program, segments: Sequence[SegmentTables], threads: int, pool: int, weights: int
) -> PlanForm:
    """The form of a program's plans, for up to `threads` threads; `pool` and `weights` are addresses."""
    block = _Block()
    tensors = (*program.inputs, *program.outputs)
    runs = tuple(block.reserve(abi.RUN_WORDS, 8) for _ in segments)
    slots = block.reserve(len(program.slots))
    buffers = block.reserve(len(program.buffers))
    io = block.reserve(len(tensors))
    checks = block.reserve(len(tensors) * abi.CHECK_WORDS)
    dims = block.reserve(sum(len(tensor.dims) for tensor in tensors))
    bindings = program.segments[0].bindings if program.segments else ()
    probes = block.reserve(len(bindings) * abi.PROBE_WORDS)
    work = block.reserve(2 * max((len(s.buffers) // abi.BUFFER_WORDS for s in segments), default=0))
    contexts = block.reserve(threads * abi.CONTEXT_WORDS, 16)
    for slot, value in enumerate(program.slots):
        block.set(slots + slot, value)

    dims_ranges = []
    dims_slots: list[int] = []
    for number, tensor in enumerate(tensors):
        record = checks + number * abi.CHECK_WORDS
        flags = abi.ARRAY_CONTIGUOUS | abi.ARRAY_ALIGNED
        block.set(record + abi.CHECK_DESCR, id(numpy_dtype(tensor.dtype)))
        block.set(record + abi.CHECK_RANK, len(tensor.dims))
        block.set(
            record + abi.CHECK_FLAGS, flags | (abi.ARRAY_WRITEABLE if number >= len(program.inputs) else 0)
        )
        block.point(record + abi.CHECK_DIMS, dims + len(dims_slots))
        dims_ranges.append((len(dims_slots), len(dims_slots) + len(tensor.dims)))
        dims_slots += tensor.dims
    for number, binding in enumerate(bindings):
        _set_probe(block, probes + number * abi.PROBE_WORDS, binding)

    for run, tables in zip(runs, segments, strict=True):
        steps = block.reserve(tables.step_count * abi.STEP_WORDS, 8)
        arguments = block.reserve(tables.argument_count)
        patches = block.reserve(tables.patch_count * abi.PATCH_WORDS)
        for field, target in (
            (abi.RUN_STEPS, steps),
            (abi.RUN_PATCHES, patches),
            (abi.RUN_IO, io),
            (abi.RUN_CHECKS, checks),
            (abi.RUN_PROBES, probes),
            (abi.RUN_CONTEXTS, contexts),
            (abi.RUN_SLOTS, slots),
            (abi.RUN_BUFFERS, buffers),
            (abi.RUN_ARGUMENTS, arguments),
            (abi.RUN_WORK, work),
        ):
            block.point(run + field, target)
        for field, value in (
            (abi.RUN_STEP_COUNT, tables.step_count),
            (abi.RUN_FIRST_STEP, tables.first_step),
            (abi.RUN_INPUT_COUNT, len(program.inputs)),
            (abi.RUN_OUTPUT_COUNT, len(program.outputs)),
            (abi.RUN_PROBE_COUNT, len(bindings)),
            (abi.RUN_THREADS, threads),
            (abi.RUN_POOL, pool),
            (abi.RUN_WEIGHTS, weights),
            (abi.RUN_INSTRUCTIONS, tables.instructions.ctypes.data),
            (abi.RUN_INSTRUCTION_COUNT, len(tables.instructions) // abi.INSTRUCTION_WORDS),
            (abi.RUN_BUFFER_SPECS, tables.buffers.ctypes.data),
            (abi.RUN_BUFFER_COUNT, len(tables.buffers) // abi.BUFFER_WORDS),
            (abi.RUN_STEP_SPECS, tables.steps.ctypes.data),
            (abi.RUN_ARGUMENT_SPECS, tables.arguments.ctypes.data),
        ):
            block.set(run + field, value)

    template = np.zeros(block.size, np.int64)
    for word, value in (*block.values, *block.addresses):
        template[word] = value
    return PlanForm(
        template=template,
        addresses=np.array([word for word, _ in block.addresses], np.intp),
        runs=runs,
        slots=slots,
        buffers=buffers,
        io=io,
        dims=dims,
        probes=probes,
        dims_slots=np.array(dims_slots, np.intp),
        dims_ranges=tuple(dims_ranges),
    )


def _set_probe(block: _Block, record: int, binding: Binding) -> None:
    if binding.source.place is not Place.INPUT or binding.source.offset is not None:
        raise ValueError("before the first step, a size can be read from a model input alone")
    size = probe_size(binding.dtype)
    block.set(record + abi.PROBE_IO, binding.source.index)
    block.set(record + abi.PROBE_BYTES, binding.element * abs(size))
    block.set(record + abi.PROBE_SIZE, size)
