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
from onnxsmith_compiler.codegen.c_query import context_state, fail, tensor_record
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
from onnxsmith_compiler.codegen.native_run import apply_patches, probes_match, walk_alone, walk_shared


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


@helper("int64", "int64", "int64", "int64", "int64", "int64", "int64")
def _take_buffers(program: int, context: int, buffers: int, first: int, count: int, too_small: int) -> int:
    if buffers == 0 and count > 0:
        return c.NULL_POINTER
    for number in range(count):
        buffer = buffers + number * c.BUFFER_WORDS * abi.WORD
        status = _take_buffer(program, context, buffer, first + number, too_small)
        if status != c.DONE:
            return status
    return c.DONE


@helper("int64", "int64")
def work(context: int) -> int:
    """Take part in the run in progress: as the thread that walks over the steps, or as one that it shares them with."""
    run = context + c.CONTEXT_RUN * abi.WORD
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


@helper("int64", "int64", "int64", "int64", "int64")
def _run_lent(context: int, parallel: int, state: int, task: int) -> int:
    """Run all steps on the threads in which `parallel` calls `task`, or on this one where it calls it in none."""
    store_ordered(context, c.CONTEXT_FINISHED, 0)
    store_ordered(context, c.CONTEXT_LEFT, 0)
    store_ordered(context, c.CONTEXT_ARRIVED, 0)
    call_parallel(parallel, state, peek(context, c.CONTEXT_RUN + abi.RUN_PARALLEL), task, context)
    work(context)
    # The caller's function may have returned before its threads.
    while load_acquire(context, c.CONTEXT_FINISHED) == 0:
        pause()
    while load_acquire(context, c.CONTEXT_LEFT) != load_acquire(context, c.CONTEXT_ARRIVED):
        pause()
    return c.DONE


@helper("int64", "int64", "int64", "int64", "int64", "int64")
def _run_steps(program: int, context: int, parallel: int, state: int, task: int) -> int:
    run = context + c.CONTEXT_RUN * abi.WORD
    if not probes_match(run):
        return c.OTHER_SIZES
    poke(run, abi.RUN_FAULT_CODE, 0)
    apply_patches(run)
    if parallel != 0 and peek(run, abi.RUN_PARALLEL) > 1:
        _run_lent(context, parallel, state, task)
    else:
        walk_alone(run, 0, peek(run, abi.RUN_STEP_COUNT))
    code = peek(run, abi.RUN_FAULT_CODE)
    if code == 0:
        return c.DONE
    where = program + peek(program + peek(program, c.PROGRAM_NODES), peek(run, abi.RUN_FAULT_STEP))
    return fail(context, c.FAULT + code, where, peek(run, abi.RUN_FAULT_VALUE), peek(run, abi.RUN_FAULT_LIMIT))


@helper("int64", "int64", "int64", "int64", "int64", "int64", "int64", "int64")
def run_context(program: int, context: int, inputs: int, outputs: int, parallel: int, state: int, task: int) -> int:
    """Run the model from and to the caller's buffers."""
    status = context_state(context, c.BOUND)
    if status != c.DONE:
        return status
    if not compare_swap(context, c.CONTEXT_BUSY, 0, 1):
        return c.BUSY
    input_count = peek(context, c.CONTEXT_RUN + abi.RUN_INPUT_COUNT)
    output_count = peek(context, c.CONTEXT_RUN + abi.RUN_OUTPUT_COUNT)
    status = _take_buffers(program, context, inputs, 0, input_count, c.INPUT_TOO_SMALL)
    if status == c.DONE:
        status = _take_buffers(program, context, outputs, input_count, output_count, c.OUTPUT_TOO_SMALL)
    if status == c.DONE:
        status = _run_steps(program, context, parallel, state, task)
    store_release(context, c.CONTEXT_BUSY, 0)
    return status
