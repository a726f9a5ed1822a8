"""The C functions that prepare a context: sizes, weights and memory (tables: `c_layout`).

As in Python, segments after the first are planned and bound in the run, once the sizes that they wait for are there.
"""

# Intrinsics and helpers are typed by numba, and are Any to mypy.
# mypy: disable-error-code="no-any-return"

from __future__ import annotations

import onnxsmith.native_layout as abi
from onnxsmith.program import Relation
from onnxsmith_compiler.codegen import c_layout as c
from onnxsmith_compiler.codegen.c_cpu import cpu_fits
from onnxsmith_compiler.codegen.c_query import (
    context_state,
    fail,
    memory_before,
    run_block,
    segment_record,
    tensor_record,
)
from onnxsmith_compiler.codegen.kernel_function import helper
from onnxsmith_compiler.codegen.native_intrinsics import call_kernel, mul_overflows, peek, peek_int8, poke
from onnxsmith_compiler.codegen.native_plan import bind, lay_out_arena, plan

_BROADCAST, _AT_MOST = int(Relation.BROADCAST), int(Relation.AT_MOST)
_MOST_BYTES = 1 << 61


@helper("int64", "int64", "int64")
def context_size(program: int, threads: int) -> int:
    """The bytes of a context for up to `threads` threads; negative: the code of an error."""
    if threads < 1 or threads > abi.MAX_THREADS:
        return -c.BAD_THREADS
    own = peek(program, c.PROGRAM_SEGMENT_COUNT) * threads * abi.CONTEXT_WORDS
    return (peek(program, c.PROGRAM_CONTEXT_WORDS) + own) * abi.WORD


@helper("int64", "int64", "int64", "int64")
def _initialise(program: int, context: int, threads: int) -> int:
    """Make a context of the memory at `context`."""
    for word in range(context_size(program, threads) // abi.WORD):
        poke(context, word, 0)
    pairs = program + peek(program, c.PROGRAM_VALUES)
    for number in range(peek(program, c.PROGRAM_VALUE_COUNT)):
        poke(context, peek(pairs, 2 * number), peek(pairs, 2 * number + 1))
    pairs = program + peek(program, c.PROGRAM_ADDRESSES)
    for number in range(peek(program, c.PROGRAM_ADDRESS_COUNT)):
        poke(context, peek(pairs, 2 * number), context + peek(pairs, 2 * number + 1) * abi.WORD)
    pairs = program + peek(program, c.PROGRAM_CONSTANTS)
    for number in range(peek(program, c.PROGRAM_CONSTANT_COUNT)):
        poke(context, peek(pairs, 2 * number), program + peek(pairs, 2 * number + 1))
    for number in range(peek(program, c.PROGRAM_SEGMENT_COUNT)):
        run = run_block(program, context, number)
        own = peek(program, c.PROGRAM_CONTEXT_WORDS) + number * threads * abi.CONTEXT_WORDS
        poke(run, abi.RUN_CONTEXTS, context + own * abi.WORD)
        poke(run, abi.RUN_THREADS, threads)
    poke(context, c.CONTEXT_MARK, c.MARK + context)
    return c.DONE


@helper("bool", "int64", "int64", "int64")
def _holds(relation: int, left: int, right: int) -> bool:
    if left == right:
        return True
    if relation == _BROADCAST:
        return left == 1 or right == 1
    return relation == _AT_MOST and left < right


@helper("int64", "int64", "int64", "int64")
def _check_sizes(program: int, context: int, segment: int) -> int:
    """Whether what the compiler took for granted holds for the slots, for the segment of a record."""
    slots = peek(context, c.CONTEXT_RUN + abi.RUN_SLOTS)
    for number in range(peek(segment, c.SEGMENT_CHECK_COUNT)):
        record = program + peek(segment, c.SEGMENT_CHECKS) + number * c.CHECK_WORDS * abi.WORD
        left = peek(slots, peek(record, c.CHECK_LEFT))
        right = peek(slots, peek(record, c.CHECK_RIGHT))
        if not _holds(peek(record, c.CHECK_RELATION), left, right):
            return fail(context, c.SIZES_DISAGREE, program + peek(record, c.CHECK_ORIGIN), left, right)
    return c.DONE


@helper("int64", "int64", "int64", "int64")
def _tensor_bytes(program: int, slots: int, record: int) -> int:
    """The bytes of a tensor; -1 where a dimension is negative or the product beyond memory."""
    total = peek(record, c.TENSOR_ITEM_BYTES)
    for axis in range(peek(record, c.TENSOR_RANK)):
        size = peek(slots, peek(program + peek(record, c.TENSOR_SLOTS), axis))
        if size < 0 or mul_overflows(total, size):
            return -1
        total *= size
    return total if total <= _MOST_BYTES else -1


@helper("int64", "int64", "int64", "int64")
def _measure_tensors(program: int, context: int, segment: int) -> int:
    """Fill the bytes of the inputs and outputs that are known from the segment on."""
    slots = peek(context, c.CONTEXT_RUN + abi.RUN_SLOTS)
    for turn in range(peek(segment, c.SEGMENT_TENSOR_COUNT)):
        number = peek(program + peek(segment, c.SEGMENT_TENSORS), turn)
        record = tensor_record(program, number)
        size = _tensor_bytes(program, slots, record)
        if size < 0:
            return fail(context, c.IMPOSSIBLE_SIZES, program + peek(record, c.TENSOR_NAME), 0, 0)
        poke(peek(context, c.CONTEXT_BYTES), number, size)
    return c.DONE


@helper("int64", "int64", "int64")
def _set_probes(program: int, context: int) -> int:
    """Note the sizes that inputs must hold; each must lie within its input."""
    run = context + c.CONTEXT_RUN * abi.WORD
    for number in range(peek(run, abi.RUN_PROBE_COUNT)):
        probe = peek(run, abi.RUN_PROBES) + number * abi.PROBE_WORDS * abi.WORD
        slot = peek(program + peek(program, c.PROGRAM_PROBES), number)
        poke(probe, abi.PROBE_VALUE, peek(peek(run, abi.RUN_SLOTS), slot))
        source = peek(probe, abi.PROBE_IO)
        room = peek(peek(context, c.CONTEXT_BYTES), source)
        end = peek(probe, abi.PROBE_BYTES) + abs(peek(probe, abi.PROBE_SIZE))
        if end > room:
            name = program + peek(tensor_record(program, source), c.TENSOR_NAME)
            return fail(context, c.IMPOSSIBLE_SIZES, name, room, end)
    return c.DONE


@helper("int64", "int64", "int64", "int64")
def plan_segment(program: int, context: int, number: int) -> int:
    """Plan a segment whose symbols have their sizes."""
    record = segment_record(program, number)
    if plan(run_block(program, context, number)) != abi.PLANNED:
        return c.IMPOSSIBLE_SIZES
    status = _check_sizes(program, context, record)
    if status != c.DONE:
        return status
    return _measure_tensors(program, context, record)


@helper("int64", "int64", "int64", "int64", "int64", "int64")
def plan_context(program: int, context: int, size: int, threads: int, sizes: int) -> int:
    """Make a context, and plan it for the symbols' `sizes`."""
    symbols = peek(program, c.PROGRAM_SYMBOL_COUNT)
    if context == 0 or (sizes == 0 and symbols > 0):
        return c.NULL_POINTER
    if context % c.CONTEXT_ALIGNMENT != 0:
        return c.MISALIGNED
    need = context_size(program, threads)
    if need < 0:
        return -need
    if size < need:
        return c.CONTEXT_TOO_SMALL
    _initialise(program, context, threads)
    if not cpu_fits(program):
        return c.UNSUPPORTED_CPU
    slots = peek(context, c.CONTEXT_RUN + abi.RUN_SLOTS)
    for number in range(symbols):
        slot = peek(program + peek(program, c.PROGRAM_SYMBOLS), 2 * number + 1)
        poke(slots, slot, peek(sizes, number))
    status = plan_segment(program, context, 0)
    if status != c.DONE:
        return status
    status = _set_probes(program, context)
    if status != c.DONE:
        return status
    poke(context, c.CONTEXT_STATE, c.PLANNED)
    return c.DONE


@helper("int64", "int64", "int64", "int64")
def _check_weights(program: int, weights: int, size: int) -> int:
    """Whether the file of weights at `weights` is as long as this model's, begins as it, and is aligned."""
    need = peek(program, c.PROGRAM_WEIGHT_BYTES)
    if weights == 0:
        return c.NULL_POINTER if need > 0 else c.DONE
    header = peek(program, c.PROGRAM_HEADER_BYTES)
    if size < header + need:
        return c.WRONG_WEIGHTS
    for number in range(header):
        if peek_int8(weights + number) != peek_int8(program + peek(program, c.PROGRAM_HEADER) + number):
            return c.WRONG_WEIGHTS
    return c.DONE if (weights + header) % c.CONTEXT_ALIGNMENT == 0 else c.MISALIGNED


@helper("int64", "int64", "int64", "int64", "int64")
def _check_workspace(program: int, context: int, workspace: int, size: int) -> int:
    need = memory_before(program, context, peek(program, c.PROGRAM_SEGMENT_COUNT))
    if size < need:
        return fail(context, c.WORKSPACE_TOO_SMALL, peek(context, c.CONTEXT_WHERE), size, need)
    if workspace == 0 and need > 0:
        return c.NULL_POINTER
    return c.DONE if workspace % c.CONTEXT_ALIGNMENT == 0 else c.MISALIGNED


@helper("int64", "int64", "int64", "int64")
def bind_segment(program: int, context: int, number: int) -> int:
    """Give a planned segment its part of the workspace, and its steps their kernels."""
    run = run_block(program, context, number)
    poke(run, abi.RUN_WEIGHTS, peek(context, c.CONTEXT_RUN + abi.RUN_WEIGHTS))
    bind(run, peek(context, c.CONTEXT_WORKSPACE) + memory_before(program, context, number))
    kernels = peek(context, c.CONTEXT_KERNELS)
    for turn in range(peek(run, abi.RUN_STEP_COUNT)):
        step = peek(run, abi.RUN_STEPS) + turn * abi.STEP_WORDS * abi.WORD
        poke(step, abi.STEP_KERNEL, peek(kernels, peek(step, abi.STEP_KERNEL)))
    return c.DONE


@helper("int64", "int64", "int64", "int64", "int64", "int64", "int64", "int64")
def bind_context(
    program: int, context: int, weights: int, weight_bytes: int, workspace: int, workspace_bytes: int, find: int
) -> int:
    """Give a planned context its weights and workspace.

    `find` is the address of a function by the kernel ABI that writes the kernels' addresses to its first argument.
    """
    status = context_state(context, c.PLANNED)
    if status != c.DONE:
        return status
    status = _check_weights(program, weights, weight_bytes)
    if status != c.DONE:
        return status
    status = _check_workspace(program, context, workspace, workspace_bytes)
    if status != c.DONE:
        return status
    if peek(context, c.CONTEXT_STATE) == c.BOUND:
        # Binding made addresses of the buffers' offsets.
        lay_out_arena(context + c.CONTEXT_RUN * abi.WORD)
    poke(context, c.CONTEXT_RUN + abi.RUN_WEIGHTS, weights + peek(program, c.PROGRAM_HEADER_BYTES))
    poke(context, c.CONTEXT_WORKSPACE, workspace)
    poke(context, c.CONTEXT_WORKSPACE_BYTES, workspace_bytes)
    call_kernel(find, peek(context, c.CONTEXT_KERNELS), 0, 0, 0)
    bind_segment(program, context, 0)
    poke(context, c.CONTEXT_STATE, c.BOUND)
    return c.DONE


@helper("int64", "int64", "int64")
def set_seed(context: int, seed: int) -> int:
    """Begin the seeds of random operators that have none at `seed`."""
    status = context_state(context, c.PLANNED)
    if status != c.DONE:
        return status
    poke(context, c.CONTEXT_POOL + abi.POOL_SEEDS, seed)
    return c.DONE
