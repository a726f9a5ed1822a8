"""Plans: a program's tables filled for one set of symbol values, bound to a lane's memory."""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import numpy as np

from onnxsmith import native_layout as abi
from onnxsmith.faults import PlanFault, SizeFault
from onnxsmith.loader import Library
from onnxsmith.memory import Memory
from onnxsmith.program import Relation
from onnxsmith.tables import PlanForm, Words

Key: TypeAlias = tuple[int, ...]
Shapes: TypeAlias = tuple[tuple[int, ...], ...]

_BLOCK_ALIGNMENT = 128
_SLACK = 1 << 20  # bytes that are not worth giving back


def aligned_words(count: int) -> Words:
    """`count` zeroed words whose address is a multiple of 128."""
    room = np.zeros(count + _BLOCK_ALIGNMENT // abi.WORD, np.int64)
    start = -room.ctypes.data % _BLOCK_ALIGNMENT // abi.WORD
    return room[start : start + count]


class Plan:
    """A program's tables for one set of symbol values: `key` has those that the inputs determine.

    `runs[s]` is the address of segment s's run block, `needs[s]` the bytes of memory it takes, `versions[s]`
    the version of the lane's memory that it is bound to (0: to none), `bound[s]` the values its Bindings had.
    """

    __slots__ = ("address", "bound", "cells", "form", "key", "needs", "runs", "versions", "words")

    def __init__(self, form: PlanForm, key: Key) -> None:
        self.form = form
        self.key = key
        self.words = aligned_words(len(form.template))
        self.words[:] = form.template
        self.address = self.words.ctypes.data
        self.words[form.addresses] *= abi.WORD
        self.words[form.addresses] += self.address
        # The same words, one at a time: a ctypes array is several times faster than numpy at that.
        self.cells = (ctypes.c_int64 * len(self.words)).from_address(self.address)
        self.runs = [self.address + run * abi.WORD for run in form.runs]
        self.versions = [0] * len(self.runs)
        self.needs = [0] * len(self.runs)
        self.bound: list[Key] = [()] * len(self.runs)

    def slot(self, number: int) -> int:
        """The value of slot `number`."""
        return self.cells[self.form.slots + number]

    def slots(self) -> list[int]:
        """The values of all slots."""
        start = self.form.slots
        return list(map(int, self.words[start : start + self.form.slot_count]))

    def set_slot(self, number: int, value: int) -> None:
        self.cells[self.form.slots + number] = value

    def shape(self, tensor: int) -> tuple[int, ...]:
        """The shape of tensor `tensor` (inputs, then outputs), as far as its slots are planned."""
        cells = self.cells
        return tuple([cells[word] for word in self.form.shapes[tensor]])

    def set_address(self, tensor: int, address: int) -> None:
        """Where input or output `tensor` lies in the next run."""
        self.cells[self.form.io + tensor] = address

    def buffer_address(self, number: int) -> int:
        """Where buffer `number` lies, its segment being bound."""
        return self.cells[self.form.buffers + number]

    def set_probes(self, values: Key) -> None:
        """What the elements that segment 0 reads from inputs must be for this plan."""
        for number, value in enumerate(values):
            self.cells[self.form.probes + number * abi.PROBE_WORDS + abi.PROBE_VALUE] = value

    def expect_shapes(self) -> None:
        """Make the shapes of all inputs and outputs, as planned, those that `os_call` demands."""
        extents = [self.cells[word] for shape in self.form.shapes for word in shape]
        self.words[self.form.dims : self.form.dims + len(extents)] = extents

    def check_sizes(self, segment: int) -> None:
        """SizeFault for the first Check of a segment, its slots being computed, that does not hold."""
        for number, (left_word, right_word, relation) in enumerate(self.form.checks[segment]):
            left, right = self.cells[left_word], self.cells[right_word]
            if left == right or (relation is Relation.BROADCAST and 1 in (left, right)):
                continue
            if relation is not Relation.AT_MOST or left > right:
                raise SizeFault(segment, number, left, right)

    def run_word(self, segment: int, word: int) -> int:
        return self.cells[self.form.runs[segment] + word]


def _never_run(inputs: Sequence[Any], outputs: Sequence[Any]) -> int:
    return abi.MISMATCH


class Lane:
    """What one run at a time works in: memory for each segment, and plans bound to that memory.

    `block` is the run block that a run tries first (one that matches nothing where there is none), `shapes`
    are the outputs' shapes in it. A program of one segment has such a block for each plan that is ready.
    `run(inputs, outputs)`, of lists or tuples of arrays, is one native call with that block: DONE, FAULT,
    or MISMATCH or NEED_THREADS, after which nothing was run. Without `library` it always is MISMATCH.
    """

    __slots__ = ("_block", "_limit", "_memories", "_never", "_plans", "_ready", "_versions", "run", "shapes")

    def __init__(self, segments: int, limit: int, pool: int, library: Library | None) -> None:
        self._block = np.zeros(1, np.int64)
        self.run: Callable[[Sequence[Any], Sequence[Any]], int]
        self.run = _never_run if library is None else library.caller(self._block)
        self._limit = limit
        self._memories: list[Memory | None] = [None] * segments
        self._versions = [0] * segments
        self._plans: dict[Key, Plan] = {}
        self._ready: dict[Shapes, tuple[Key, int, Shapes]] = {}
        self._never = aligned_words(abi.RUN_WORDS)
        self._never[abi.RUN_INPUT_COUNT] = -1
        self._never[abi.RUN_POOL] = pool
        self.forget_last()

    @property
    def block(self) -> int:
        """The address of the run block."""
        return int(self._block[0])

    @block.setter
    def block(self, address: int) -> None:
        self._block[0] = address

    def forget_last(self) -> None:
        """Have no run block to try first."""
        self.block = self._never.ctypes.data
        self.shapes: Shapes = ()

    def try_first(self, plan: Plan, inputs: Shapes, outputs: Shapes) -> None:
        """Have the next run try the one segment of `plan`, ready for inputs and outputs of these shapes."""
        self.block, self.shapes = plan.runs[0], outputs
        self._ready[inputs] = plan.key, self.block, outputs

    def choose(self, inputs: Shapes) -> bool:
        """Have the next run try the plan that is ready for these shapes of inputs; False for none."""
        found = self._ready.get(inputs)
        if found is None:
            return False
        key, self.block, self.shapes = found
        self._plans[key] = self._plans.pop(key)
        return True

    def find(self, key: Key) -> Plan | None:
        """The plan for `key`, now the last to be evicted."""
        plan = self._plans.pop(key, None)
        if plan is not None:
            self._plans[key] = plan
        return plan

    def add(self, plan: Plan) -> None:
        """Keep `plan`; where there are too many, the least recently used goes, and memory only it needed."""
        self._plans[plan.key] = plan
        if len(self._plans) > self._limit:
            del self._plans[next(iter(self._plans))]
            self._ready.clear()
            self._shrink()

    def memory_bytes(self) -> int:
        """Bytes of memory that the lane holds, its plans' tables left out."""
        return sum(memory.size for memory in self._memories if memory is not None)

    def is_ready(self, plan: Plan, segment: int) -> bool:
        """Whether the segment is bound to the memory that the lane has now."""
        return self._memories[segment] is not None and plan.versions[segment] == self._versions[segment]

    def prepare(self, library: Library, plan: Plan, segment: int) -> None:
        """Plan and bind a segment of `plan`, all earlier ones being ready. PlanFault, SizeFault, MemoryError."""
        for number in range(segment, len(plan.runs)):
            plan.versions[number] = 0
        run = plan.runs[segment]
        status = library.plan(run)
        if status != abi.PLANNED:
            raise PlanFault(segment, status, plan.run_word(segment, abi.RUN_FAULT_STEP))
        plan.check_sizes(segment)
        need = plan.needs[segment] = plan.run_word(segment, abi.RUN_MEMORY_BYTES)
        memory = self._memories[segment]
        if memory is None or memory.size < need:
            # The sizes of a later segment may differ a little at each run: leave room.
            memory = self._replace(segment, need if segment == 0 else need + need // 4)
        library.bind(run, memory.address)
        plan.versions[segment] = self._versions[segment]

    def _replace(self, segment: int, size: int) -> Memory:
        self._free(segment)  # the old, before asking for more
        memory = self._memories[segment] = Memory(size)
        return memory

    def _shrink(self) -> None:
        """Give back memory of which the plans that are left need less than half."""
        for segment, memory in enumerate(self._memories):
            most = max(plan.needs[segment] for plan in self._plans.values())
            if memory is not None and memory.size > 2 * most + _SLACK:
                self._free(segment)

    def _free(self, segment: int) -> None:
        self._memories[segment] = None
        self._versions[segment] += 1
        self._ready.clear()
