"""The native core's planning: slots, arena layout, argument tables (tables: `onnxsmith.native_layout`)."""

# Intrinsics and helpers are typed by numba, and are Any to mypy.
# mypy: disable-error-code="no-any-return"

from __future__ import annotations

from numpy import float64, int64

import onnxsmith.native_layout as abi
from onnxsmith_compiler.codegen.kernel_function import helper
from onnxsmith_compiler.codegen.native_intrinsics import (
    add_overflows,
    mul_overflows,
    peek,
    poke,
    sub_overflows,
)
from onnxsmith_compiler.codegen.scalar import maximum, minimum

_ADD, _SUB, _MUL, _FLOORDIV, _MOD, _MAX, _MIN = range(7)  # artifact.Opcode
_SLOT, _BUFFER, _WEIGHT, _INPUT, _OUTPUT = range(5)  # artifact.Place
_INT64_MIN = -(1 << 63)

# Sizes above this many bytes are refused, so that rounding one up or adding two never overflows.
_MOST_BYTES = 1 << 61


@helper("int64", "int64", "int64")
def _round_up(size: int, multiple: int) -> int:
    return (size + multiple - 1) // multiple * multiple


@helper("int64", "int64")
def run_instructions(run: int) -> int:
    """Compute a segment's slots: PLANNED, or an error with the instruction's number in RUN_FAULT_STEP."""
    slots = peek(run, abi.RUN_SLOTS)
    instructions = peek(run, abi.RUN_INSTRUCTIONS)
    for number in range(peek(run, abi.RUN_INSTRUCTION_COUNT)):
        record = instructions + number * abi.INSTRUCTION_WORDS * abi.WORD
        operation = peek(record, abi.INSTRUCTION_OP)
        a = peek(slots, peek(record, abi.INSTRUCTION_A))
        b = peek(slots, peek(record, abi.INSTRUCTION_B))
        value = 0
        status = abi.PLANNED
        if operation == _ADD:
            if add_overflows(a, b):
                status = abi.OVERFLOWING_INSTRUCTION
            value = a + b
        elif operation == _SUB:
            if sub_overflows(a, b):
                status = abi.OVERFLOWING_INSTRUCTION
            value = a - b
        elif operation == _MUL:
            if mul_overflows(a, b):
                status = abi.OVERFLOWING_INSTRUCTION
            value = a * b
        elif operation == _MAX:
            value = maximum(a, b)
        elif operation == _MIN:
            value = minimum(a, b)
        elif b == 0:
            status = abi.DIVIDING_INSTRUCTION
        elif a == _INT64_MIN and b == -1:
            status = abi.OVERFLOWING_INSTRUCTION
        elif operation == _FLOORDIV:
            value = a // b
        else:
            value = a % b
        if status != abi.PLANNED:
            poke(run, abi.RUN_FAULT_STEP, number)
            return status
        poke(slots, peek(record, abi.INSTRUCTION_DST), value)
    return abi.PLANNED


@helper("int64", "int64", "int64")
def _buffer_bytes(run: int, record: int) -> int:
    """Bytes of a buffer, rounded up to the alignment; -1 where its size slot is no size."""
    size = peek(peek(run, abi.RUN_SLOTS), peek(record, abi.BUFFER_SLOT))
    if size < 0 or size > _MOST_BYTES:
        return -1
    return _round_up(size, abi.ALIGNMENT)


@helper("int64", "int64", "int64")
def _sort_buffers(run: int, order: int) -> int:
    """Write the segment's buffer records by decreasing size into `order`; the number of a bad one, or -1."""
    records = peek(run, abi.RUN_BUFFER_SPECS)
    for number in range(peek(run, abi.RUN_BUFFER_COUNT)):
        record = records + number * abi.BUFFER_WORDS * abi.WORD
        size = _buffer_bytes(run, record)
        if size < 0:
            return peek(record, abi.BUFFER_NUMBER)
        place = number
        while place > 0 and _buffer_bytes(run, peek(order, place - 1)) < size:
            poke(order, place, peek(order, place - 1))
            place -= 1
        poke(order, place, record)
    return -1


@helper("int64", "int64", "int64", "int64", "int64")
def _best_offset(run: int, record: int, placed: int, placed_count: int) -> int:
    """Offset of the tightest hole for a buffer between those `placed` (by offset) that live when it does."""
    offsets = peek(run, abi.RUN_BUFFERS)
    size = _buffer_bytes(run, record)
    first = peek(record, abi.BUFFER_FIRST)
    last = peek(record, abi.BUFFER_LAST)
    best = -1
    best_hole = 0
    end = 0
    for place in range(placed_count):
        other = peek(placed, place)
        if peek(other, abi.BUFFER_LAST) < first or peek(other, abi.BUFFER_FIRST) > last:
            continue
        offset = peek(offsets, peek(other, abi.BUFFER_NUMBER))
        hole = offset - end
        if hole >= size and (best < 0 or hole < best_hole):
            best = end
            best_hole = hole
        end = maximum(end, offset + _buffer_bytes(run, other))
    return end if best < 0 else best


@helper("int64", "int64")
def lay_out_arena(run: int) -> int:
    """Give each buffer of a segment an offset (in RUN_BUFFERS): greedy by size, best fit among lifetimes.

    The method is "greedy by size" of Pisarchyk and Lee, "Efficient Memory Management for Deep Neural Net
    Inference" (2020). Sets RUN_ARENA_BYTES.
    """
    count = peek(run, abi.RUN_BUFFER_COUNT)
    offsets = peek(run, abi.RUN_BUFFERS)
    order = peek(run, abi.RUN_WORK)
    placed = order + count * abi.WORD
    bad = _sort_buffers(run, order)
    if bad >= 0:
        poke(run, abi.RUN_FAULT_STEP, bad)
        return abi.BAD_BUFFER
    arena = 0
    for turn in range(count):
        record = peek(order, turn)
        offset = _best_offset(run, record, placed, turn)
        end = offset + _buffer_bytes(run, record)
        if end > _MOST_BYTES:
            poke(run, abi.RUN_FAULT_STEP, peek(record, abi.BUFFER_NUMBER))
            return abi.ARENA_OVERFLOW
        poke(offsets, peek(record, abi.BUFFER_NUMBER), offset)
        place = turn
        while place > 0 and peek(offsets, peek(peek(placed, place - 1), abi.BUFFER_NUMBER)) > offset:
            poke(placed, place, peek(placed, place - 1))
            place -= 1
        poke(placed, place, record)
        arena = maximum(arena, end)
    poke(run, abi.RUN_ARENA_BYTES, arena)
    return abi.PLANNED


@helper("int64", "int64")
def measure_scratch(run: int) -> int:
    """Check the steps' sizes and set RUN_SCRATCH_BYTES to the most that one of them needs a thread."""
    slots = peek(run, abi.RUN_SLOTS)
    specs = peek(run, abi.RUN_STEP_SPECS)
    most = 0
    for number in range(peek(run, abi.RUN_STEP_COUNT)):
        spec = specs + number * abi.SPEC_WORDS * abi.WORD
        tiles = peek(slots, peek(spec, abi.SPEC_TILES))
        cost = peek(slots, peek(spec, abi.SPEC_COST))
        scratch = peek(slots, peek(spec, abi.SPEC_SCRATCH))
        if tiles < 0 or cost < 0 or scratch < 0 or scratch > _MOST_BYTES // (2 * abi.MAX_THREADS):
            poke(run, abi.RUN_FAULT_STEP, peek(run, abi.RUN_FIRST_STEP) + number)
            return abi.BAD_STEP
        most = maximum(most, scratch)
    poke(run, abi.RUN_SCRATCH_BYTES, _round_up(most, abi.SCRATCH_ALIGNMENT))
    return abi.PLANNED


@helper("int64", "int64")
def plan(run: int) -> int:
    """`os_plan`: slots, arena layout and RUN_MEMORY_BYTES of one segment."""
    status = run_instructions(run)
    if status != abi.PLANNED:
        return status
    status = lay_out_arena(run)
    if status != abi.PLANNED:
        return status
    status = measure_scratch(run)
    if status != abi.PLANNED:
        return status
    scratch = peek(run, abi.RUN_THREADS) * peek(run, abi.RUN_SCRATCH_BYTES)
    poke(run, abi.RUN_MEMORY_BYTES, scratch + peek(run, abi.RUN_ARENA_BYTES))
    return abi.PLANNED


@helper("int64", "int64", "int64")
def _bind_contexts(run: int, memory: int) -> int:
    scratch = peek(run, abi.RUN_SCRATCH_BYTES)
    for thread in range(peek(run, abi.RUN_THREADS)):
        context = peek(run, abi.RUN_CONTEXTS) + thread * abi.CONTEXT_WORDS * abi.WORD
        poke(context, abi.CONTEXT_SCRATCH, memory + thread * scratch)
        poke(context, abi.CONTEXT_SCRATCH_BYTES, scratch)
        poke(context, abi.CONTEXT_THREAD, thread)
        poke(context, abi.CONTEXT_SEEDS, peek(run, abi.RUN_POOL) + abi.POOL_SEEDS * abi.WORD)
    return 0


@helper("int64", "int64", "int64", "int64")
def _bind_argument(run: int, spec: int, target: int) -> int:
    """Write the argument that `spec` describes to address `target`, or a patch record that will."""
    place = peek(spec, abi.ARGUMENT_PLACE)
    index = peek(spec, abi.ARGUMENT_INDEX)
    offset_slot = peek(spec, abi.ARGUMENT_OFFSET)
    slots = peek(run, abi.RUN_SLOTS)
    offset = 0
    if offset_slot >= 0:
        offset = peek(slots, offset_slot)
    if place == _SLOT:
        poke(target, 0, peek(slots, index))
    elif place == _BUFFER:
        poke(target, 0, peek(peek(run, abi.RUN_BUFFERS), index) + offset)
    elif place == _WEIGHT:
        poke(target, 0, peek(run, abi.RUN_WEIGHTS) + index + offset)
    else:
        io = index
        if place == _OUTPUT:
            io += peek(run, abi.RUN_INPUT_COUNT)
        count = peek(run, abi.RUN_PATCH_COUNT)
        patch = peek(run, abi.RUN_PATCHES) + count * abi.PATCH_WORDS * abi.WORD
        poke(patch, abi.PATCH_TARGET, target)
        poke(patch, abi.PATCH_IO, io)
        poke(patch, abi.PATCH_OFFSET, offset)
        poke(run, abi.RUN_PATCH_COUNT, count + 1)
    return 0


@helper("float64", "int64", "int64", "int64", "int64")
def _bind_schedule(run: int, step: int, tiles: int, cost: int) -> float:
    """Decide how a step is shared between threads; the nanoseconds that sharing covers, 0 if it is not."""
    work = float64(tiles) * float64(cost)
    threads = minimum(peek(run, abi.RUN_THREADS), tiles)
    if work < abi.THREAD_NS * threads:
        threads = int64(work) // abi.THREAD_NS
    if work < abi.SHARE_NS or threads < 2:
        poke(step, abi.STEP_THREADS, 1)
        poke(step, abi.STEP_CHUNK, maximum(tiles, 1))
        poke(step, abi.STEP_CHUNKS, 1)
        poke(step, abi.STEP_WAKE, 0)
        return 0.0
    chunk = -(-tiles // (threads * abi.CHUNKS_PER_THREAD))
    if float64(chunk) * float64(cost) < abi.CHUNK_NS:
        chunk = -(-abi.CHUNK_NS // cost)
    chunk = minimum(chunk, -(-tiles // threads))
    poke(step, abi.STEP_THREADS, threads)
    poke(step, abi.STEP_CHUNK, chunk)
    poke(step, abi.STEP_CHUNKS, -(-tiles // chunk))
    poke(step, abi.STEP_WAKE, 1 if work >= abi.WAKE_NS else 0)
    return work


@helper("int64", "int64", "int64")
def bind(run: int, memory: int) -> int:
    """`os_bind`: argument tables, step records and patches of a planned segment, for memory at `memory`.

    The memory holds the scratch of every thread, then the arena. Buffers of earlier segments are bound
    already.
    """
    arena = memory + peek(run, abi.RUN_THREADS) * peek(run, abi.RUN_SCRATCH_BYTES)
    buffers = peek(run, abi.RUN_BUFFERS)
    specs = peek(run, abi.RUN_BUFFER_SPECS)
    for turn in range(peek(run, abi.RUN_BUFFER_COUNT)):
        number = peek(specs + turn * abi.BUFFER_WORDS * abi.WORD, abi.BUFFER_NUMBER)
        poke(buffers, number, peek(buffers, number) + arena)
    _bind_contexts(run, memory)
    slots = peek(run, abi.RUN_SLOTS)
    shared = 0.0
    parallel = 0
    poke(run, abi.RUN_PATCH_COUNT, 0)
    for number in range(peek(run, abi.RUN_STEP_COUNT)):
        spec = peek(run, abi.RUN_STEP_SPECS) + number * abi.SPEC_WORDS * abi.WORD
        step = peek(run, abi.RUN_STEPS) + number * abi.STEP_WORDS * abi.WORD
        first = peek(spec, abi.SPEC_ARGUMENTS)
        arguments = peek(run, abi.RUN_ARGUMENTS) + first * abi.WORD
        argument_specs = peek(run, abi.RUN_ARGUMENT_SPECS) + first * abi.ARGUMENT_WORDS * abi.WORD
        for turn in range(peek(spec, abi.SPEC_ARGUMENT_COUNT)):
            argument_spec = argument_specs + turn * abi.ARGUMENT_WORDS * abi.WORD
            _bind_argument(run, argument_spec, arguments + turn * abi.WORD)
        tiles = peek(slots, peek(spec, abi.SPEC_TILES))
        poke(step, abi.STEP_KERNEL, peek(spec, abi.SPEC_KERNEL))
        poke(step, abi.STEP_ARGUMENTS, arguments)
        poke(step, abi.STEP_TILES, tiles)
        shared += _bind_schedule(run, step, tiles, peek(slots, peek(spec, abi.SPEC_COST)))
        parallel = maximum(parallel, peek(step, abi.STEP_THREADS))
    poke(run, abi.RUN_PARALLEL, parallel if shared >= abi.RUN_SHARE_NS else 0)
    return abi.PLANNED
