"""The native core's thread pool: regions of tickets (tables: `onnxsmith.native_layout`).

A region is one step of one run. Its owner publishes it by a single store of the ticket word: how many threads
may take part, how many tickets there are, which are taken. Threads of even number take tickets from the
beginning, the others from the end: steps walk their tensors in order, so that a thread mostly finds in its own
caches what it wrote in the step before. A thread takes tickets by a compare-and-swap of that word, so a thread
that comes late sees only what is true now, and whoever holds a ticket keeps the region open: the owner returns
once all tickets are counted as done. Nothing waits for a thread that holds none. As long as many tickets are left a
thread takes several at a time, since threads slow each other down at that word; towards the end one by one, so that
all finish together.

The pool has one owner at a time; a caller that finds it owned runs its step alone. Workers spin, for a
bounded number of turns, only while some run is in progress, and sleep otherwise, each on a word of its own. A
thread that is about to sleep first says so, then looks for work once more; one that publishes work first
publishes, then looks who sleeps. Both in sequential order, so that no wake-up is lost.
"""

# Intrinsics and helpers are typed by numba, and are Any to mypy.
# mypy: disable-error-code="no-any-return"

from __future__ import annotations

import onnxsmith.native_layout as abi
from onnxsmith_compiler.codegen.kernel_function import helper
from onnxsmith_compiler.codegen.native_intrinsics import (
    add_ordered,
    call_kernel,
    call_variadic,
    call_words,
    compare_swap,
    load_acquire,
    load_ordered,
    pause,
    peek,
    poke,
    store_ordered,
    store_release,
)
from onnxsmith_compiler.codegen.scalar import minimum

_FUTEX_WAIT_PRIVATE = 128
_FUTEX_WAKE_PRIVATE = 129
_INFINITE = 0xFFFFFFFF
_UL_COMPARE_AND_WAIT = 1


@helper("int64", "int64", "int64", "int64", "int64")
def _futex(pool: int, index: int, operation: int, value: int) -> int:
    system_call = peek(pool, abi.POOL_WAIT_FUNCTION)
    number = peek(pool, abi.POOL_WAIT_NUMBER)
    return call_variadic(system_call, number, pool + index * abi.WORD, operation, value, 0, 0, 0)


@helper("int64", "int64", "int64")
def _wait(pool: int, index: int) -> int:
    """Sleep while word `index` of the pool is 1; may return early."""
    kind, function = peek(pool, abi.POOL_WAIT_KIND), peek(pool, abi.POOL_WAIT_FUNCTION)
    word = pool + index * abi.WORD
    if kind == abi.WAIT_FUTEX:
        _futex(pool, index, _FUTEX_WAIT_PRIVATE, 1)
    elif kind == abi.WAIT_ON_ADDRESS:
        call_words(function, word, pool + abi.POOL_ONE * abi.WORD, abi.WORD, _INFINITE)
    elif kind == abi.WAIT_ULOCK:
        call_words(function, _UL_COMPARE_AND_WAIT, word, 1, 0)
    return 0


@helper("int64", "int64", "int64")
def _wake(pool: int, index: int) -> int:
    """Wake the thread that sleeps on word `index` of the pool, if one does."""
    if load_ordered(pool, index) != 1:
        return 0
    store_ordered(pool, index, 0)
    kind, function = peek(pool, abi.POOL_WAIT_KIND), peek(pool, abi.POOL_WAKE_FUNCTION)
    word = pool + index * abi.WORD
    if kind == abi.WAIT_FUTEX:
        _futex(pool, index, _FUTEX_WAKE_PRIVATE, 1)
    elif kind == abi.WAIT_ON_ADDRESS:
        call_words(function, word, 0, 0, 0)
    elif kind == abi.WAIT_ULOCK:
        call_words(function, _UL_COMPARE_AND_WAIT, word, 0, 0)
    return 0


@helper("int64", "int64", "int64")
def _spin(pool: int, turn: int) -> int:
    """One turn of a spin loop. Now and then another thread, maybe the one waited for, gets this core."""
    function = peek(pool, abi.POOL_YIELD_FUNCTION)
    if function != 0 and turn % abi.SPINS_PER_YIELD == abi.SPINS_PER_YIELD - 1:
        return call_words(function, 0, 0, 0, 0)
    return pause()


@helper("int64", "int64")
def _sleep_word(number: int) -> int:
    return abi.POOL_SLEEPS + abi.POOL_SLEEP_WORDS * number


@helper("int64", "int64", "int64")
def wake_workers(pool: int, threads: int) -> int:
    """Wake those of the workers 1 .. threads - 1 that sleep."""
    for number in range(1, minimum(threads, peek(pool, abi.POOL_WORKERS) + 1)):
        _wake(pool, _sleep_word(number))
    return 0


@helper("int64", "int64")
def _threads(ticket: int) -> int:
    """How many threads may take part in the region of this ticket word."""
    return ticket >> (3 * abi.TICKET_BITS)


@helper("int64", "int64")
def _tickets(ticket: int) -> int:
    """How many tickets the region of this ticket word has."""
    return (ticket >> (2 * abi.TICKET_BITS)) & abi.TICKET_MASK


@helper("int64", "int64")
def _left(ticket: int) -> int:
    """How many of them nobody has taken."""
    return _tickets(ticket) - (ticket & abi.TICKET_MASK) - ((ticket >> abi.TICKET_BITS) & abi.TICKET_MASK)


@helper("int64", "int64")
def _share(ticket: int) -> int:
    """How many of those left a thread takes at once: half of its part."""
    twice = 2 * _threads(ticket)
    return (_left(ticket) + twice - 1) // twice


@helper("bool", "int64", "int64")
def _open_to(ticket: int, number: int) -> bool:
    """Whether the region of this ticket word has a ticket for thread `number`."""
    return number < _threads(ticket) and _left(ticket) > 0


@helper("int64", "int64", "int64", "int64", "int64", "int64")
def _run_tiles(run: int, number: int, thread: int, begin: int, end: int) -> int:
    """Run tiles [begin, end) of the segment's step `number` on context `thread`, unless the run has failed.

    The first fault of a run is recorded in RUN_FAULT_*.
    """
    if begin >= end or load_acquire(run, abi.RUN_FAULT_CODE) != 0:
        return 0
    step = peek(run, abi.RUN_STEPS) + number * abi.STEP_WORDS * abi.WORD
    context = peek(run, abi.RUN_CONTEXTS) + thread * abi.CONTEXT_WORDS * abi.WORD
    arguments = peek(step, abi.STEP_ARGUMENTS)
    code = call_kernel(peek(step, abi.STEP_KERNEL), context, arguments, begin, end)
    if code != 0 and compare_swap(run, abi.RUN_FAULT_CODE, 0, code):
        poke(run, abi.RUN_FAULT_VALUE, peek(context, abi.CONTEXT_FAULT_VALUE))
        poke(run, abi.RUN_FAULT_LIMIT, peek(context, abi.CONTEXT_FAULT_LIMIT))
        poke(run, abi.RUN_FAULT_STEP, peek(run, abi.RUN_FIRST_STEP) + number)
    return 0


@helper("int64", "int64", "int64")
def run_alone(run: int, number: int) -> int:
    """Run all tiles of the segment's step `number` on the caller."""
    step = peek(run, abi.RUN_STEPS) + number * abi.STEP_WORDS * abi.WORD
    return _run_tiles(run, number, 0, 0, peek(step, abi.STEP_TILES))


@helper("int64", "int64", "int64")
def _take_tickets(pool: int, number: int) -> int:
    """Run tickets of the open region until it has none for thread `number`."""
    from_end = (number & 1) * abi.TICKET_BITS
    while True:
        ticket = load_acquire(pool, abi.POOL_TICKET)
        if not _open_to(ticket, number):
            return 0
        total = _tickets(ticket)
        count = _share(ticket)
        if not compare_swap(pool, abi.POOL_TICKET, ticket, ticket + (count << from_end)):
            continue
        taken = (ticket >> from_end) & abi.TICKET_MASK
        run = peek(pool, abi.POOL_RUN)
        step_number = peek(pool, abi.POOL_STEP)
        step = peek(run, abi.RUN_STEPS) + step_number * abi.STEP_WORDS * abi.WORD
        chunk = peek(step, abi.STEP_CHUNK)
        first = taken if from_end == 0 else total - taken - count
        end = minimum((first + count) * chunk, peek(step, abi.STEP_TILES))
        _run_tiles(run, step_number, number, first * chunk, end)
        if add_ordered(pool, abi.POOL_DONE, count) + count == total:
            _wake(pool, abi.POOL_CALLER_SLEEPS)


@helper("bool", "int64", "int64")
def take_open_tickets(pool: int, number: int) -> bool:
    """Run tickets as thread `number` if a region has some for it; whether one had."""
    if not _open_to(load_acquire(pool, abi.POOL_TICKET), number):
        return False
    _take_tickets(pool, number)
    return True


@helper("int64", "int64", "int64")
def _wait_for_region(pool: int, total: int) -> int:
    """Return when all tickets of the open region are done."""
    spins = 0
    limit = peek(pool, abi.POOL_SPIN)
    while load_acquire(pool, abi.POOL_DONE) != total:
        if spins < limit:
            _spin(pool, spins)
            spins += 1
            continue
        store_ordered(pool, abi.POOL_CALLER_SLEEPS, 1)
        if load_ordered(pool, abi.POOL_DONE) != total:
            _wait(pool, abi.POOL_CALLER_SLEEPS)
        store_ordered(pool, abi.POOL_CALLER_SLEEPS, 0)
    return 0


@helper("int64", "int64", "int64")
def run_shared(run: int, number: int) -> int:
    """Run the segment's step `number` on the pool, or on the caller alone where the pool is owned."""
    pool = peek(run, abi.RUN_POOL)
    if not compare_swap(pool, abi.POOL_OWNER, 0, 1):
        return run_alone(run, number)
    step = peek(run, abi.RUN_STEPS) + number * abi.STEP_WORDS * abi.WORD
    threads = peek(step, abi.STEP_THREADS)
    total = peek(step, abi.STEP_CHUNKS)
    poke(pool, abi.POOL_RUN, run)
    poke(pool, abi.POOL_STEP, number)
    poke(pool, abi.POOL_DONE, 0)
    ticket = (threads << (3 * abi.TICKET_BITS)) | (total << (2 * abi.TICKET_BITS))
    store_ordered(pool, abi.POOL_TICKET, ticket)
    if peek(step, abi.STEP_WAKE) != 0:
        wake_workers(pool, threads)
    _take_tickets(pool, 0)
    _wait_for_region(pool, total)
    store_release(pool, abi.POOL_OWNER, 0)
    return 0


@helper("int64", "int64", "int64")
def pool_worker(pool: int, number: int) -> int:
    """`os_pool_worker`: take part in regions as thread `number` (1 and up) until the pool stops."""
    sleep_word = _sleep_word(number)
    spins = 0
    while load_acquire(pool, abi.POOL_STOP) == 0:
        if take_open_tickets(pool, number):
            spins = 0
        elif load_acquire(pool, abi.POOL_ACTIVE) > 0 and spins < peek(pool, abi.POOL_SPIN):
            _spin(pool, spins)
            spins += 1
        else:
            store_ordered(pool, sleep_word, 1)
            work = _open_to(load_ordered(pool, abi.POOL_TICKET), number)
            if not work and load_ordered(pool, abi.POOL_STOP) == 0:
                _wait(pool, sleep_word)
            store_ordered(pool, sleep_word, 0)
            spins = 0
    return 0


@helper("int64", "int64")
def pool_stop(pool: int) -> int:
    """`os_pool_stop`: make every worker return from `os_pool_worker`."""
    store_ordered(pool, abi.POOL_STOP, 1)
    wake_workers(pool, abi.MAX_THREADS)
    return 0


@helper("int64", "int64")
def pool_spin(count: int) -> int:
    """`os_pool_spin`: `count` turns of the wait in a spin loop."""
    for _ in range(count):
        pause()
    return count
