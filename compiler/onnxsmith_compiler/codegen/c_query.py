"""What the C functions tell of a model and of a context (tables: `c_layout`)."""

# Intrinsics and helpers are typed by numba, and are Any to mypy.
# mypy: disable-error-code="no-any-return"

from __future__ import annotations

import onnxsmith.native_layout as abi
from onnxsmith_compiler.codegen import c_layout as c
from onnxsmith_compiler.codegen.kernel_function import helper
from onnxsmith_compiler.codegen.native_intrinsics import peek, poke


@helper("int64", "int64", "int64")
def tensor_record(program: int, number: int) -> int:
    """Address of the record of tensor `number`."""
    return program + peek(program, c.PROGRAM_TENSORS) + number * c.TENSOR_WORDS * abi.WORD


@helper("int64", "int64", "int64")
def segment_record(program: int, number: int) -> int:
    """Address of the record of segment `number`."""
    return program + peek(program, c.PROGRAM_SEGMENTS) + number * c.SEGMENT_WORDS * abi.WORD


@helper("int64", "int64", "int64", "int64")
def run_block(program: int, context: int, number: int) -> int:
    """Address of the run block of segment `number`."""
    return context + peek(segment_record(program, number), c.SEGMENT_RUN) * abi.WORD


@helper("int64", "int64", "int64")
def context_state(context: int, least: int) -> int:
    """DONE where the context is one, and its state is `least` or a later one."""
    if context == 0:
        return c.NULL_POINTER
    if context % c.CONTEXT_ALIGNMENT != 0:
        return c.MISALIGNED
    if peek(context, c.CONTEXT_MARK) != c.MARK + context:
        return c.NOT_PLANNED
    if peek(context, c.CONTEXT_STATE) < least:
        return c.NOT_PLANNED if least == c.PLANNED else c.NOT_BOUND
    return c.DONE


@helper("int64", "int64", "int64")
def error_text(program: int, code: int) -> int:
    """Address of the text of a result."""
    texts = program + peek(program, c.PROGRAM_TEXTS)
    place = peek(program, c.PROGRAM_NO_TEXT)
    for number in range(peek(program, c.PROGRAM_TEXT_COUNT)):
        if peek(texts, 2 * number) == code:
            place = peek(texts, 2 * number + 1)
    return program + place


@helper("int64", "int64", "int64")
def symbol_name(program: int, number: int) -> int:
    """Address of a symbol's name, or 0."""
    if number < 0 or number >= peek(program, c.PROGRAM_SYMBOL_COUNT):
        return 0
    return program + peek(program + peek(program, c.PROGRAM_SYMBOLS), 2 * number)


@helper("int64", "int64", "int64", "int64", "int64")
def tensor_name(program: int, first: int, count: int, number: int) -> int:
    """Address of the name of tensor `first + number`, or 0 where `number` is not below `count`."""
    if number < 0 or number >= count:
        return 0
    return program + peek(tensor_record(program, first + number), c.TENSOR_NAME)


@helper("int64", "int64", "int64", "int64", "int64")
def tensor_type(program: int, first: int, count: int, number: int) -> int:
    """The element type of tensor `first + number`, or -NO_SUCH_INDEX."""
    if number < 0 or number >= count:
        return -c.NO_SUCH_INDEX
    return peek(tensor_record(program, first + number), c.TENSOR_TYPE)


@helper("int64", "int64", "int64", "int64", "int64")
def tensor_rank(program: int, first: int, count: int, number: int) -> int:
    """The number of dimensions of tensor `first + number`, or -NO_SUCH_INDEX."""
    if number < 0 or number >= count:
        return -c.NO_SUCH_INDEX
    return peek(tensor_record(program, first + number), c.TENSOR_RANK)


@helper("int64", "int64", "int64", "int64", "int64", "int64")
def tensor_dim(program: int, first: int, count: int, number: int, axis: int) -> int:
    """Dimension `axis` of tensor `first + number`: a size, -1 - symbol or COMPUTED, which it is for no axis too."""
    if number < 0 or number >= count:
        return c.COMPUTED
    record = tensor_record(program, first + number)
    if axis < 0 or axis >= peek(record, c.TENSOR_RANK):
        return c.COMPUTED
    return peek(program + peek(record, c.TENSOR_DIMS), axis)


@helper("int64", "int64", "int64", "int64", "int64", "int64", "int64")
def planned_dims(program: int, first: int, count: int, context: int, number: int, dims: int) -> int:
    """Write the sizes of tensor `first + number`, as planned, to `dims`."""
    status = context_state(context, c.PLANNED)
    if status != c.DONE:
        return status
    if number < 0 or number >= count:
        return c.NO_SUCH_INDEX
    record = tensor_record(program, first + number)
    rank = peek(record, c.TENSOR_RANK)
    if dims == 0 and rank > 0:
        return c.NULL_POINTER
    if peek(peek(context, c.CONTEXT_BYTES), first + number) < 0:
        return c.SIZE_NOT_KNOWN
    slots = peek(context, c.CONTEXT_RUN + abi.RUN_SLOTS)
    for axis in range(rank):
        poke(dims, axis, peek(slots, peek(program + peek(record, c.TENSOR_SLOTS), axis)))
    return c.DONE


@helper("int64", "int64", "int64", "int64", "int64")
def planned_bytes(first: int, count: int, context: int, number: int) -> int:
    """The bytes of tensor `first + number`, as planned; negative: the code of an error."""
    status = context_state(context, c.PLANNED)
    if status != c.DONE:
        return -status
    if number < 0 or number >= count:
        return -c.NO_SUCH_INDEX
    size = peek(peek(context, c.CONTEXT_BYTES), first + number)
    return size if size >= 0 else -c.SIZE_NOT_KNOWN


@helper("int64", "int64", "int64", "int64")
def memory_before(program: int, context: int, count: int) -> int:
    """The bytes of workspace of the first `count` segments, as far as they are planned."""
    total = 0
    for number in range(count):
        total += peek(run_block(program, context, number), abi.RUN_MEMORY_BYTES)
    return total


@helper("int64", "int64", "int64")
def workspace_size(program: int, context: int) -> int:
    """The bytes of workspace that the context needs; negative: the code of an error."""
    status = context_state(context, c.PLANNED)
    if status != c.DONE:
        return -status
    return memory_before(program, context, peek(program, c.PROGRAM_SEGMENT_COUNT))


@helper("int64", "int64", "int64")
def last_failure(context: int, report: int) -> int:
    """Write what is known of the last failure in this context to `report`."""
    status = context_state(context, c.UNPLANNED)
    if status != c.DONE:
        return status
    if report == 0:
        return c.NULL_POINTER
    poke(report, c.REPORT_WHERE, peek(context, c.CONTEXT_WHERE))
    poke(report, c.REPORT_VALUE, peek(context, c.CONTEXT_VALUE))
    poke(report, c.REPORT_LIMIT, peek(context, c.CONTEXT_LIMIT))
    return c.DONE


@helper("int64", "int64", "int64", "int64", "int64", "int64")
def fail(context: int, code: int, where: int, value: int, limit: int) -> int:
    """`code`, with the address of a text that says where, and two numbers, kept for `last_failure`."""
    poke(context, c.CONTEXT_WHERE, where)
    poke(context, c.CONTEXT_VALUE, value)
    poke(context, c.CONTEXT_LIMIT, limit)
    return code
