"""The C function that runs a model, and what lent threads do (tables: `c_layout`).

Lent threads come through a function of the caller's, which is asked once a run to call a task some times. The thread
that comes first walks over the steps, the others take tickets from it (`native_pool`) until it is done. So results do
not depend on which threads call the task, how many of them at once, or when; nothing waits for one that has not come.
"""

# Intrinsics and helpers are typed by numba, and are Any to mypy.
# mypy: disable-error-code="no-any-return"

from __future__ import annotations

import onnxsmith.native_layout as abi
from onnxsmith_compiler.codegen import c_layout as c
from onnxsmith_compiler.codegen.c_plan import bind_segment, plan_segment
from onnxsmith_compiler.codegen.c_query import (
    context_state,
    fail,
    memory_before,
    run_block,
    segment_record,
    tensor_record,
)
from onnxsmith_compiler.codegen.kernel_function import helper
from onnxsmith_compiler.codegen.native_intrinsics import (
    add_ordered,
    call_parallel,
    compare_swap,
    load_acquire,
    pause,
    peek,
    poke,
    store_ordered,
    store_release,
)
from onnxsmith_compiler.codegen.native_pool import take_open_tickets
from onnxsmith_compiler.codegen.native_run import (
    apply_patches,
    probes_match,
    read_integer,
    walk_alone,
    walk_shared,
)


@helper("int64", "int64", "int64", "int64", "int64", "int64")
def _take_buffer(program: int, context: int, buffer: int, number: int, too_small: int) -> int:
    """Check the buffer of tensor `number`, and note where it is."""
    record = tensor_record(program, number)
    name = program + peek(record, c.TENSOR_NAME)
    need = peek(peek(context, c.CONTEXT_BYTES), number)
    size = peek(buffer, c.BUFFER_BYTES)
    data = peek(buffer, c.BUFFER_DATA)
    default = peek(record, c.TENSOR_DEFAULT)
    if data == 0 and default >= 0:
        data = peek(context, c.CONTEXT_RUN + abi.RUN_WEIGHTS) + default
    elif data == 0 and need > 0:
        return fail(context, c.NULL_POINTER, name, 0, need)
    elif size < need:
        return fail(context, too_small, name, size, need)
    elif data % peek(record, c.TENSOR_ITEM_BYTES) != 0:
        return fail(context, c.MISALIGNED, name, data, peek(record, c.TENSOR_ITEM_BYTES))
    poke(peek(context, c.CONTEXT_RUN + abi.RUN_IO), number, data)
    return c.DONE


@helper("int64", "int64", "int64", "int64", "int64", "int64")
def _take_buffers(program: int, context: int, segment: int, inputs: int, outputs: int) -> int:
    """Check the buffers of the inputs and outputs that are known from the segment on, and note where they are."""
    record = segment_record(program, segment)
    input_count = peek(context, c.CONTEXT_RUN + abi.RUN_INPUT_COUNT)
    for turn in range(peek(record, c.SEGMENT_TENSOR_COUNT)):
        number = peek(program + peek(record, c.SEGMENT_TENSORS), turn)
        buffer = inputs + number * c.BUFFER_WORDS * abi.WORD
        too_small = c.INPUT_TOO_SMALL
        if number >= input_count:
            buffer = outputs + (number - input_count) * c.BUFFER_WORDS * abi.WORD
            too_small = c.OUTPUT_TOO_SMALL
        status = _take_buffer(program, context, buffer, number, too_small)
        if status != c.DONE:
            return status
    return c.DONE


@helper("int64", "int64")
def work(context: int) -> int:
    """Take part in the run in progress: as the thread that walks over the steps, or as one that it shares them with."""
    run = peek(context, c.CONTEXT_NOW)
    pool = context + c.CONTEXT_POOL * abi.WORD
    number = add_ordered(context, c.CONTEXT_ARRIVED, 1)
    if number == 0:
        walk_shared(run, 0, peek(run, abi.RUN_STEP_COUNT))
        store_release(context, c.CONTEXT_FINISHED, 1)
    elif number < peek(run, abi.RUN_PARALLEL):
        while load_acquire(context, c.CONTEXT_FINISHED) == 0:
            if not take_open_tickets(pool, number):
                pause()
    add_ordered(context, c.CONTEXT_LEFT, 1)
    return c.DONE


@helper("int64", "int64", "int64", "int64", "int64", "int64")
def _run_lent(context: int, run: int, parallel: int, state: int, task: int) -> int:
    """Run all steps on the threads in which `parallel` calls `task`, or on this one where it calls it in none."""
    poke(context, c.CONTEXT_NOW, run)
    store_ordered(context, c.CONTEXT_FINISHED, 0)
    store_ordered(context, c.CONTEXT_LEFT, 0)
    store_ordered(context, c.CONTEXT_ARRIVED, 0)
    call_parallel(parallel, state, peek(run, abi.RUN_PARALLEL), task, context)
    work(context)
    # The caller's function may have returned before its threads.
    while load_acquire(context, c.CONTEXT_FINISHED) == 0:
        pause()
    while load_acquire(context, c.CONTEXT_LEFT) != load_acquire(context, c.CONTEXT_ARRIVED):
        pause()
    return c.DONE


@helper("int64", "int64", "int64", "int64", "int64", "int64", "int64")
def _run_steps(program: int, context: int, run: int, parallel: int, state: int, task: int) -> int:
    """Run the steps of a segment."""
    poke(run, abi.RUN_FAULT_CODE, 0)
    apply_patches(run)
    if parallel != 0 and peek(run, abi.RUN_PARALLEL) > 1:
        _run_lent(context, run, parallel, state, task)
    else:
        walk_alone(run, 0, peek(run, abi.RUN_STEP_COUNT))
    code = peek(run, abi.RUN_FAULT_CODE)
    if code == 0:
        return c.DONE
    where = program + peek(program + peek(program, c.PROGRAM_NODES), peek(run, abi.RUN_FAULT_STEP))
    return fail(context, c.FAULT + code, where, peek(run, abi.RUN_FAULT_VALUE), peek(run, abi.RUN_FAULT_LIMIT))


@helper("bool", "int64", "int64")
def _read_size(context: int, binding: int) -> bool:
    """Set the slot of a binding; False where it lies outside of its tensor."""
    run = context + c.CONTEXT_RUN * abi.WORD
    slots = peek(run, abi.RUN_SLOTS)
    place = peek(binding, c.BINDING_BYTES)
    if peek(binding, c.BINDING_OFFSET) >= 0:
        place += peek(slots, peek(binding, c.BINDING_OFFSET))
    buffer = peek(binding, c.BINDING_BUFFER)
    if buffer >= 0:
        address = peek(peek(run, abi.RUN_BUFFERS), buffer)
        room = peek(slots, peek(binding, c.BINDING_ROOM))
    else:
        address = peek(peek(run, abi.RUN_IO), peek(binding, c.BINDING_TENSOR))
        room = peek(peek(context, c.CONTEXT_BYTES), peek(binding, c.BINDING_TENSOR))
    size = peek(binding, c.BINDING_SIZE)
    if place < 0 or place > room - abs(size):
        return False
    poke(slots, peek(binding, c.BINDING_SLOT), read_integer(address + place, size))
    return True


@helper("int64", "int64", "int64", "int64", "int64")
def _prepare_segment(program: int, context: int, number: int, outputs: int) -> int:
    """Read the sizes that a later segment waits for, and make it ready."""
    record = segment_record(program, number)
    for turn in range(peek(record, c.SEGMENT_BINDING_COUNT)):
        binding = program + peek(record, c.SEGMENT_BINDINGS) + turn * c.BINDING_WORDS * abi.WORD
        if not _read_size(context, binding):
            return c.IMPOSSIBLE_SIZES
    status = plan_segment(program, context, number)
    if status != c.DONE:
        return status
    need = memory_before(program, context, number + 1)
    room = peek(context, c.CONTEXT_WORKSPACE_BYTES)
    if need > room:
        return fail(context, c.WORKSPACE_TOO_SMALL, peek(context, c.CONTEXT_WHERE), room, need)
    status = _take_buffers(program, context, number, 0, outputs)
    if status == c.DONE:
        bind_segment(program, context, number)
    return status


@helper("int64", "int64", "int64")
def _forget_sizes(program: int, context: int) -> int:
    """What only a run can tell is not known any more."""
    for number in range(1, peek(program, c.PROGRAM_SEGMENT_COUNT)):
        record = segment_record(program, number)
        for turn in range(peek(record, c.SEGMENT_TENSOR_COUNT)):
            tensor = peek(program + peek(record, c.SEGMENT_TENSORS), turn)
            poke(peek(context, c.CONTEXT_BYTES), tensor, -1)
    return c.DONE


@helper("int64", "int64", "int64", "int64", "int64", "int64", "int64", "int64")
def _run_segments(program: int, context: int, inputs: int, outputs: int, parallel: int, state: int, task: int) -> int:
    _forget_sizes(program, context)
    status = _take_buffers(program, context, 0, inputs, outputs)
    if status == c.DONE and not probes_match(context + c.CONTEXT_RUN * abi.WORD):
        status = c.OTHER_SIZES
    for number in range(peek(program, c.PROGRAM_SEGMENT_COUNT)):
        if status == c.DONE and number > 0:
            status = _prepare_segment(program, context, number, outputs)
        if status == c.DONE:
            status = _run_steps(program, context, run_block(program, context, number), parallel, state, task)
    return status


@helper("int64", "int64", "int64", "int64", "int64", "int64", "int64", "int64")
def run_context(program: int, context: int, inputs: int, outputs: int, parallel: int, state: int, task: int) -> int:
    """Run the model from and to the caller's buffers."""
    status = context_state(context, c.BOUND)
    if status != c.DONE:
        return status
    run = context + c.CONTEXT_RUN * abi.WORD
    if (inputs == 0 and peek(run, abi.RUN_INPUT_COUNT) > 0) or (outputs == 0 and peek(run, abi.RUN_OUTPUT_COUNT) > 0):
        return c.NULL_POINTER
    if not compare_swap(context, c.CONTEXT_BUSY, 0, 1):
        return c.BUSY
    status = _run_segments(program, context, inputs, outputs, parallel, state, task)
    store_release(context, c.CONTEXT_BUSY, 0)
    return status
