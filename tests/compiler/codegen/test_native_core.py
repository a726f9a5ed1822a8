"""The native core on tables made by hand: the same functions compiled, and as plain Python."""

import ctypes
import functools
import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from kernel_harness import load

from onnxsmith import native_layout as abi
from onnxsmith.artifact import Instruction, Opcode
from onnxsmith_compiler.codegen.elf_linker import link_shared_library
from onnxsmith_compiler.codegen.native_core import ENTRY_POINTS, compile_core
from onnxsmith_compiler.codegen.target import Target

WAYS = ["compiled", "plain Python"]


@functools.cache
def library() -> ctypes.CDLL:
    return load(link_shared_library({"core": compile_core(Target.host())}, list(ENTRY_POINTS), "core.so"))


def call(way: str, symbol: str, *arguments: int) -> int:
    if way == "plain Python":
        return int(ENTRY_POINTS[symbol](*arguments))
    function = library()[symbol]
    function.restype = ctypes.c_int64
    return function(*map(ctypes.c_void_p, arguments))


def table(*words: int) -> np.ndarray:
    return np.array(words, np.int64)


OPERATIONS = {
    Opcode.ADD: lambda a, b: a + b,
    Opcode.SUB: lambda a, b: a - b,
    Opcode.MUL: lambda a, b: a * b,
    Opcode.FLOORDIV: lambda a, b: a // b,
    Opcode.MOD: lambda a, b: a % b,
    Opcode.MAX: max,
    Opcode.MIN: min,
}


class Segment:
    """A run block with its tables."""

    def __init__(self, slots, instructions=(), buffers=(), steps=(), threads=1) -> None:
        self.slots = table(*slots)
        self.instructions = table(*itertools.chain(*((i.op, i.dst, i.a, i.b) for i in instructions)))
        self.buffers = table(*itertools.chain(*buffers))
        self.steps = table(*itertools.chain(*steps))
        self.addresses = np.full(len(buffers), -1, np.int64)
        self.work = np.zeros(2 * len(buffers) + 1, np.int64)
        self.contexts = np.zeros(threads * abi.CONTEXT_WORDS, np.int64)
        self.records = np.zeros(len(steps) * abi.STEP_WORDS + 1, np.int64)
        self.run = np.zeros(abi.RUN_WORDS, np.int64)
        for word, value in {
            abi.RUN_SLOTS: self.slots.ctypes.data,
            abi.RUN_INSTRUCTIONS: self.instructions.ctypes.data,
            abi.RUN_INSTRUCTION_COUNT: len(instructions),
            abi.RUN_BUFFERS: self.addresses.ctypes.data,
            abi.RUN_BUFFER_SPECS: self.buffers.ctypes.data,
            abi.RUN_BUFFER_COUNT: len(buffers),
            abi.RUN_WORK: self.work.ctypes.data,
            abi.RUN_STEP_SPECS: self.steps.ctypes.data,
            abi.RUN_STEP_COUNT: len(steps),
            abi.RUN_STEPS: self.records.ctypes.data,
            abi.RUN_CONTEXTS: self.contexts.ctypes.data,
            abi.RUN_THREADS: threads,
        }.items():
            self.run[word] = value

    @property
    def address(self) -> int:
        return self.run.ctypes.data

    def step(self, number: int) -> np.ndarray:
        return self.records[number * abi.STEP_WORDS :][: abi.STEP_WORDS]


def test_the_version_is_the_runtimes() -> None:
    assert call("compiled", "os_core_version") == abi.CORE_VERSION


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("op", Opcode)
def test_instructions(way: str, op: Opcode) -> None:
    values = [-7, -2, -1, 1, 2, 3, 1 << 40, -(1 << 31)]
    pairs = list(itertools.product(range(len(values)), repeat=2))
    pairs = [(a, b) for a, b in pairs if abs(OPERATIONS[op](values[a], values[b])) < 1 << 63]
    first = len(values)
    instructions = [Instruction(op, first + i, a, b) for i, (a, b) in enumerate(pairs)]
    segment = Segment([*values, *[0] * len(pairs)], instructions)
    assert call(way, "os_plan", segment.address) == abi.PLANNED
    assert segment.slots[first:].tolist() == [OPERATIONS[op](values[a], values[b]) for a, b in pairs]


LEAST, MOST = -(1 << 63), (1 << 63) - 1


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(
    ("op", "a", "b", "status"),
    [
        (Opcode.ADD, MOST, 1, abi.OVERFLOWING_INSTRUCTION),
        (Opcode.ADD, LEAST, -1, abi.OVERFLOWING_INSTRUCTION),
        (Opcode.SUB, LEAST, 1, abi.OVERFLOWING_INSTRUCTION),
        (Opcode.MUL, 1 << 32, 1 << 31, abi.OVERFLOWING_INSTRUCTION),
        (Opcode.FLOORDIV, LEAST, -1, abi.OVERFLOWING_INSTRUCTION),
        (Opcode.FLOORDIV, 5, 0, abi.DIVIDING_INSTRUCTION),
        (Opcode.MOD, 5, 0, abi.DIVIDING_INSTRUCTION),
    ],
)
def test_instructions_without_a_result(way: str, op: Opcode, a: int, b: int, status: int) -> None:
    fine = Instruction(Opcode.MAX, 2, 0, 1)
    segment = Segment([a, b, 0], [fine, Instruction(op, 2, 0, 1)])
    assert call(way, "os_plan", segment.address) == status
    assert segment.run[abi.RUN_FAULT_STEP] == 1


@st.composite
def buffer_lists(draw):
    def one():
        size = draw(st.integers(0, 40)) * draw(st.sampled_from([1, 30, 64]))
        first = draw(st.integers(0, 12))
        return size, first, first + draw(st.integers(0, 6))

    return [one() for _ in range(draw(st.integers(0, 14)))]


def planned(way: str, buffers) -> Segment:
    records = [(number, number, first, last) for number, (_, first, last) in enumerate(buffers)]
    segment = Segment([size for size, _, _ in buffers], buffers=records)
    assert call(way, "os_plan", segment.address) == abi.PLANNED
    return segment


@settings(max_examples=200, deadline=None)
@given(buffer_lists())
def test_buffers_alive_together_lie_apart(buffers) -> None:
    segment = planned("compiled", buffers)
    arena = segment.run[abi.RUN_ARENA_BYTES]
    offsets = segment.addresses.tolist()
    padded = [-(-size // 64) * 64 for size, _, _ in buffers]
    assert all(offset % 64 == 0 and offset >= 0 for offset in offsets)
    assert max((o + p for o, p in zip(offsets, padded, strict=True)), default=0) == arena
    for (i, (_, first, last)), (j, (_, begin, end)) in itertools.combinations(enumerate(buffers), 2):
        if first <= end and begin <= last and padded[i] and padded[j]:
            assert offsets[i] + padded[i] <= offsets[j] or offsets[j] + padded[j] <= offsets[i]
    alive = [
        sum(p for p, (_, first, last) in zip(padded, buffers, strict=True) if first <= step <= last)
        for step in range(20)
    ]
    assert max(alive) <= arena <= sum(padded)
    assert planned("plain Python", buffers).addresses.tolist() == offsets


def test_the_tightest_hole_is_taken() -> None:
    # At step 1, holes of 512 and 128 bytes are left between buffers that live on.
    buffers = [(640, 0, 2), (512, 0, 0), (448, 0, 2), (128, 0, 0), (64, 0, 2), (64, 1, 2)]
    segment = planned("compiled", buffers)
    assert segment.addresses.tolist() == [0, 640, 1152, 1600, 1728, 1600]


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(
    ("sizes", "status"),
    [
        ([64, -1, 3], abi.BAD_BUFFER),
        ([64, (1 << 61) + 1, 3], abi.BAD_BUFFER),
        ([1 << 61, 1 << 60, 3], abi.ARENA_OVERFLOW),
    ],
)
def test_impossible_buffers(way: str, sizes: list[int], status: int) -> None:
    segment = Segment(sizes, buffers=[(number, number, 0, 0) for number in range(3)])
    assert call(way, "os_plan", segment.address) == status
    assert segment.run[abi.RUN_FAULT_STEP] == 1


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("bad", [0, 1, 2])
def test_impossible_steps(way: str, bad: int) -> None:
    slots = [4, 4, 4]
    slots[bad] = -1
    segment = Segment(slots, steps=[(0, 0, 0, 0, 1, 2)])
    segment.run[abi.RUN_FIRST_STEP] = 10
    assert call(way, "os_plan", segment.address) == abi.BAD_STEP
    assert segment.run[abi.RUN_FAULT_STEP] == 10


@pytest.mark.parametrize("way", WAYS)
def test_memory_holds_scratch_of_each_thread_and_the_arena(way: str) -> None:
    steps = [(0, 0, 0, 1, 1, 2), (0, 0, 0, 1, 1, 3)]
    segment = Segment([100, 1, 5000, 64], buffers=[(0, 0, 0, 1)], steps=steps, threads=3)
    assert call(way, "os_plan", segment.address) == abi.PLANNED
    assert segment.run[abi.RUN_MEMORY_BYTES] == 3 * 8192 + 128
    memory = 1 << 20
    assert call(way, "os_bind", segment.address, memory) == abi.PLANNED
    assert segment.addresses.tolist() == [memory + 3 * 8192]
    contexts = segment.contexts.reshape(3, abi.CONTEXT_WORDS)
    assert contexts[:, abi.CONTEXT_SCRATCH].tolist() == [memory, memory + 8192, memory + 2 * 8192]
    assert contexts[:, abi.CONTEXT_SCRATCH_BYTES].tolist() == [8192] * 3
    assert contexts[:, abi.CONTEXT_THREAD].tolist() == [0, 1, 2]


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("threads", [1, 2, 8, 64])
@pytest.mark.parametrize("tiles", [0, 1, 2, 5, 1000, 10**6, 1 << 62])
@pytest.mark.parametrize("cost", [0, 1, 50, 3000, 10**6, 1 << 62])
def test_shares_cover_every_tile(way: str, threads: int, tiles: int, cost: int) -> None:
    segment = Segment([tiles, cost, 0], steps=[(0, 0, 0, 0, 1, 2)], threads=threads)
    assert call(way, "os_plan", segment.address) == abi.PLANNED
    assert call(way, "os_bind", segment.address, 0) == abi.PLANNED
    step = segment.step(0)
    chunk, chunks, used = (int(step[word]) for word in (abi.STEP_CHUNK, abi.STEP_CHUNKS, abi.STEP_THREADS))
    assert step[abi.STEP_TILES] == tiles
    assert chunk * chunks >= tiles and chunk * (chunks - 1) < max(tiles, 1)
    assert 1 <= used <= threads and chunks <= abi.TICKET_MASK
    if used > 1:
        assert used <= chunks and tiles * cost >= used * abi.THREAD_NS
        assert chunk == -(-tiles // used) or chunk * cost >= abi.CHUNK_NS
    if threads > 1 and tiles > 1 and tiles * cost >= abi.RUN_SHARE_NS:
        assert used > 1 and segment.run[abi.RUN_PARALLEL] == used
    if tiles * cost < abi.SHARE_NS:
        assert used == 1 and segment.run[abi.RUN_PARALLEL] == 0


def test_pauses_take_time() -> None:
    assert call("compiled", "os_pool_spin", 1000) == 1000
