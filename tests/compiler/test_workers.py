"""The pool of compile workers: results, the store, errors, crashes, limits."""

from __future__ import annotations

import ctypes
import os
import subprocess
import sys
import threading
from collections.abc import Iterator

import pytest

from onnxsmith_compiler import workers
from onnxsmith_compiler.codegen.compile_errors import KernelCompileError, LinkError, WorkerCrash
from onnxsmith_compiler.codegen.elf_linker import link_shared_library
from onnxsmith_compiler.codegen.kernel_key import core_key, kernel_key, kernel_symbol, routine_key
from onnxsmith_compiler.codegen.source import KernelSource, Parameter
from onnxsmith_compiler.codegen.target import Target
from onnxsmith_compiler.workers import CompilePool, Limits

TARGET = Target.host()
BAD = KernelSource("bad one", "def kernel(ctx, begin, end):\n    return absent(3)\n", ())


def adder(constant: int) -> KernelSource:
    text = f"def kernel(ctx, y, begin, end):\n    store(y, begin, {constant})\n    return 0\n"
    return KernelSource(f"add {constant}", text, (Parameter("y", "int64*"),))


@pytest.fixture(scope="module")
def pool() -> Iterator[CompilePool]:
    with CompilePool(2, TARGET) as running:
        running.start()
        yield running


def test_compiles_each_kernel_once_and_tells_how_far_it_is(pool: CompilePool) -> None:
    sources = [adder(1), adder(2), adder(3), adder(1)]
    seen: list[tuple[int, int]] = []
    objects = pool.compile(sources, lambda done, total: seen.append((done, total)))
    assert set(objects) == {kernel_key(source, TARGET) for source in sources}
    assert seen == [(1, 3), (2, 3), (3, 3)]
    symbols = [kernel_symbol(key) for key in objects]
    library = link_shared_library({key: objects[key] for key in objects}, symbols, "t.so")
    assert library.startswith(b"\x7fELF")


def test_routines_that_kernels_call_are_compiled_once_beside_them(pool: CompilePool) -> None:
    text = "def kernel(ctx, y, begin, end):\n    row_1_f64x2(address(y), end, y, 1, y, 2)\n    return {}\n"
    sources = [KernelSource("row", text.format(code), (Parameter("y", "float64*"),)) for code in (0, 1)]
    objects = pool.compile(sources)
    routine = routine_key("row_1_f64x2", TARGET)
    kernels = [kernel_key(source, TARGET) for source in sources]
    assert set(objects) == {routine, *kernels}
    link_shared_library(objects, list(map(kernel_symbol, kernels)), "t.so")
    del objects[routine]
    with pytest.raises(LinkError, match="row_1_f64x2, which no object defines"):
        link_shared_library(objects, list(map(kernel_symbol, kernels)), "t.so")


def test_objects_do_not_depend_on_the_worker(pool: CompilePool) -> None:
    with CompilePool(1, TARGET) as other:
        assert other.compile([adder(7)]) == pool.compile([adder(7)])


class MemoryStore:
    def __init__(self) -> None:
        self.kept: dict[str, bytes] = {}
        self.claimed: dict[str, threading.Lock] = {}

    def get(self, key: str) -> bytes | None:
        return self.kept.get(key)

    def put(self, key: str, data: bytes) -> None:
        self.kept[key] = data

    def claim(self, key: str) -> MemoryClaim:
        return MemoryClaim(self.claimed, key)


class MemoryClaim:
    def __init__(self, claimed: dict[str, threading.Lock], key: str) -> None:
        self._lock = claimed.setdefault(key, threading.Lock())

    def take(self, *, wait: bool) -> bool:
        return self._lock.acquire(blocking=wait)

    def release(self) -> None:
        self._lock.release()


def test_store_is_asked_first_and_filled() -> None:
    store = MemoryStore()
    with CompilePool(1, TARGET, store) as pool:
        objects = pool.compile([adder(4)])
    assert store.kept == objects
    store.kept = dict.fromkeys(objects, b"from the store")
    with CompilePool(1, TARGET, store) as pool:
        assert set(pool.compile([adder(4)]).values()) == {b"from the store"}
        assert not pool._started


def test_what_another_is_compiling_comes_last_and_is_taken_from_it() -> None:
    store = MemoryStore()
    elsewhere, here = adder(5), adder(6)
    claim = store.claim(kernel_key(elsewhere, TARGET))
    assert claim.take(wait=False)
    with CompilePool(1, TARGET, store) as pool:
        objects = pool.submit([elsewhere, here])
        (waiting,) = (future for future, key in objects.futures.items() if key == kernel_key(elsewhere, TARGET))
        (own,) = (future for future, key in objects.futures.items() if key == kernel_key(here, TARGET))
        try:
            assert own.result(60)
            assert not waiting.done()
            store.put(kernel_key(elsewhere, TARGET), b"from another process")
        finally:
            claim.release()  # the pool ends only then
        assert waiting.result(60) == b"from another process"


def test_an_error_names_the_kernel_and_the_others_are_compiled() -> None:
    store = MemoryStore()
    with CompilePool(2, TARGET, store) as pool:
        with pytest.raises(KernelCompileError, match=r"bad one: (?s:.*)absent"):
            pool.compile([adder(1), BAD, adder(2)])
        assert set(store.kept) == {kernel_key(adder(1), TARGET), kernel_key(adder(2), TARGET)}
        assert len(pool.compile([adder(3)])) == 1


def test_native_core_is_compiled_once_and_kept() -> None:
    store = MemoryStore()
    with CompilePool(1, TARGET, store) as pool:
        core = pool.compile_core().result()
    assert set(store.kept) == {core_key(TARGET)} and b"os_call" in core
    with CompilePool(1, TARGET, store) as pool:
        assert pool.compile_core().result() == core
        assert not pool._started


@pytest.fixture
def fragile(monkeypatch: pytest.MonkeyPatch, tmp_path: object) -> None:
    """Workers that obey the label of a kernel: "abort", "sleep", "exit"."""
    code = (
        "import ctypes, os, time\n"
        "from onnxsmith_compiler import kernel_worker\n"
        "compile_kernel = kernel_worker._VERBS['kernel']\n"
        "def fragile(compiler, message):\n"
        "    label = message['source']['label']\n"
        "    if label == 'abort':\n"
        "        os.write(2, b'LLVM ERROR: out of registers\\n'); os.abort()\n"
        "    if label == 'sleep':\n"
        "        time.sleep(60)\n"
        "    if label == 'exit':\n"
        "        os._exit(3)\n"
        "    return compile_kernel(compiler, message)\n"
        "kernel_worker._VERBS['kernel'] = fragile\n"
        "kernel_worker.main()\n"
    )
    start = subprocess.Popen

    def popen(command: list[str], **options: object) -> subprocess.Popen[bytes]:
        return start([sys.executable, "-c", code], **options)  # type: ignore[call-overload, no-any-return]

    monkeypatch.setattr(workers.subprocess, "Popen", popen)


@pytest.mark.parametrize(
    ("label", "why"),
    [
        ("abort", "died of SIGABRT: LLVM ERROR: out of registers"),
        ("exit", "died with status 3"),
        ("sleep", "took longer than 4 s"),
    ],
)
def test_a_crash_names_the_kernel_and_the_rest_goes_on(fragile: None, label: str, why: str) -> None:
    crashing = KernelSource(label, adder(0).text + "# first, because it is the longest\n", adder(0).parameters)
    store = MemoryStore()
    with CompilePool(1, TARGET, store, Limits(seconds=4)) as pool:
        pool.compile([adder(9)])
        with pytest.raises(WorkerCrash, match=f"kernel {label}: .*{why}"):
            pool.compile([crashing, adder(1), adder(2)])
        assert len(store.kept) == 3
        assert len(pool.compile([adder(3)])) == 1


def test_memory_limit_stops_a_worker_and_not_the_caller() -> None:
    with (
        CompilePool(1, TARGET, limits=Limits(memory_bytes=100 << 20)) as pool,
        pytest.raises(WorkerCrash, match=r"kernel add 8: at the start of a compile worker: .* died with status 1"),
    ):
        pool.compile([adder(8)])


def test_an_expression_too_deep_for_python_is_an_error_of_its_kernel() -> None:
    text = f"def kernel(ctx, begin, end):\n    return {'+'.join(['begin * end'] * 20000)}\n"
    with CompilePool(1, TARGET) as pool:
        with pytest.raises(KernelCompileError, match="kernel deep: RecursionError"):
            pool.compile([KernelSource("deep", text, ())])
        assert len(pool.compile([adder(8)])) == 1


def held_workers(pool: CompilePool, count: int) -> list[workers.Worker]:
    held = [pool._idle.get() for _ in range(count)]
    for worker in held:
        pool._idle.put(worker)
    return [worker for worker in held if worker is not None]


def test_start_does_not_wait_for_the_workers() -> None:
    with CompilePool(2, TARGET) as pool:
        pool.start()
        assert [worker._ready for worker in held_workers(pool, 2)] == [False, False]
        pool.compile([adder(5), adder(6)])
        assert any(worker._ready for worker in held_workers(pool, 2))


def test_close_ends_the_processes() -> None:
    pool = CompilePool(2, TARGET)
    pool.compile([adder(5)])
    processes = [worker._process for worker in held_workers(pool, 2)]
    pool.close()
    assert len(processes) == 2 and all(process.poll() is not None for process in processes)


def test_workers_ignore_settings_of_numba(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NUMBA_DISABLE_JIT", "1")
    assert "NUMBA_DISABLE_JIT" not in workers._environment()
    monkeypatch.chdir(os.path.dirname(ctypes.__file__))
    with CompilePool(1, TARGET) as pool:
        assert len(pool.compile([adder(6)])) == 1


def test_a_pool_needs_a_worker() -> None:
    with pytest.raises(ValueError, match="at least one worker"):
        CompilePool(0, TARGET)
