"""The native core's run: it checks arrays and walks over the steps (tables: `onnxsmith.native_layout`)."""

# Intrinsics and helpers are typed by numba, and are Any to mypy.
# mypy: disable-error-code="no-any-return"

from __future__ import annotations

import onnxsmith.native_layout as abi
from onnxsmith_compiler.codegen.kernel_function import helper
from onnxsmith_compiler.codegen.native_intrinsics import (
    add_ordered,
    call_function,
    load_acquire,
    peek,
    peek_int8,
    peek_int16,
    peek_int32,
    poke,
)
from onnxsmith_compiler.codegen.native_pool import run_alone, run_shared, wake_workers

_LOW_32 = 0xFFFFFFFF


@helper("bool", "int64", "int64", "int64")
def _array_matches(check: int, array: int, array_type: int) -> bool:
    """Whether the object at `array` is a numpy array as the check record demands."""
    if peek(array, abi.OBJECT_TYPE) != array_type:
        return False
    if peek(array, abi.ARRAY_DESCR) != peek(check, abi.CHECK_DESCR):
        return False
    rank = peek(check, abi.CHECK_RANK)
    flags = peek(check, abi.CHECK_FLAGS)
    if peek(array, abi.ARRAY_RANK) & _LOW_32 != rank or peek(array, abi.ARRAY_FLAGS) & flags != flags:
        return False
    dims = peek(array, abi.ARRAY_DIMS)
    expected = peek(check, abi.CHECK_DIMS)
    differing = 0
    for axis in range(rank):
        differing |= peek(dims, axis) ^ peek(expected, axis)
    return differing == 0


@helper("bool", "int64", "int64", "int64", "int64")
def _take_arrays(run: int, sequence: int, first: int, count: int) -> bool:
    """Check a tuple or list of `count` arrays against the records from `first` on; store their addresses."""
    pool = peek(run, abi.RUN_POOL)
    kind = peek(sequence, abi.OBJECT_TYPE)
    items = sequence + abi.SEQUENCE_ITEMS * abi.WORD
    if kind == peek(pool, abi.POOL_LIST_TYPE):
        items = peek(items, 0)
    elif kind != peek(pool, abi.POOL_TUPLE_TYPE):
        return False
    if peek(sequence, abi.SEQUENCE_SIZE) != count:
        return False
    array_type = peek(pool, abi.POOL_ARRAY_TYPE)
    for number in range(count):
        array = peek(items, number)
        check = peek(run, abi.RUN_CHECKS) + (first + number) * abi.CHECK_WORDS * abi.WORD
        if not _array_matches(check, array, array_type):
            return False
        poke(peek(run, abi.RUN_IO), first + number, peek(array, abi.ARRAY_DATA))
    return True


@helper("int64", "int64", "int64")
def read_integer(address: int, size: int) -> int:
    """The integer of `size` bytes (negative: signed) at a byte address."""
    if size == -4:
        return peek_int32(address)
    if size == 4:
        return peek_int32(address) & _LOW_32
    if size == -2:
        return peek_int16(address)
    if size == 2:
        return peek_int16(address) & 0xFFFF
    if size == -1:
        return peek_int8(address)
    if size == 1:
        return peek_int8(address) & 0xFF
    return peek(address, 0)


@helper("bool", "int64")
def probes_match(run: int) -> bool:
    """Whether the inputs in RUN_IO hold the sizes that the plan was made for."""
    for number in range(peek(run, abi.RUN_PROBE_COUNT)):
        probe = peek(run, abi.RUN_PROBES) + number * abi.PROBE_WORDS * abi.WORD
        address = peek(peek(run, abi.RUN_IO), peek(probe, abi.PROBE_IO)) + peek(probe, abi.PROBE_BYTES)
        if read_integer(address, peek(probe, abi.PROBE_SIZE)) != peek(probe, abi.PROBE_VALUE):
            return False
    return True


@helper("int64", "int64", "int64", "int64")
def check(run: int, inputs: int, outputs: int) -> int:
    """MISMATCH unless the arrays are what the plan was made for; otherwise fills RUN_IO."""
    input_count = peek(run, abi.RUN_INPUT_COUNT)
    if not _take_arrays(run, inputs, 0, input_count):
        return abi.MISMATCH
    if not _take_arrays(run, outputs, input_count, peek(run, abi.RUN_OUTPUT_COUNT)):
        return abi.MISMATCH
    return abi.DONE if probes_match(run) else abi.MISMATCH


@helper("int64", "int64")
def apply_patches(run: int) -> int:
    """Write the addresses in RUN_IO into the steps' arguments."""
    io = peek(run, abi.RUN_IO)
    patches = peek(run, abi.RUN_PATCHES)
    for number in range(peek(run, abi.RUN_PATCH_COUNT)):
        patch = patches + number * abi.PATCH_WORDS * abi.WORD
        address = peek(io, peek(patch, abi.PATCH_IO)) + peek(patch, abi.PATCH_OFFSET)
        poke(peek(patch, abi.PATCH_TARGET), 0, address)
    return 0


@helper("int64", "int64", "int64", "int64")
def walk_alone(run: int, first: int, last: int) -> int:
    """Run steps [first, last) on the caller, up to the first fault."""
    for number in range(first, last):
        run_alone(run, number)
        if peek(run, abi.RUN_FAULT_CODE) != 0:
            break
    return 0


@helper("int64", "int64", "int64", "int64")
def walk_shared(run: int, first: int, last: int) -> int:
    """Run steps [first, last) on the pool, up to the first fault."""
    pool = peek(run, abi.RUN_POOL)
    add_ordered(pool, abi.POOL_ACTIVE, 1)
    wake_workers(pool, peek(run, abi.RUN_PARALLEL))
    for number in range(first, last):
        step = peek(run, abi.RUN_STEPS) + number * abi.STEP_WORDS * abi.WORD
        if peek(step, abi.STEP_THREADS) > 1:
            run_shared(run, number)
        else:
            run_alone(run, number)
        if load_acquire(run, abi.RUN_FAULT_CODE) != 0:
            break
    add_ordered(pool, abi.POOL_ACTIVE, -1)
    return 0


@helper("int64", "int64", "int64", "int64")
def steps(run: int, first: int, last: int) -> int:
    """`os_steps`: run steps [first, last) of the segment on the addresses in RUN_IO."""
    shared = peek(run, abi.RUN_PARALLEL) > 0
    if shared and peek(peek(run, abi.RUN_POOL), abi.POOL_WORKERS) + 1 < peek(run, abi.RUN_PARALLEL):
        return abi.NEED_THREADS
    poke(run, abi.RUN_FAULT_CODE, 0)
    apply_patches(run)
    if shared:
        walk_shared(run, first, last)
    else:
        walk_alone(run, first, last)
    return abi.DONE if peek(run, abi.RUN_FAULT_CODE) == 0 else abi.FAULT


@helper("int64", "int64", "int64", "int64")
def call(run_array: int, arguments: int, count: int) -> int:
    """`os_call`: check the arrays, then run every step of the segment with the interpreter's lock released."""
    run = peek(peek(run_array, abi.ARRAY_DATA), 0)
    pool = peek(run, abi.RUN_POOL)
    status = abi.MISMATCH
    if count == 2 and check(run, peek(arguments, 0), peek(arguments, 1)) == abi.DONE:
        thread = call_function(peek(pool, abi.POOL_SAVE_THREAD), 0)
        status = steps(run, 0, peek(run, abi.RUN_STEP_COUNT))
        call_function(peek(pool, abi.POOL_RESTORE_THREAD), thread)
    return call_function(peek(pool, abi.POOL_MAKE_INTEGER), status)
