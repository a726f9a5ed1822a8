"""A pool of processes that compile kernels side by side.

numba holds a lock while it compiles, and LLVM ends its process on a fatal error: so kernels are compiled
in processes of their own, which live as long as the pool.
"""

from __future__ import annotations

import dataclasses
import queue
import threading
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor, as_completed
from types import TracebackType
from typing import Protocol

from onnxsmith.protocol import Message
from onnxsmith_compiler import kernel_worker
from onnxsmith_compiler.codegen.compile_errors import KernelCompileError, WorkerCrash
from onnxsmith_compiler.codegen.kernel_key import (
    CORE_PARTS,
    c_functions_key,
    core_key,
    kernel_key,
    kernel_symbol,
    routine_key,
)
from onnxsmith_compiler.codegen.routine_names import called_routines
from onnxsmith_compiler.codegen.source import KernelSource
from onnxsmith_compiler.codegen.target import Target
from onnxsmith_compiler.nursery import Limits, Nursery, Worker, living

_ROUTINE_LENGTH = 3000
Progress = Callable[[int, int], None]


class Claim(Protocol):
    """The right to make something, as `onnxsmith.locks.Claim`."""

    def take(self, *, wait: bool) -> bool: ...

    def release(self) -> None: ...


class Store(Protocol):
    """Bytes by key, as `onnxsmith.cache.Store`."""

    def get(self, key: str) -> bytes | None: ...

    def put(self, key: str, data: bytes) -> None: ...

    def claim(self, key: str) -> Claim: ...


@dataclasses.dataclass(frozen=True, eq=False)
class Objects:
    """Kernels and routines that are being compiled: those `wanted` by key, those `stored` and those to come."""

    wanted: tuple[str, ...]
    stored: dict[str, bytes]
    futures: dict[Future[bytes], str]

    def result(self, on_progress: Progress | None = None) -> dict[str, bytes]:
        """The objects of kernels by `kernel_key`, each of which exports `kernel_symbol(key)`, and of the routines that
        they call by `routine_key`.

        `on_progress(done, total)` counts both. Where some do not compile, the others still are (and kept
        in the store) before the first one's KernelCompileError is raised.
        """
        objects = dict(self.stored)
        failures: dict[str, KernelCompileError] = {}
        for future in _completed(self.futures, on_progress, len(objects), len(self.wanted)):
            key = self.futures[future]
            try:
                objects[key] = future.result()
            except KernelCompileError as error:
                failures[key] = error
        if failures:
            raise next(failures[key] for key in self.wanted if key in failures)
        return objects


class CompilePool:
    """Compiles kernels in `workers` processes, for `target` where no other is named.

    `compiled` counts those that were in no store. A `nursery` that is lent stays with its owner.

    Use as a context manager, or call `close`. `start` returns at once, so that numba is loaded while the caller does
    something else.
    """

    def __init__(
        self,
        workers: int,
        target: Target,
        store: Store | None = None,
        limits: Limits | None = None,
        nursery: Nursery | None = None,
    ) -> None:
        if workers < 1:
            raise ValueError(f"a pool needs at least one worker, not {workers}")
        self.target = target
        self._store = store
        self._limits = limits or Limits()
        # None is a worker that is yet to be forked.
        self._idle: queue.SimpleQueue[Worker | None] = queue.SimpleQueue()
        for _ in range(workers):
            self._idle.put(None)
        self._threads = ThreadPoolExecutor(workers, "compile")
        self._lent = nursery
        self._nursery: Nursery | None = None
        self._starting = threading.Lock()
        self._submitting = threading.Lock()
        self._counting = threading.Lock()
        self.compiled = 0

    def start(self) -> None:
        """Start the process that workers are forked from, unless there is one."""
        self._living_nursery()

    def _living_nursery(self) -> Nursery:
        if self._lent is not None and self._lent.is_alive:
            return self._lent
        with self._starting:
            self._nursery = living(self._nursery, lambda: Nursery(self.target, self._limits))
            return self._nursery

    def compile(self, sources: Iterable[KernelSource], on_progress: Progress | None = None) -> dict[str, bytes]:
        """The objects of `sources`; see `Objects.result`."""
        return self.submit(sources).result(on_progress)

    def submit(self, sources: Iterable[KernelSource], target: Target | None = None) -> Objects:
        """Begin to compile `sources`, and the routines that they call."""
        target = target or self.target
        kernels = {kernel_key(source, target): source for source in sources}
        jobs = {key: _kernel_job(key, source, target) for key, source in kernels.items()}
        for name in sorted({name for source in kernels.values() for name in called_routines(source.text)}):
            jobs[routine_key(name, target)] = _routine_job(name, target)
        return self._begin(jobs)

    def _begin(self, jobs: Mapping[str, _Job]) -> Objects:
        """Have the jobs done whose results are not stored."""
        objects = {key: found for key in jobs if (found := self._stored(key)) is not None}
        missing = {key: job for key, job in jobs.items() if key not in objects}
        # The longest first, so that none is left to one worker at the end.
        order = sorted(missing, key=lambda key: missing[key].length, reverse=True)
        with self._submitting:
            futures = {self._submit(key, missing[key].request, missing[key].label): key for key in order}
        return Objects(tuple(jobs), objects, futures)

    def compile_core(self, target: Target | None = None) -> Objects:
        """Begin to compile the native core, in parts, whose objects are by `core_key`."""
        target = target or self.target
        return self._begin({core_key(part, target): _core_job(part, target) for part in CORE_PARTS})

    def compile_c_functions(self) -> Objects:
        """Begin to compile the C functions that are the same for every model: one object, by `c_functions_key`."""
        request = {"kind": "c_functions", "target": _message(self.target)}
        return self._begin({c_functions_key(self.target): _Job(request, "the C functions", 0)})

    def close(self) -> None:
        """End the workers, once the kernels that they are at are done."""
        self._threads.shutdown(wait=True, cancel_futures=True)
        while not self._idle.empty():
            worker = self._idle.get()
            if worker is not None:
                worker.close()
        if self._nursery is not None:
            self._nursery.close()

    def __enter__(self) -> CompilePool:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _stored(self, key: str) -> bytes | None:
        return None if self._store is None else self._store.get(key)

    def _submit(self, key: str, request: Message, label: str) -> Future[bytes]:
        self.start()
        made: Future[bytes] = Future()
        self._threads.submit(self._make, made, key, request, label, wait=False)
        return made

    def _make(self, made: Future[bytes], key: str, request: Message, label: str, wait: bool) -> None:
        """Complete `made`. What another process is compiling at the moment comes last, when it may be there."""
        try:
            if self._store is None:
                made.set_result(self._compile_one(request, label))
                return
            claim = self._store.claim(key)
            if not claim.take(wait=wait):
                with self._submitting:  # behind all that is submitted together
                    self._threads.submit(self._make, made, key, request, label, wait=True)
                return
            try:
                found = self._store.get(key)
                if found is None:
                    found = self._compile_one(request, label)
                    self._store.put(key, found)
            finally:
                claim.release()
            made.set_result(found)
        except BaseException as problem:
            made.set_exception(problem)

    def _compile_one(self, request: Message, label: str) -> bytes:
        worker = self._idle.get()
        try:
            if worker is None:
                worker = self._living_nursery().fork(label)
            data = worker.compile(request, label)
        except WorkerCrash:
            if worker is not None:
                worker.close()
            worker = None  # whoever needs it next forks another
            raise
        finally:
            self._idle.put(worker)
        with self._counting:
            self.compiled += 1
        return data


@dataclasses.dataclass(frozen=True)
class _Job:
    """What a worker is asked for, what it is called, and about how long it takes, in characters of a kernel's text."""

    request: Message
    label: str
    length: int


def _kernel_job(key: str, source: KernelSource, target: Target) -> _Job:
    request = {
        "kind": "kernel",
        "target": _message(target),
        "source": kernel_worker.source_message(source),
        "symbol": kernel_symbol(key),
    }
    return _Job(request, f"kernel {source.label}", len(source.text))


def _routine_job(name: str, target: Target) -> _Job:
    request = {"kind": "routine", "target": _message(target), "name": name}
    return _Job(request, f"routine {name}", _ROUTINE_LENGTH)


def _core_job(part: str, target: Target) -> _Job:
    request = {"kind": "native_core", "target": _message(target), "name": part}
    return _Job(request, f"the native core's part '{part}'", 0)


def _message(target: Target) -> Message:
    return dataclasses.asdict(target)


def _completed(
    futures: Iterable[Future[bytes]], on_progress: Progress | None, done: int, total: int
) -> Iterable[Future[bytes]]:
    for future in as_completed(futures):
        done += 1
        if on_progress is not None:
            on_progress(done, total)
        yield future
