"""Memory layout shared by the native core and the runtime: word offsets, codes and bounds.

All tables are int64 words. The compiler's `codegen.native_core` compiles functions that read and write
them, `onnxsmith.tables`, `plan` and `threads` fill them. A change here is a new CORE_VERSION.

The core's C entry points, all `int64 f(...)` of int64 words:

| symbol | meaning |
|---|---|
| `os_core_version()` | CORE_VERSION of the code |
| `os_plan(run)` | runs the segment's instructions, lays its arena out: PLANNED or an error |
| `os_bind(run, memory)` | fills argument tables, step records and patches, for memory of RUN_MEMORY_BYTES |
| `os_steps(run, first, last)` | runs steps [first, last) of the segment on the addresses in RUN_IO |
| `os_call(array, arguments, 2)` | Python's call of a built-in function: compares arrays with the plan, runs all steps |
| `os_pool_worker(pool, number)` | the life of worker `number`, returns when POOL_STOP is set |
| `os_pool_stop(pool)` | sets POOL_STOP and wakes every worker |
| `os_pool_spin(count)` | `count` turns of the spin loop, for calibration |
"""

from __future__ import annotations

from typing import Final

CORE_VERSION: Final = 3

# Status of os_steps and, as an int object, of os_call.
DONE: Final = 0
MISMATCH: Final = 1  # an array differs from what the plan was made for: nothing was run
NEED_THREADS: Final = 2  # the pool has fewer workers than the run may use: nothing was run
FAULT: Final = 3  # a kernel returned a fault: RUN_FAULT_*

# Status of os_plan; RUN_FAULT_STEP then holds the number of the instruction, buffer or step.
PLANNED: Final = 0
OVERFLOWING_INSTRUCTION: Final = 1
DIVIDING_INSTRUCTION: Final = 2  # by zero
BAD_BUFFER: Final = 3  # its size is negative or beyond memory
BAD_STEP: Final = 4  # tiles, cost or scratch negative or beyond memory
ARENA_OVERFLOW: Final = 5

ALIGNMENT: Final = 64  # bytes, of buffers and of scratch
WORD: Final = 8

# One thread's context, as kernels see it.
CONTEXT_SCRATCH: Final = 0
CONTEXT_SCRATCH_BYTES: Final = 1
CONTEXT_THREAD: Final = 2
CONTEXT_FAULT_VALUE: Final = 3
CONTEXT_FAULT_LIMIT: Final = 4
CONTEXT_SEEDS: Final = 5  # address of the process's state of seeds
CONTEXT_WORDS: Final = 16

# The run block: one for each segment of a plan.
RUN_STEPS: Final = 0  # address of step records
RUN_STEP_COUNT: Final = 1
RUN_FIRST_STEP: Final = 2  # program-wide number of the first step
RUN_PATCHES: Final = 3  # address of patch records
RUN_PATCH_COUNT: Final = 4
RUN_IO: Final = 5  # addresses of the inputs, then of the outputs
RUN_CHECKS: Final = 6  # check records: inputs, then outputs
RUN_INPUT_COUNT: Final = 7
RUN_OUTPUT_COUNT: Final = 8
RUN_PROBES: Final = 9  # elements of inputs that the plan depends on
RUN_PROBE_COUNT: Final = 10
RUN_CONTEXTS: Final = 11  # CONTEXT_WORDS a thread
RUN_THREADS: Final = 12  # the most threads, the caller included
RUN_POOL: Final = 13  # address of the pool's state
RUN_FAULT_CODE: Final = 14
RUN_FAULT_VALUE: Final = 15
RUN_FAULT_LIMIT: Final = 16
RUN_FAULT_STEP: Final = 17
RUN_PARALLEL: Final = 18  # the most threads that a step is worth, 0: the pool is not touched
RUN_SLOTS: Final = 19
RUN_BUFFERS: Final = 20  # addresses of all buffers of the program
RUN_WEIGHTS: Final = 21
RUN_ARGUMENTS: Final = 22  # the int64 tables given to kernels
RUN_INSTRUCTIONS: Final = 23  # instruction records
RUN_INSTRUCTION_COUNT: Final = 24
RUN_BUFFER_SPECS: Final = 25  # buffer records
RUN_BUFFER_COUNT: Final = 26
RUN_STEP_SPECS: Final = 27
RUN_ARGUMENT_SPECS: Final = 28
RUN_WORK: Final = 29  # 2 words a buffer, for the layout
RUN_ARENA_BYTES: Final = 30
RUN_SCRATCH_BYTES: Final = 31  # of one thread, a multiple of SCRATCH_ALIGNMENT
RUN_MEMORY_BYTES: Final = 32  # scratch of all threads and the arena
RUN_WORDS: Final = 40

SCRATCH_ALIGNMENT: Final = 4096  # no two threads' scratch on one page

# Instruction record: the fields of artifact.Instruction.
INSTRUCTION_OP: Final = 0
INSTRUCTION_DST: Final = 1
INSTRUCTION_A: Final = 2
INSTRUCTION_B: Final = 3
INSTRUCTION_WORDS: Final = 4

# Buffer record: number in the program, slot of its size, first and last step.
BUFFER_NUMBER: Final = 0
BUFFER_SLOT: Final = 1
BUFFER_FIRST: Final = 2
BUFFER_LAST: Final = 3
BUFFER_WORDS: Final = 4

# Step specification: what artifact.Step says.
SPEC_KERNEL: Final = 0  # address of the function
SPEC_ARGUMENTS: Final = 1  # first argument, counted through the segment
SPEC_ARGUMENT_COUNT: Final = 2
SPEC_TILES: Final = 3  # slots
SPEC_COST: Final = 4
SPEC_SCRATCH: Final = 5
SPEC_WORDS: Final = 6

# Argument specification: place (artifact.Place), index, slot of the offset or -1.
ARGUMENT_PLACE: Final = 0
ARGUMENT_INDEX: Final = 1
ARGUMENT_OFFSET: Final = 2
ARGUMENT_WORDS: Final = 3

# Step record: what the interpreter needs to run a bound step.
STEP_KERNEL: Final = 0
STEP_ARGUMENTS: Final = 1  # address
STEP_TILES: Final = 2
STEP_CHUNK: Final = 3  # tiles a ticket
STEP_CHUNKS: Final = 4  # tickets
STEP_THREADS: Final = 5  # threads worth using, 1: run by the caller alone
STEP_WAKE: Final = 6  # 1: long enough to wake sleeping workers
STEP_WORDS: Final = 8

# Patch record: args[...] = io[index] + offset, for every run.
PATCH_TARGET: Final = 0  # address of the argument
PATCH_IO: Final = 1
PATCH_OFFSET: Final = 2
PATCH_WORDS: Final = 3

# Check record of one array.
CHECK_DESCR: Final = 0  # address of the dtype object
CHECK_RANK: Final = 1
CHECK_DIMS: Final = 2  # address of the expected dimensions, int64 each
CHECK_FLAGS: Final = 3  # array flags that must be set
CHECK_WORDS: Final = 4

# Probe record: the integer at io[index] + bytes must equal the value.
PROBE_IO: Final = 0
PROBE_BYTES: Final = 1
PROBE_SIZE: Final = 2  # 1, 2, 4, 8; negative: signed
PROBE_VALUE: Final = 3
PROBE_WORDS: Final = 4

# CPython objects on 64-bit builds with a two-word object header, in words; `onnxsmith.arrays` verifies it.
OBJECT_TYPE: Final = 1
SEQUENCE_SIZE: Final = 2
SEQUENCE_ITEMS: Final = 3  # a tuple's items; in a list, the address of the items
ARRAY_DATA: Final = 2
ARRAY_RANK: Final = 3  # low 32 bits
ARRAY_DIMS: Final = 4
ARRAY_DESCR: Final = 7
ARRAY_FLAGS: Final = 8  # low 32 bits
ARRAY_CONTIGUOUS: Final = 0x1
ARRAY_ALIGNED: Final = 0x100
ARRAY_WRITEABLE: Final = 0x400

# The pool's state, in words. What different threads write lies on different cache lines.
POOL_TICKET: Final = 0  # threads << 48 | tickets << 32 | taken from the end << 16 | taken from the beginning
POOL_DONE: Final = 8  # tickets finished
POOL_OWNER: Final = 16  # 1 while a caller has a region in the pool
POOL_RUN: Final = 24  # run block of the region, and its step's number in that segment
POOL_STEP: Final = 25
POOL_ACTIVE: Final = 32  # runs in progress that may share steps
POOL_CALLER_SLEEPS: Final = 40  # 1 while the owner sleeps until the last ticket is done
POOL_STOP: Final = 48
POOL_WORKERS: Final = 49
POOL_SPIN: Final = 50  # turns of the spin loop before a thread sleeps
POOL_WAIT_KIND: Final = 51  # WAIT_*
POOL_WAIT_FUNCTION: Final = 52  # address of the function that sleeps on a word
POOL_WAKE_FUNCTION: Final = 62  # and of the one that wakes who sleeps
POOL_WAIT_NUMBER: Final = 53  # system call number of futex
POOL_YIELD_FUNCTION: Final = 57  # address of a function that lets another thread have the core, or 0
POOL_ONE: Final = 63  # always 1: Windows wants the address of what a word is compared with
POOL_SEEDS: Final = 58  # state of the sequence of seeds for random operators without one
POOL_LIST_TYPE: Final = 54  # addresses of the types list, tuple and numpy.ndarray
POOL_TUPLE_TYPE: Final = 55
POOL_ARRAY_TYPE: Final = 56
POOL_SAVE_THREAD: Final = 59  # addresses of Python's functions that release and take the lock, and make an int
POOL_RESTORE_THREAD: Final = 60
POOL_MAKE_INTEGER: Final = 61
POOL_SLEEPS: Final = 64  # 8 words a worker, the first is 1 while worker `number` sleeps
POOL_SLEEP_WORDS: Final = 8
MAX_THREADS: Final = 512
POOL_WORDS: Final = POOL_SLEEPS + POOL_SLEEP_WORDS * MAX_THREADS

SPINS_PER_YIELD: Final = 256  # a power of two

TICKET_BITS: Final = 16
TICKET_MASK: Final = (1 << TICKET_BITS) - 1

# How threads sleep on a word.
WAIT_FUTEX: Final = 1  # Linux: POOL_WAIT_FUNCTION is libc's `syscall`, for waking too
WAIT_ON_ADDRESS: Final = 2  # Windows: WaitOnAddress and WakeByAddressSingle
WAIT_ULOCK: Final = 3  # macOS: __ulock_wait and __ulock_wake, which its own C++ library sleeps with

# Estimates that decide whether and how a step is shared, nanoseconds.
SHARE_NS: Final = 6_000  # a step shorter than this runs on the caller
THREAD_NS: Final = 3_000  # work that a further thread must find
CHUNK_NS: Final = 2_000  # work of a ticket at least
WAKE_NS: Final = 20_000  # a step worth waking a sleeping thread for
RUN_SHARE_NS: Final = 40_000  # a segment whose shareable steps sum to less runs on the caller
CHUNKS_PER_THREAD: Final = 16
