"""Small programs and kernels written by hand, compiled and loaded, for tests of the runtime."""

from __future__ import annotations

import functools
from collections.abc import Sequence

import numpy as np

from onnxsmith.artifact import (
    Argument,
    Binding,
    Buffer,
    Instruction,
    Opcode,
    Place,
    Program,
    Segment,
    Step,
    Tensor,
)
from onnxsmith.executor import Executor
from onnxsmith.loader import Library
from onnxsmith.program_check import check_program
from onnxsmith_compiler.codegen.elf_linker import link_shared_library
from onnxsmith_compiler.codegen.native_core import ENTRY_POINTS, compile_core
from onnxsmith_compiler.codegen.numba_adapter import compile_kernel
from onnxsmith_compiler.codegen.source import KernelSource, Parameter
from onnxsmith_compiler.codegen.target import Target

TILE = 64


def _source(label: str, text: str, *parameters: str) -> KernelSource:
    """Parameters are "name" (a size), "name:type" (an address) or "name!type" (an address of its own)."""
    made = []
    for parameter in parameters:
        name, _, kind = parameter.replace("!", ":").partition(":")
        made.append(Parameter(name, f"{kind}*" if kind else "int64", "!" in parameter))
    return KernelSource(label, text, tuple(made))


_POINTWISE = """
def kernel(ctx, a, b, out, n, begin, end):
    for i in range(begin * 64, minimum(end * 64, n)):
        store(out, i, {})
    return 0
"""

KERNELS = {
    # out[i] = a[i] + b[i] (a[i] * b[i]), tiles of TILE elements.
    "add": _source("add", _POINTWISE.format("load(a, i) + load(b, i)"), "a:float32", "b:float32", "out!float32", "n"),
    "multiply": _source(
        "multiply", _POINTWISE.format("load(a, i) * load(b, i)"), "a:float32", "b:float32", "out!float32", "n"
    ),
    # out[i] = a[i] + 1 in bfloat16.
    "increment_bfloat16": _source(
        "increment",
        """
def kernel(ctx, a, out, n, begin, end):
    for i in range(begin * 64, minimum(end * 64, n)):
        store(out, i, load(a, i) + float32(1))
    return 0
""",
        "a:bfloat16",
        "out!bfloat16",
        "n",
    ),
    # out[i] = data[index[i]], fault 1 for an index outside [0, limit).
    "gather": _source(
        "gather",
        """
def kernel(ctx, data, index, out, limit, n, begin, end):
    for i in range(begin * 64, minimum(end * 64, n)):
        j = load(index, i)
        if j < 0 or j >= limit:
            store(ctx, 3, j)
            store(ctx, 4, limit)
            return 1
        store(out, i, load(data, j))
    return 0
""",
        "data:float32",
        "index:int64",
        "out!float32",
        "limit",
        "n",
    ),
    # out = 1 once flag[0] is set by another thread, fault 3 where that takes `turns` turns of a loop; one tile.
    "wait": _source(
        "wait",
        """
def kernel(ctx, flag, out, turns, begin, end):
    turn = 0
    while turn < turns and load_acquire(address(flag), 0) == 0:
        pause()
        turn += 1
    if turn == turns:
        return 3
    store(out, 0, int64(1))
    return 0
""",
        "flag:int64",
        "out!int64",
        "turns",
    ),
    # Compacts the positive elements into out and writes their number to count[1]; one tile.
    "positives": _source(
        "positives",
        """
def kernel(ctx, a, out, count, n, begin, end):
    found = 0
    for i in range(n):
        if load(a, i) > float32(0):
            store(out, found, load(a, i))
            found += 1
    store(count, 1, int64(found))
    return 0
""",
        "a:float32",
        "out!float32",
        "count!int64",
        "n",
    ),
    # out[t] += 1 and who[t] = number of the thread; each tile takes `work` turns of a loop.
    "visit": _source(
        "visit",
        """
def kernel(ctx, out, who, work, begin, end):
    for t in range(begin, end):
        x = float32(t)
        for i in range(work):
            x = x * float32(0.5) + float32(1)
        if x < float32(0):
            return 3
        store(out, t, load(out, t) + int64(1))
        store(who, t, load(ctx, 2))
    return 0
""",
        "out!int64",
        "who!int64",
        "work",
    ),
    # Fills the thread's scratch with the tile number, then out[t] = sum of it; fault 4 where it is too small.
    "through_scratch": _source(
        "through_scratch",
        """
def kernel(ctx, out, n, begin, end):
    if load(ctx, 1) < n * 4:
        return 4
    room = scratch(ctx, float32, 0)
    for t in range(begin, end):
        for i in range(n):
            store(room, i, float32(t))
        total = float32(0)
        for i in range(n):
            total = total + load(room, i)
        store(out, t, total)
    return 0
""",
        "out!float32",
        "n",
    ),
    # Fault 3 with the tile's number from tile `bad` on.
    "fail_from": _source(
        "fail_from",
        """
def kernel(ctx, out, bad, begin, end):
    for t in range(begin, end):
        if t >= bad:
            store(ctx, 3, int64(t))
            store(ctx, 4, bad)
            return 3
        store(out, t, load(out, t) + int64(1))
    return 0
""",
        "out!int64",
        "bad",
    ),
}


@functools.cache
def code() -> bytes:
    """A shared library of the native core and all KERNELS."""
    target = Target.host()
    objects = {"core": compile_core(target)}
    objects.update((name, compile_kernel(source, name, target)) for name, source in KERNELS.items())
    return link_shared_library(objects, [*ENTRY_POINTS, *KERNELS], "hand.so")


@functools.cache
def library() -> Library:
    return Library(code())


def make_executor(program: Program, threads: int = 1, weights: np.ndarray | None = None) -> Executor:
    check_program(program)
    return Executor(program, library(), weights, threads)


def slot(number: int) -> Argument:
    return Argument(Place.SLOT, number)


def buffer(number: int, offset: int | None = None) -> Argument:
    return Argument(Place.BUFFER, number, offset)


def weight(offset: int) -> Argument:
    return Argument(Place.WEIGHT, offset)


def input_(number: int, offset: int | None = None) -> Argument:
    return Argument(Place.INPUT, number, offset)


def output(number: int) -> Argument:
    return Argument(Place.OUTPUT, number)


class Draft:
    """A program in the making: symbols first, then constants and instructions, then tensors and steps."""

    def __init__(self, *symbols: str) -> None:
        self.symbols = symbols
        self.sources: list[tuple[int, int] | None] = [None] * len(symbols)
        self.slots = [0] * len(symbols)
        self.inputs: list[Tensor] = []
        self.outputs: list[Tensor] = []
        self.buffers: list[Buffer] = []
        self.kernels: list[str] = []
        self.segments: list[tuple[list[Binding], list[Instruction], list[Step]]] = [([], [], [])]
        self.weight_bytes = 0
        self.overridable: dict[str, int] = {}

    def constant(self, value: int) -> int:
        self.slots.append(value)
        return len(self.slots) - 1

    def compute(self, op: Opcode, a: int, b: int) -> int:
        """A slot that the segment in the making computes."""
        dst = self.constant(0)
        self.segments[-1][1].append(Instruction(op, dst, a, b))
        return dst

    def tiles(self, n: int, size: int = TILE) -> int:
        """ceil(slots[n] / size)."""
        padded = self.compute(Opcode.ADD, n, self.constant(size - 1))
        return self.compute(Opcode.FLOORDIV, padded, self.constant(size))

    def input(self, name: str, dims: Sequence[int], dtype: str = "float32") -> Argument:
        for axis, dim in enumerate(dims):
            if dim < len(self.symbols) and self.sources[dim] is None:
                self.sources[dim] = (len(self.inputs), axis)
        self.inputs.append(Tensor(name, dtype, None, tuple(dims)))
        return input_(len(self.inputs) - 1)

    def output(self, name: str, dims: Sequence[int], dtype: str = "float32") -> Argument:
        self.outputs.append(Tensor(name, dtype, None, tuple(dims)))
        return output(len(self.outputs) - 1)

    def buffer(self, size: int, first: int, last: int) -> Argument:
        self.buffers.append(Buffer(size, len(self.segments) - 1, first, last))
        return buffer(len(self.buffers) - 1)

    def bind(self, slot: int, source: Argument, element: int, dtype: str = "int64") -> None:
        self.segments[-1][0].append(Binding(slot, source, element, dtype))

    def next_segment(self) -> None:
        self.segments.append(([], [], []))

    def step(
        self,
        kernel: str,
        arguments: Sequence[Argument],
        tiles: int,
        cost: int | None = None,
        scratch: int | None = None,
        flops: int | None = None,
        traffic: int | None = None,
    ) -> None:
        if kernel not in self.kernels:
            self.kernels.append(kernel)
        cost = self.constant(100) if cost is None else cost
        scratch = self.constant(0) if scratch is None else scratch
        flops = self.constant(0) if flops is None else flops
        traffic = self.constant(0) if traffic is None else traffic
        number = self.kernels.index(kernel)
        made = Step(number, tuple(arguments), tiles, cost, scratch, flops, traffic, kernel, (kernel,))
        self.segments[-1][2].append(made)

    def program(self) -> Program:
        return Program(
            inputs=tuple(self.inputs),
            outputs=tuple(self.outputs),
            symbols=self.symbols,
            input_symbols=tuple(self.sources),
            slots=tuple(self.slots),
            segments=tuple(Segment(tuple(b), tuple(i), tuple(s)) for b, i, s in self.segments),
            buffers=tuple(self.buffers),
            kernels=tuple(self.kernels),
            weight_bytes=self.weight_bytes,
            overridable=self.overridable,
            in_place=(),
            metadata={},
            custom_metadata={},
        )


def sum_program() -> Program:
    """z = x + y, all of shape [n]."""
    draft = Draft("n")
    n = 0
    x, y, z = draft.input("x", [n]), draft.input("y", [n]), draft.output("z", [n])
    draft.step("add", [x, y, z, slot(n)], draft.tiles(n))
    return draft.program()


def chain_program(length: int = 6) -> Program:
    """y = x * 2**length through `length - 1` buffers, of which two are alive at a time."""
    draft = Draft("n")
    n = 0
    tiles = draft.tiles(n)
    size = draft.compute(Opcode.MUL, n, draft.constant(4))
    current, y = draft.input("x", [n]), draft.output("y", [n])
    for number in range(length):
        target = y if number == length - 1 else draft.buffer(size, number, number + 1)
        draft.step("add", [current, current, target, slot(n)], tiles)
        current = target
    return draft.program()


def waiting_program() -> Program:
    """y = 1, once another thread has set the only element of x."""
    draft = Draft()
    one = draft.constant(1)
    x = draft.input("x", [one], "int64")
    y = draft.output("y", [one], "int64")
    draft.step("wait", [x, y, slot(draft.constant(1 << 30))], one)
    return draft.program()


def positives_program() -> Program:
    """y = the positive elements of x, doubled; their number k is known when the first step has run."""
    draft = Draft("n", "k")
    n, k = 0, 1
    one = draft.constant(1)
    size = draft.compute(Opcode.MUL, n, draft.constant(4))
    x = draft.input("x", [n])
    count = draft.buffer(draft.constant(16), 0, 1)
    found = draft.buffer(size, 0, 1)
    draft.step("positives", [x, found, count, slot(n)], one)
    draft.next_segment()
    draft.bind(k, count, 1)
    y = draft.output("y", [k])
    draft.step("add", [found, found, y, slot(k)], draft.tiles(k))
    return draft.program()
