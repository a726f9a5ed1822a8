"""A program as the constant table that the C functions of a compiled model read (`c_layout`)."""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence

import onnxsmith.native_layout as abi
from onnxsmith.artifact import weight_header
from onnxsmith.program import Binding, Place, Program, Segment, Tensor, outputs_of_segment
from onnxsmith.tables import SegmentTables, Words, probe_size, segment_tables
from onnxsmith.values import numpy_dtype, onnx_code
from onnxsmith_compiler.codegen import c_layout as c
from onnxsmith_compiler.codegen.cpu_id import wanted_bits, wanted_states
from onnxsmith_compiler.codegen.target import Target

_LINE = abi.ALIGNMENT // abi.WORD
_NOWHERE = "the model"
# More turns than any wait takes: lent threads never sleep.
_WITHOUT_END = (1 << 63) - 1


def caller_symbols(program: Program) -> list[int]:
    """The symbols that are known before the first step, whose sizes the caller chooses, as slots."""
    read = [binding.slot for binding in program.segments[0].bindings]
    return [slot for slot, source in enumerate(program.input_symbols) if source is not None or slot in read]


def known_dimension(program: Program, slot: int) -> int:
    """What is known of a dimension without a run: its size, or -1 - symbol of the caller's, or COMPUTED."""
    symbols = caller_symbols(program)
    if slot in symbols:
        return -1 - symbols.index(slot)
    computed = {instruction.dst for segment in program.segments for instruction in segment.instructions}
    return c.COMPUTED if slot < len(program.symbols) or slot in computed else program.slots[slot]


def program_table(program: Program, target: Target) -> bytes:
    """The table of a program that can be run from C, with kernels for `target`. Kernels are numbers in it."""
    table = _Table()
    tables = [segment_tables(program, number, range(len(program.kernels))) for number in range(len(program.segments))]
    context = _Context(program, tables)
    symbols = [(table.text(program.symbols[slot]), slot) for slot in caller_symbols(program)]
    table.set_list(c.PROGRAM_SYMBOLS, c.PROGRAM_SYMBOL_COUNT, symbols)
    _add_tensors(table, program)
    _add_segments(table, context, program)
    _add_first_contents(table, context, program, tables)
    header = weight_header(program.weight_bytes)
    table.words[c.PROGRAM_WEIGHT_BYTES] = program.weight_bytes
    table.words[c.PROGRAM_HEADER], table.words[c.PROGRAM_HEADER_BYTES] = table.add(header), len(header)
    steps = [step for segment in program.segments for step in segment.steps]
    table.words[c.PROGRAM_NODES] = table.add_words([table.text(", ".join(step.nodes) or step.label) for step in steps])
    table.set_list(c.PROGRAM_TEXTS, c.PROGRAM_TEXT_COUNT, [(code, table.text(text)) for code, _, text in c.RESULTS])
    table.words[c.PROGRAM_NO_TEXT] = table.text("no such code")
    table.set_list(c.PROGRAM_CPU, c.PROGRAM_CPU_COUNT, wanted_bits(target))
    table.words[c.PROGRAM_CPU_STATES] = wanted_states(target)
    table.words[c.PROGRAM_CONTEXT_WORDS] = context.size
    return table.content()


class _Table:
    """The table in the making: its first words, and what they refer to."""

    def __init__(self) -> None:
        self.words = [0] * c.PROGRAM_WORDS
        self._rest = bytearray()
        self._texts: dict[str, int] = {}

    def add(self, data: bytes) -> int:
        """Its place, which is a multiple of 8."""
        place = c.PROGRAM_WORDS * abi.WORD + len(self._rest)
        self._rest += data + bytes(-len(data) % abi.WORD)
        return place

    def add_words(self, values: Sequence[int] | Words) -> int:
        return self.add(struct.pack(f"<{len(values)}q", *values))

    def add_rows(self, rows: Sequence[Sequence[int]]) -> tuple[int, int]:
        """The place of the rows one after the other, and their number."""
        return self.add_words([value for row in rows for value in row]), len(rows)

    def text(self, text: str) -> int:
        if text not in self._texts:
            self._texts[text] = self.add(text.encode() + b"\0")
        return self._texts[text]

    def set_list(self, place: int, count: int, rows: Sequence[Sequence[int]]) -> None:
        """Set the words `place` and `count` to a list and the number of its rows."""
        self.words[place], self.words[count] = self.add_rows(rows)

    def set_pairs(self, place: int, count: int, pairs: Mapping[int, int]) -> None:
        self.set_list(place, count, sorted(pairs.items()))

    def content(self) -> bytes:
        return struct.pack(f"<{len(self.words)}q", *self.words) + bytes(self._rest)


class _Context:
    """Where a context's tables lie: words from its start. What each thread has comes after them."""

    def __init__(self, program: Program, tables: Sequence[SegmentTables]) -> None:
        self.size = c.CONTEXT_RUN
        self.runs = [self._reserve(abi.RUN_WORDS) for _ in tables]
        tensors = len(program.inputs) + len(program.outputs)
        self.bytes = self._reserve(tensors)
        self.slots = self._reserve(len(program.slots))
        self.buffers = self._reserve(len(program.buffers))
        self.io = self._reserve(tensors)
        self.probes = self._reserve(len(program.segments[0].bindings) * abi.PROBE_WORDS)
        self.work = self._reserve(2 * max(segment.buffer_count for segment in tables))
        self.steps = [self._reserve(segment.step_count * abi.STEP_WORDS) for segment in tables]
        self.arguments = [self._reserve(segment.argument_count) for segment in tables]
        self.patches = [self._reserve(segment.patch_count * abi.PATCH_WORDS) for segment in tables]
        self.kernels = self._reserve(len(program.kernels))
        self._reserve(0)

    def _reserve(self, count: int) -> int:
        start = -(-self.size // _LINE) * _LINE
        self.size = start + count
        return start


def _add_tensors(table: _Table, program: Program) -> None:
    def record(tensor: Tensor, default: int) -> Sequence[int]:
        dtype = numpy_dtype(tensor.dtype)
        dims = [known_dimension(program, slot) for slot in tensor.dims]
        places = (table.add_words(tensor.dims), table.add_words(dims))
        return (table.text(tensor.name), onnx_code(dtype), dtype.itemsize, len(tensor.dims), *places, default)

    inputs = [record(tensor, program.overridable.get(tensor.name, -1)) for tensor in program.inputs]
    outputs = [record(tensor, -1) for tensor in program.outputs]
    table.set_list(c.PROGRAM_TENSORS, c.PROGRAM_TENSOR_COUNT, [*inputs, *outputs])


def _add_segments(table: _Table, context: _Context, program: Program) -> None:
    def record(number: int, segment: Segment, outputs: Sequence[int]) -> Sequence[int]:
        bindings = [_binding(program, binding) for binding in segment.bindings] if number else []
        checks = [
            (check.left, check.right, check.relation, table.text(check.origin or _NOWHERE)) for check in segment.checks
        ]
        inputs = [] if number else range(len(program.inputs))
        tensors = [*inputs, *(len(program.inputs) + output for output in outputs)]
        rows = (table.add_rows(bindings), table.add_rows(checks), table.add_rows([[tensor] for tensor in tensors]))
        return (context.runs[number], *rows[0], *rows[1], *rows[2])

    known = outputs_of_segment(program)
    records = [record(number, segment, known[number]) for number, segment in enumerate(program.segments)]
    table.set_list(c.PROGRAM_SEGMENTS, c.PROGRAM_SEGMENT_COUNT, records)


def _binding(program: Program, binding: Binding) -> Sequence[int]:
    """The record of a size that is read between two segments."""
    place, index, offset = binding.source
    size = probe_size(binding.dtype)
    is_buffer = place is Place.BUFFER
    tensor = index + (len(program.inputs) if place is Place.OUTPUT else 0)
    room = program.buffers[index].size if is_buffer else -1
    before = -1 if offset is None else offset
    source = (index, -1) if is_buffer else (-1, tensor)
    return (binding.slot, *source, before, binding.element * abs(size), size, room)


def _add_first_contents(table: _Table, context: _Context, program: Program, tables: Sequence[SegmentTables]) -> None:
    """What a context holds before sizes are known."""
    bindings = program.segments[0].bindings
    table.words[c.PROGRAM_PROBES] = table.add_words([binding.slot for binding in bindings])
    values = {
        c.CONTEXT_POOL + abi.POOL_SPIN: _WITHOUT_END,
        **{context.slots + slot: value for slot, value in enumerate(program.slots) if value},
        **{context.bytes + tensor: -1 for tensor in range(len(program.inputs) + len(program.outputs))},
    }
    for number, binding in enumerate(bindings):
        size = probe_size(binding.dtype)
        record = context.probes + number * abi.PROBE_WORDS
        values[record + abi.PROBE_IO] = binding.source.index
        values[record + abi.PROBE_BYTES] = binding.element * abs(size)
        values[record + abi.PROBE_SIZE] = size
    addresses = {c.CONTEXT_BYTES: context.bytes, c.CONTEXT_KERNELS: context.kernels}
    constants = {c.CONTEXT_WHERE: table.text(_NOWHERE)}
    for number, segment in enumerate(tables):
        run = context.runs[number]
        values |= _run_values(program, run, segment)
        addresses |= _run_addresses(context, number)
        constants |= {
            run + abi.RUN_INSTRUCTIONS: table.add_words(segment.instructions),
            run + abi.RUN_BUFFER_SPECS: table.add_words(segment.buffers),
            run + abi.RUN_STEP_SPECS: table.add_words(segment.steps),
            run + abi.RUN_ARGUMENT_SPECS: table.add_words(segment.arguments),
        }
    table.set_pairs(c.PROGRAM_VALUES, c.PROGRAM_VALUE_COUNT, values)
    table.set_pairs(c.PROGRAM_ADDRESSES, c.PROGRAM_ADDRESS_COUNT, addresses)
    table.set_pairs(c.PROGRAM_CONSTANTS, c.PROGRAM_CONSTANT_COUNT, constants)


def _run_values(program: Program, run: int, tables: SegmentTables) -> dict[int, int]:
    """The numbers in the run block at word `run`."""
    return {
        run + abi.RUN_FIRST_STEP: tables.first_step,
        run + abi.RUN_STEP_COUNT: tables.step_count,
        run + abi.RUN_INSTRUCTION_COUNT: tables.instruction_count,
        run + abi.RUN_BUFFER_COUNT: tables.buffer_count,
        run + abi.RUN_INPUT_COUNT: len(program.inputs),
        run + abi.RUN_OUTPUT_COUNT: len(program.outputs),
        run + abi.RUN_PROBE_COUNT: len(program.segments[0].bindings),
    }


def _run_addresses(context: _Context, segment: int) -> dict[int, int]:
    """The words of the context whose addresses a segment's run block holds."""
    run = context.runs[segment]
    return {
        run + abi.RUN_SLOTS: context.slots,
        run + abi.RUN_BUFFERS: context.buffers,
        run + abi.RUN_IO: context.io,
        run + abi.RUN_PROBES: context.probes,
        run + abi.RUN_WORK: context.work,
        run + abi.RUN_STEPS: context.steps[segment],
        run + abi.RUN_ARGUMENTS: context.arguments[segment],
        run + abi.RUN_PATCHES: context.patches[segment],
        run + abi.RUN_POOL: c.CONTEXT_POOL,
    }
