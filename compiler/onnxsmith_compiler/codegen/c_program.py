"""A program as the constant table that the C functions of a compiled model read (`c_layout`)."""

from __future__ import annotations

import struct
from collections.abc import Iterable, Sequence

import onnxsmith.native_layout as abi
from onnxsmith.artifact import weight_header
from onnxsmith.program import Program, Tensor
from onnxsmith.tables import SegmentTables, Words, probe_size, segment_tables
from onnxsmith.values import numpy_dtype, onnx_code
from onnxsmith_compiler.codegen import c_layout as c
from onnxsmith_compiler.codegen.cpu_id import wanted_bits, wanted_states
from onnxsmith_compiler.codegen.target import Target

_LINE = abi.ALIGNMENT // abi.WORD
_NOWHERE = "the model"
# More turns than any wait takes: lent threads never sleep.
_WITHOUT_END = (1 << 63) - 1


def program_table(program: Program, target: Target) -> bytes:
    """The table of a program that can be run from C, with kernels for `target`. Kernels are numbers in it."""
    table = _Table()
    tables = segment_tables(program, 0, range(len(program.kernels)))
    context = _Context(program, tables)
    table.set_list(c.PROGRAM_SYMBOLS, c.PROGRAM_SYMBOL_COUNT, [table.text(name) for name in program.symbols])
    _add_tensors(table, program)
    _add_run(table, context, program, tables)
    rows = [(check.left, check.right, check.relation, table.text(check.origin or _NOWHERE))
            for check in program.segments[0].checks]  # fmt: skip
    table.set_list(c.PROGRAM_CHECKS, c.PROGRAM_CHECK_COUNT, rows)
    header = weight_header(program.weight_bytes)
    table.words[c.PROGRAM_WEIGHT_BYTES] = program.weight_bytes
    table.words[c.PROGRAM_HEADER], table.words[c.PROGRAM_HEADER_BYTES] = table.add(header), len(header)
    steps = program.segments[0].steps
    nodes = [table.text(", ".join(step.nodes) or step.label) for step in steps]
    table.words[c.PROGRAM_NODES] = table.add_words(nodes)
    texts = [(code, table.text(text)) for code, _, text in c.RESULTS]
    table.set_list(c.PROGRAM_TEXTS, c.PROGRAM_TEXT_COUNT, texts)
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

    def add_words(self, values: Sequence[int]) -> int:
        return self.add(struct.pack(f"<{len(values)}q", *values))

    def text(self, text: str) -> int:
        if text not in self._texts:
            self._texts[text] = self.add(text.encode() + b"\0")
        return self._texts[text]

    def set_list(self, place: int, count: int, rows: Sequence[int] | Sequence[Sequence[int]]) -> None:
        """Set the words `place` and `count` to a list and the number of its rows."""
        flat = [value for row in rows for value in (row if isinstance(row, Sequence) else (row,))]
        self.words[place], self.words[count] = self.add_words(flat), len(rows)

    def content(self) -> bytes:
        return struct.pack(f"<{len(self.words)}q", *self.words) + bytes(self._rest)


class _Context:
    """Where a context's tables lie: words from its start."""

    def __init__(self, program: Program, tables: SegmentTables) -> None:
        self.size = c.CONTEXT_TABLES
        tensors = len(program.inputs) + len(program.outputs)
        self.bytes = self._reserve(tensors)
        self.slots = self._reserve(len(program.slots))
        self.buffers = self._reserve(len(program.buffers))
        self.io = self._reserve(tensors)
        self.probes = self._reserve(len(program.segments[0].bindings) * abi.PROBE_WORDS)
        self.work = self._reserve(2 * tables.buffer_count)
        self.steps = self._reserve(tables.step_count * abi.STEP_WORDS)
        self.arguments = self._reserve(tables.argument_count)
        self.patches = self._reserve(tables.patch_count * abi.PATCH_WORDS)
        self.kernels = self._reserve(len(program.kernels))
        self.threads = self._reserve(0)  # the last, for their number is the caller's

    def _reserve(self, count: int) -> int:
        start = -(-self.size // _LINE) * _LINE
        self.size = start + count
        return start


def _add_tensors(table: _Table, program: Program) -> None:
    computed = {instruction.dst for instruction in program.segments[0].instructions}

    def dimension(slot: int) -> int:
        if slot < len(program.symbols):
            return -1 - slot
        return c.COMPUTED if slot in computed else program.slots[slot]

    def record(tensor: Tensor, default: int) -> Sequence[int]:
        dtype = numpy_dtype(tensor.dtype)
        places = (table.add_words(tensor.dims), table.add_words([dimension(slot) for slot in tensor.dims]))
        return (table.text(tensor.name), onnx_code(dtype), dtype.itemsize, len(tensor.dims), *places, default)

    inputs = [record(tensor, program.overridable.get(tensor.name, -1)) for tensor in program.inputs]
    outputs = [record(tensor, -1) for tensor in program.outputs]
    table.set_list(c.PROGRAM_TENSORS, c.PROGRAM_TENSOR_COUNT, [*inputs, *outputs])


def _add_run(table: _Table, context: _Context, program: Program, tables: SegmentTables) -> None:
    """What a context holds before sizes are known."""

    def run(word: int) -> int:
        return c.CONTEXT_RUN + word

    bindings = program.segments[0].bindings
    table.words[c.PROGRAM_PROBES] = table.add_words([binding.slot for binding in bindings])
    values = {
        c.CONTEXT_POOL + abi.POOL_SPIN: _WITHOUT_END,
        run(abi.RUN_STEP_COUNT): tables.step_count,
        run(abi.RUN_INSTRUCTION_COUNT): tables.instruction_count,
        run(abi.RUN_BUFFER_COUNT): tables.buffer_count,
        run(abi.RUN_INPUT_COUNT): len(program.inputs),
        run(abi.RUN_OUTPUT_COUNT): len(program.outputs),
        run(abi.RUN_PROBE_COUNT): len(bindings),
        **{context.slots + slot: value for slot, value in enumerate(program.slots) if value},
    }
    for number, binding in enumerate(bindings):
        size = probe_size(binding.dtype)
        record = context.probes + number * abi.PROBE_WORDS
        values[record + abi.PROBE_IO] = binding.source.index
        values[record + abi.PROBE_BYTES] = binding.element * abs(size)
        values[record + abi.PROBE_SIZE] = size
    addresses = {
        c.CONTEXT_BYTES: context.bytes,
        c.CONTEXT_KERNELS: context.kernels,
        run(abi.RUN_SLOTS): context.slots,
        run(abi.RUN_BUFFERS): context.buffers,
        run(abi.RUN_IO): context.io,
        run(abi.RUN_PROBES): context.probes,
        run(abi.RUN_WORK): context.work,
        run(abi.RUN_STEPS): context.steps,
        run(abi.RUN_ARGUMENTS): context.arguments,
        run(abi.RUN_PATCHES): context.patches,
        run(abi.RUN_CONTEXTS): context.threads,
        run(abi.RUN_POOL): c.CONTEXT_POOL,
    }
    constants = {
        run(abi.RUN_INSTRUCTIONS): table.add_words(_list(tables.instructions)),
        run(abi.RUN_BUFFER_SPECS): table.add_words(_list(tables.buffers)),
        run(abi.RUN_STEP_SPECS): table.add_words(_list(tables.steps)),
        run(abi.RUN_ARGUMENT_SPECS): table.add_words(_list(tables.arguments)),
        c.CONTEXT_WHERE: table.text(_NOWHERE),
    }
    table.set_list(c.PROGRAM_VALUES, c.PROGRAM_VALUE_COUNT, _pairs(values.items()))
    table.set_list(c.PROGRAM_ADDRESSES, c.PROGRAM_ADDRESS_COUNT, _pairs(addresses.items()))
    table.set_list(c.PROGRAM_CONSTANTS, c.PROGRAM_CONSTANT_COUNT, _pairs(constants.items()))


def _list(words: Words) -> list[int]:
    return [int(word) for word in words]


def _pairs(items: Iterable[tuple[int, int]]) -> list[tuple[int, int]]:
    return sorted(items)
