"""What the C functions of a compiled model share with the tables they read: results, and word offsets.

A *program table* is constant data in the library, made by `c_program`: words of int64, lists and texts, which refer to
each other by bytes from its start. A *context* is the caller's memory; `c_plan`, `c_run` and `c_query` work on both.
"""

from __future__ import annotations

from typing import Final

import onnxsmith.native_layout as abi

INTERFACE_VERSION: Final = 1

# What the functions return: the header's names in lower case, and what their texts say.
DONE: Final = 0
NULL_POINTER: Final = 1
MISALIGNED: Final = 2
NO_SUCH_INDEX: Final = 3
BAD_THREADS: Final = 4
CONTEXT_TOO_SMALL: Final = 5
NOT_PLANNED: Final = 6
NOT_BOUND: Final = 7
BUSY: Final = 8
SIZES_DISAGREE: Final = 9
IMPOSSIBLE_SIZES: Final = 10
WRONG_WEIGHTS: Final = 11
WORKSPACE_TOO_SMALL: Final = 12
INPUT_TOO_SMALL: Final = 13
OUTPUT_TOO_SMALL: Final = 14
OTHER_SIZES: Final = 15
UNSUPPORTED_CPU: Final = 16
SIZE_NOT_KNOWN: Final = 17
FAULT: Final = 100  # plus the fault code of the kernel

RESULTS: Final = (
    (DONE, "DONE", "success"),
    (NULL_POINTER, "NULL_POINTER", "a pointer is null"),
    (MISALIGNED, "MISALIGNED", "a pointer is not aligned as the header says"),
    (NO_SUCH_INDEX, "NO_SUCH_INDEX", "there is no input, output, symbol or axis of that number"),
    (BAD_THREADS, "BAD_THREADS", f"the number of threads is not between 1 and {abi.MAX_THREADS}"),
    (CONTEXT_TOO_SMALL, "CONTEXT_TOO_SMALL", "the context is smaller than its size for that many threads"),
    (NOT_PLANNED, "NOT_PLANNED", "the context was not planned, or was moved"),
    (NOT_BOUND, "NOT_BOUND", "the context has no weights and workspace yet"),
    (BUSY, "BUSY", "another thread runs the model in this context"),
    (SIZES_DISAGREE, "SIZES_DISAGREE", "the sizes do not fit each other"),
    (IMPOSSIBLE_SIZES, "IMPOSSIBLE_SIZES", "a tensor would have a negative size, or more bytes than memory"),
    (WRONG_WEIGHTS, "WRONG_WEIGHTS", "the weights are not those of this model, or are cut off"),
    (WORKSPACE_TOO_SMALL, "WORKSPACE_TOO_SMALL", "the workspace is smaller than its size"),
    (INPUT_TOO_SMALL, "INPUT_TOO_SMALL", "the buffer of an input is smaller than the input"),
    (OUTPUT_TOO_SMALL, "OUTPUT_TOO_SMALL", "the buffer of an output is smaller than the output"),
    (OTHER_SIZES, "OTHER_SIZES", "an input holds another size than the one that was planned for"),
    (UNSUPPORTED_CPU, "UNSUPPORTED_CPU", "this CPU lacks instructions that the library uses"),
    (SIZE_NOT_KNOWN, "SIZE_NOT_KNOWN", "the size depends on what a run computes, and none came so far"),
    (FAULT + 1, "INDEX_OUT_OF_BOUNDS", "an index in the data is out of bounds"),
    (FAULT + 2, "DIVISION_BY_ZERO", "an integer is divided by zero"),
    (FAULT + 3, "INVALID_VALUE", "the data has a value that an operator does not take"),
    (FAULT + 4, "SCRATCH_TOO_SMALL", "a kernel has too little scratch memory: a fault of onnxsmith"),
)
"""(code, name, text) of everything that is returned."""

CONTEXT_ALIGNMENT: Final = 64  # bytes; of workspaces and of the weights' data too

# A buffer as the caller gives it.
BUFFER_DATA: Final = 0
BUFFER_BYTES: Final = 1
BUFFER_WORDS: Final = 2

# A fault as the caller gets it.
REPORT_WHERE: Final = 0  # address of a text
REPORT_VALUE: Final = 1
REPORT_LIMIT: Final = 2

# The context, in words. What several threads write lies on cache lines of its own.
CONTEXT_MARK: Final = 0  # MARK plus the context's address
CONTEXT_STATE: Final = 1  # UNPLANNED, PLANNED, BOUND
CONTEXT_WHERE: Final = 2  # address of the text that names what failed last, and two numbers about it
CONTEXT_VALUE: Final = 3
CONTEXT_LIMIT: Final = 4
CONTEXT_BYTES: Final = 5  # address of the bytes of each input, then of each output; -1 for what is not known yet
CONTEXT_KERNELS: Final = 6  # address of the kernels' addresses
CONTEXT_BUSY: Final = 8  # 1 while a thread runs the model
CONTEXT_WORKSPACE: Final = 9  # address of the workspace, and its bytes
CONTEXT_WORKSPACE_BYTES: Final = 10
CONTEXT_NOW: Final = 11  # address of the run block of the segment that runs
CONTEXT_ARRIVED: Final = 16  # lent threads that came to the run in progress, and those that left it
CONTEXT_LEFT: Final = 17
CONTEXT_FINISHED: Final = 24  # 1 once all steps are done
CONTEXT_POOL: Final = 32  # the pool's state, without words for sleeping workers
CONTEXT_RUN: Final = CONTEXT_POOL + abi.POOL_SLEEPS  # the first segment's run block
CONTEXT_TABLES: Final = CONTEXT_RUN + abi.RUN_WORDS

MARK: Final = 0x6F6E6E78736D6974
UNPLANNED: Final = 0
PLANNED: Final = 1
BOUND: Final = 2

# The program table. Lists are of words; their places are in bytes from the table's start.
PROGRAM_CONTEXT_WORDS: Final = 0  # of a context, without what each thread has
PROGRAM_VALUES: Final = 1  # pairs: word of the context, what it begins as
PROGRAM_VALUE_COUNT: Final = 2
PROGRAM_ADDRESSES: Final = 3  # pairs: word of the context, word of the context whose address it holds
PROGRAM_ADDRESS_COUNT: Final = 4
PROGRAM_CONSTANTS: Final = 5  # pairs: word of the context, place in this table whose address it holds
PROGRAM_CONSTANT_COUNT: Final = 6
PROGRAM_SYMBOLS: Final = 7  # pairs: place of the name, slot; of those that the caller chooses
PROGRAM_SYMBOL_COUNT: Final = 8
PROGRAM_SEGMENTS: Final = 9  # segment records
PROGRAM_SEGMENT_COUNT: Final = 10
PROGRAM_TENSORS: Final = 11  # tensor records: inputs, then outputs
PROGRAM_TENSOR_COUNT: Final = 12
PROGRAM_PROBES: Final = 13  # for each probe record the slot of its value
PROGRAM_WEIGHT_BYTES: Final = 14
PROGRAM_HEADER: Final = 15  # the beginning of the weights' file
PROGRAM_HEADER_BYTES: Final = 16
PROGRAM_NODES: Final = 17  # for each step the place of a text that names its nodes
PROGRAM_TEXTS: Final = 18  # pairs: code, place of its text
PROGRAM_TEXT_COUNT: Final = 19
PROGRAM_NO_TEXT: Final = 20  # a text for codes that nothing returns
PROGRAM_CPU: Final = 21  # CPU records
PROGRAM_CPU_COUNT: Final = 22
PROGRAM_CPU_STATES: Final = 23  # bits of XCR0
PROGRAM_WORDS: Final = 24

# CPU record: the fields of cpu_id.Wanted.
CPU_LEAF: Final = 0
CPU_SUBLEAF: Final = 1
CPU_REGISTER: Final = 2
CPU_MASK: Final = 3
CPU_WORDS: Final = 4

# Segment record.
SEGMENT_RUN: Final = 0  # word of the context at which its run block is
SEGMENT_BINDINGS: Final = 1  # binding records; the first segment's are symbols and probes
SEGMENT_BINDING_COUNT: Final = 2
SEGMENT_CHECKS: Final = 3  # check records
SEGMENT_CHECK_COUNT: Final = 4
SEGMENT_TENSORS: Final = 5  # numbers of the inputs and outputs whose sizes are known from this segment on
SEGMENT_TENSOR_COUNT: Final = 6
SEGMENT_WORDS: Final = 7

# Binding record: slots[slot] = the integer of `size` bytes (negative: signed) at a place in a tensor.
BINDING_SLOT: Final = 0
BINDING_BUFFER: Final = 1  # number of the buffer, or -1
BINDING_TENSOR: Final = 2  # else the number of the input or output
BINDING_OFFSET: Final = 3  # slot of an offset, or -1
BINDING_BYTES: Final = 4  # from there
BINDING_SIZE: Final = 5
BINDING_ROOM: Final = 6  # slot of the buffer's size
BINDING_WORDS: Final = 7

# Check record: slots, artifact.Relation, place of the name of the node that needs it.
CHECK_LEFT: Final = 0
CHECK_RIGHT: Final = 1
CHECK_RELATION: Final = 2
CHECK_ORIGIN: Final = 3
CHECK_WORDS: Final = 4

# Tensor record.
TENSOR_NAME: Final = 0  # place
TENSOR_TYPE: Final = 1  # TensorProto.DataType
TENSOR_ITEM_BYTES: Final = 2
TENSOR_RANK: Final = 3
TENSOR_SLOTS: Final = 4  # place of the slots of its dimensions
TENSOR_DIMS: Final = 5  # place of its dimensions: a size, -1 - symbol, or COMPUTED
TENSOR_DEFAULT: Final = 6  # for an input that need not be given, where in the weights it is; else -1
TENSOR_WORDS: Final = 7

COMPUTED: Final = -(1 << 63)  # a dimension that follows from the symbols' sizes
