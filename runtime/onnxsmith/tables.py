"""A program as the int64 tables that the native core reads, and the form of each plan's own tables."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeAlias

import numpy as np

from onnxsmith import native_layout as abi
from onnxsmith.artifact import Argument, Binding, Place, Program, Relation
from onnxsmith.record import Record
from onnxsmith.values import numpy_dtype

Words: TypeAlias = np.ndarray[Any, np.dtype[np.int64]]

_LINE = 8  # words of a cache line

_PROBE_DTYPES = {
    "bool": 1, "int8": -1, "int16": -2, "int32": -4, "int64": -8, "uint8": 1, "uint16": 2, "uint32": 4,
    "uint64": 8,
}  # fmt: skip


def _words(rows: Sequence[Sequence[int]]) -> Words:
    """The rows one after the other, as int64."""
    return np.array([word for row in rows for word in row], np.int64)


def probe_size(dtype: str) -> int:
    """Bytes of an integer of that dtype name, negative where it is signed. TypeError for any other dtype."""
    if dtype not in _PROBE_DTYPES:
        raise TypeError(f"a size is read from a tensor of integers, not of {dtype}")
    return _PROBE_DTYPES[dtype]


class SegmentTables(Record):
    """One segment's constant tables (records of `native_layout`), and how many records there are of each."""

    first_step: int
    step_count: int
    argument_count: int
    patch_count: int
    instruction_count: int
    buffer_count: int
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
        kernel = kernel_addresses[step.kernel]
        steps.append((kernel, len(arguments), len(step.arguments), step.tiles, step.cost, step.scratch))
        arguments += step.arguments
    buffers = [(i, b.size, b.first, b.last) for i, b in enumerate(program.buffers) if b.segment == number]
    return SegmentTables(
        first_step=sum(len(earlier.steps) for earlier in program.segments[:number]),
        step_count=len(steps),
        argument_count=len(arguments),
        patch_count=sum(argument.place in (Place.INPUT, Place.OUTPUT) for argument in arguments),
        instruction_count=len(segment.instructions),
        buffer_count=len(buffers),
        instructions=_words([(i.op, i.dst, i.a, i.b) for i in segment.instructions]),
        buffers=_words(buffers),
        steps=_words(steps),
        arguments=_words([(a.place, a.index, -1 if a.offset is None else a.offset) for a in arguments]),
    )


class PlanForm(Record):
    """Where a plan's tables lie in its block of words: offsets in words from its start.

    `template` is that block with everything in place that is the same for all plans, and `addresses` are the
    indices of those words that hold an offset in words and become an address in a real block. `runs` are the
    segments' run blocks, `shapes` the words that hold each tensor's shape, inputs first, and `checks` for each
    segment the two words that a Check compares, and their relation.
    """

    template: Words
    addresses: np.ndarray[Any, np.dtype[np.intp]]
    runs: tuple[int, ...]
    slots: int
    slot_count: int
    buffers: int
    io: int
    dims: int
    probes: int
    shapes: tuple[tuple[int, ...], ...]
    checks: tuple[tuple[tuple[int, int, Relation], ...], ...]


class _Block:
    """A block of words in the making."""

    def __init__(self) -> None:
        self.size = 0
        self.addresses: dict[int, int] = {}
        self.values: dict[int, int] = {}

    def reserve(self, count: int, alignment: int = 1) -> int:
        start = -(-self.size // alignment) * alignment
        self.size = start + count
        return start

    def template(self) -> Words:
        made = np.zeros(self.size, np.int64)
        for word, value in (*self.values.items(), *self.addresses.items()):
            made[word] = value
        return made


def plan_form(program: Program, segments: Sequence[SegmentTables], threads: int, pool: int, weights: int) -> PlanForm:
    """The form of a program's plans, for up to `threads` threads; `pool` and `weights` are addresses."""
    block = _Block()
    tensors = (*program.inputs, *program.outputs)
    bindings = program.segments[0].bindings
    runs = tuple(block.reserve(abi.RUN_WORDS, _LINE) for _ in segments)
    shared = {
        abi.RUN_SLOTS: block.reserve(len(program.slots)),
        abi.RUN_BUFFERS: block.reserve(len(program.buffers)),
        abi.RUN_IO: block.reserve(len(tensors)),
        abi.RUN_CHECKS: block.reserve(len(tensors) * abi.CHECK_WORDS),
        abi.RUN_PROBES: block.reserve(len(bindings) * abi.PROBE_WORDS),
        abi.RUN_WORK: block.reserve(2 * max(tables.buffer_count for tables in segments)),
    }
    dims = block.reserve(sum(len(tensor.dims) for tensor in tensors))
    slots = shared[abi.RUN_SLOTS]
    block.values.update(enumerate(program.slots, slots))
    _set_checks(block, shared[abi.RUN_CHECKS], dims, program)
    for number, binding in enumerate(bindings):
        _set_probe(block, shared[abi.RUN_PROBES] + number * abi.PROBE_WORDS, binding)
    for run, tables in zip(runs, segments, strict=True):
        block.addresses.update((run + word, target) for word, target in shared.items())
        block.values[run + abi.RUN_INPUT_COUNT] = len(program.inputs)
        block.values[run + abi.RUN_OUTPUT_COUNT] = len(program.outputs)
        block.values[run + abi.RUN_PROBE_COUNT] = len(bindings)
        block.values[run + abi.RUN_THREADS] = threads
        block.values[run + abi.RUN_POOL] = pool
        block.values[run + abi.RUN_WEIGHTS] = weights
        # a segment has scratch of its own, and stays bound when another one is bound
        block.addresses[run + abi.RUN_CONTEXTS] = block.reserve(threads * abi.CONTEXT_WORDS, 2 * _LINE)
        _set_segment(block, run, tables)
    return PlanForm(
        template=block.template(),
        addresses=np.array(list(block.addresses), np.intp),
        runs=runs,
        slots=slots,
        slot_count=len(program.slots),
        buffers=shared[abi.RUN_BUFFERS],
        io=shared[abi.RUN_IO],
        dims=dims,
        probes=shared[abi.RUN_PROBES],
        shapes=tuple(tuple(slots + slot for slot in tensor.dims) for tensor in tensors),
        checks=tuple(
            tuple((slots + check.left, slots + check.right, check.relation) for check in segment.checks)
            for segment in program.segments
        ),
    )


def _set_checks(block: _Block, checks: int, dims: int, program: Program) -> None:
    """Check records of all inputs and outputs, and where each finds the shape that it demands."""
    readable = abi.ARRAY_CONTIGUOUS | abi.ARRAY_ALIGNED
    for number, tensor in enumerate((*program.inputs, *program.outputs)):
        is_input = number < len(program.inputs)
        record = checks + number * abi.CHECK_WORDS
        block.values[record + abi.CHECK_DESCR] = id(numpy_dtype(tensor.dtype))
        block.values[record + abi.CHECK_RANK] = len(tensor.dims)
        block.values[record + abi.CHECK_FLAGS] = readable if is_input else readable | abi.ARRAY_WRITEABLE
        block.addresses[record + abi.CHECK_DIMS] = dims
        dims += len(tensor.dims)


def _set_probe(block: _Block, record: int, binding: Binding) -> None:
    size = probe_size(binding.dtype)
    block.values[record + abi.PROBE_IO] = binding.source.index
    block.values[record + abi.PROBE_BYTES] = binding.element * abs(size)
    block.values[record + abi.PROBE_SIZE] = size


def _set_segment(block: _Block, run: int, tables: SegmentTables) -> None:
    """A segment's own tables: constant ones by address, and room for those that binding fills."""
    block.addresses[run + abi.RUN_STEPS] = block.reserve(tables.step_count * abi.STEP_WORDS, _LINE)
    block.addresses[run + abi.RUN_ARGUMENTS] = block.reserve(tables.argument_count)
    block.addresses[run + abi.RUN_PATCHES] = block.reserve(tables.patch_count * abi.PATCH_WORDS)
    block.values[run + abi.RUN_STEP_COUNT] = tables.step_count
    block.values[run + abi.RUN_FIRST_STEP] = tables.first_step
    block.values[run + abi.RUN_INSTRUCTION_COUNT] = tables.instruction_count
    block.values[run + abi.RUN_BUFFER_COUNT] = tables.buffer_count
    block.values[run + abi.RUN_INSTRUCTIONS] = tables.instructions.ctypes.data
    block.values[run + abi.RUN_BUFFER_SPECS] = tables.buffers.ctypes.data
    block.values[run + abi.RUN_STEP_SPECS] = tables.steps.ctypes.data
    block.values[run + abi.RUN_ARGUMENT_SPECS] = tables.arguments.ctypes.data
