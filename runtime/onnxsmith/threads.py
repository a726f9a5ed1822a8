"""The thread pool of the process: one state in memory, shared by all sessions, and Python threads lent to it.

Native code (`onnxsmith.native_layout`, POOL_*) shares out work; here threads are started when a run first
needs them, restarted after a fork, and stopped at exit.
"""

from __future__ import annotations

import atexit
import ctypes
import functools
import os
import sys
import time
from typing import TYPE_CHECKING, Any

import numpy as np

from onnxsmith import native_layout as abi
from onnxsmith.arrays import native_arrays
from onnxsmith.built_in import interpreter_functions
from onnxsmith.forks import UNDIVIDED
from onnxsmith.memory import Memory
from onnxsmith.seeds import PROCESS_SEEDS

if TYPE_CHECKING:
    import threading

    from onnxsmith.loader import Library

# A thread waits for so long between two steps only where the host of a virtual machine takes a core away for a while.
# It would take that of a thread that sleeps meanwhile as well, and be as slow to give it back.
_SPIN_SECONDS = 2e-3
_CROWDED_SPIN_SECONDS = 2e-6  # with more threads than cores, a spinning thread keeps a working one waiting
_FUTEX_NUMBERS = {"x86_64": 202, "aarch64": 98}


class ThreadPool:
    """The pool's state at `address`, and its workers."""

    def __init__(self) -> None:
        self._memory = Memory(abi.POOL_WORDS * abi.WORD)
        self.address = self._memory.address
        words = (ctypes.c_int64 * abi.POOL_WORDS).from_address(self.address)
        self._words = words
        self._workers: list[threading.Thread] = []
        self._library: Library | None = None
        self._turns_per_second = 0.0
        words[abi.POOL_LIST_TYPE] = id(list)
        words[abi.POOL_TUPLE_TYPE] = id(tuple)
        words[abi.POOL_ARRAY_TYPE] = id(np.ndarray)
        words[abi.POOL_ONE] = 1
        if native_arrays():
            functions = interpreter_functions()
            words[abi.POOL_SAVE_THREAD], words[abi.POOL_RESTORE_THREAD], words[abi.POOL_MAKE_INTEGER] = functions
        self.restart_seeds(PROCESS_SEEDS.draw())
        self.can_sleep = self._bind_sleep()
        if hasattr(os, "register_at_fork"):
            os.register_at_fork(after_in_child=self._restart_in_child)

    def restart_seeds(self, state: int) -> None:
        """Begin the seeds of random operators that have none at `state`, of 64 bits."""
        self._words[abi.POOL_SEEDS] = ctypes.c_int64(state).value

    def threads_allowed(self, threads: int) -> int:
        """How many threads a run that asks for `threads` may use on this system."""
        return max(1, min(threads, abi.MAX_THREADS)) if self.can_sleep else 1

    def ensure(self, threads: int, library: Library) -> None:
        """Have workers for runs of `threads` threads, the caller's included, running the code of `library`.

        Where the system grants no more threads, the pool goes on with those it has.
        """
        with UNDIVIDED:
            if self._words[abi.POOL_STOP]:
                return
            if self._library is None:
                self._library = library
                atexit.register(self._stop)
            self._set_spin(threads)
            for number in range(len(self._workers) + 1, threads):
                if not self._start(number):
                    break
            # Also where threads were refused: a run must not ask again each time.
            self._words[abi.POOL_WORKERS] = max(self._words[abi.POOL_WORKERS], threads - 1)

    def _start(self, number: int) -> bool:
        import threading

        assert self._library is not None
        worker = threading.Thread(
            target=self._library.pool_worker,
            args=(self.address, number),
            name=f"onnxsmith-{number}",
            daemon=True,
        )
        try:
            worker.start()
        except RuntimeError:
            return False
        self._workers.append(worker)
        return True

    def _set_spin(self, threads: int) -> None:
        assert self._library is not None
        if not self._turns_per_second:
            self._turns_per_second = _measure_spin(self._library)
        crowded = max(threads, len(self._workers) + 1) > usable_cores()
        seconds = _CROWDED_SPIN_SECONDS if crowded else _SPIN_SECONDS
        self._words[abi.POOL_SPIN] = max(1, int(seconds * self._turns_per_second))

    def _bind_sleep(self) -> bool:
        """Give native code the system's way to sleep on a word; False where none is known."""
        try:
            kind, wait, wake, give_way = _sleep_functions()
        except (AttributeError, OSError):
            return False
        if kind == abi.WAIT_FUTEX:
            number = _FUTEX_NUMBERS.get(os.uname().machine)
            if number is None:
                return False
            self._words[abi.POOL_WAIT_NUMBER] = number
        for word, function in (
            (abi.POOL_WAIT_FUNCTION, wait), (abi.POOL_WAKE_FUNCTION, wake), (abi.POOL_YIELD_FUNCTION, give_way),
        ):  # fmt: skip
            self._words[word] = ctypes.cast(function, ctypes.c_void_p).value or 0
        self._words[abi.POOL_WAIT_KIND] = kind
        return True

    def _restart_in_child(self) -> None:
        """A fork leaves no worker and no run; the next run that needs workers starts new ones."""
        for word in (
            abi.POOL_TICKET, abi.POOL_DONE, abi.POOL_OWNER, abi.POOL_ACTIVE, abi.POOL_CALLER_SLEEPS,
            abi.POOL_STOP, abi.POOL_WORKERS,
        ):  # fmt: skip
            self._words[word] = 0
        for worker in range(abi.MAX_THREADS):
            self._words[abi.POOL_SLEEPS + abi.POOL_SLEEP_WORDS * worker] = 0
        self._workers.clear()

    def _stop(self) -> None:
        with UNDIVIDED:
            if self._library is not None:
                self._library.pool_stop(self.address)
            for worker in self._workers:
                worker.join()
            self._workers.clear()
            # Whatever still runs finds no fault with the number of workers, and does all work itself.
            self._words[abi.POOL_WORKERS] = abi.MAX_THREADS


@functools.cache
def process_pool() -> ThreadPool:
    """The pool of this process."""
    return ThreadPool()


def _sleep_functions() -> tuple[int, Any, Any, Any]:
    """(WAIT_*, the C functions that sleep, wake and yield). AttributeError or OSError where the system lacks them."""
    if sys.platform == "win32":
        kernel = ctypes.WinDLL("kernelbase")
        return abi.WAIT_ON_ADDRESS, kernel.WaitOnAddress, kernel.WakeByAddressSingle, kernel.SwitchToThread
    c_library = ctypes.CDLL(None)
    if sys.platform == "darwin":
        return abi.WAIT_ULOCK, c_library["__ulock_wait"], c_library["__ulock_wake"], c_library.sched_yield
    return abi.WAIT_FUTEX, c_library.syscall, c_library.syscall, c_library.sched_yield


def _measure_spin(library: Library) -> float:
    """Turns of a spin loop a second."""
    turns = 1000
    best = float("inf")
    for _ in range(3):
        start = time.perf_counter()
        library.pool_spin(turns)
        best = min(best, time.perf_counter() - start)
    return turns / best


def usable_cores() -> int:
    """Processors that this process may use: its affinity, bounded by the quota of its control group."""
    processors = _affinity()
    return max(1, min(len(processors), _quota()))


def default_threads() -> int:
    """Threads for a run that asks for no number: the physical cores among the usable processors."""
    processors = _affinity()
    cores = {_siblings(processor) for processor in processors}
    return max(1, min(len(cores), _quota()))


def session_threads(asked: int) -> int:
    """Threads of a session whose options ask for `asked`: one a processor at most, since more would only take turns."""
    return min(asked, usable_cores()) if asked > 0 else default_threads()


def _affinity() -> set[int]:
    if hasattr(os, "sched_getaffinity"):
        return os.sched_getaffinity(0)
    return set(range(os.cpu_count() or 1))


def _siblings(processor: int) -> str:
    """Names the core of a processor; the processor itself where the system does not tell."""
    try:
        return _read(f"/sys/devices/system/cpu/cpu{processor}/topology/thread_siblings_list")
    except OSError:
        return str(processor)


def _quota() -> int:
    try:
        quota, period = _read("/sys/fs/cgroup/cpu.max").split()
        return max(1, -(-int(quota) // int(period)))
    except (OSError, ValueError):
        return sys.maxsize


def _read(path: str) -> str:
    with open(path, encoding="utf-8") as file:
        return file.read()
