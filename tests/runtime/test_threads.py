import subprocess
import sys
import textwrap
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from hand_programs import Draft, chain_program, library, make_executor, slot

from onnxsmith import native_layout as abi
from onnxsmith import threads as threads_module
from onnxsmith.artifact import Program
from onnxsmith.faults import ExecutionFault
from onnxsmith.threads import default_threads, process_pool, session_threads, usable_cores

MILLISECOND = 1_000_000


def visit_program(tiles: int, cost: int = MILLISECOND, steps: int = 1) -> Program:
    """visits[t] gains 1 for each run of tile t, who[t] is the thread that did it; `work` sets a tile's length."""
    draft = Draft("work")
    count, price = draft.constant(tiles), draft.constant(cost)
    draft.input("work", [0], "bool")
    visits, who = draft.output("visits", [count], "int64"), draft.output("who", [count], "int64")
    for _ in range(steps):
        draft.step("visit", [visits, who, slot(0)], count, cost=price)
    return draft.program()


def visit(executor, work: int = 10) -> tuple[np.ndarray, np.ndarray]:
    visits = np.zeros(executor.program.slots[1], np.int64)
    who = np.full_like(visits, -1)
    executor.run_into([np.zeros(work, np.bool_)], [visits, who])
    return visits, who


@pytest.mark.parametrize("threads", [1, 2, 4, 7])
@pytest.mark.parametrize("tiles", [1, 2, 3, 100, 5000])
def test_every_tile_runs_once(threads: int, tiles: int) -> None:
    executor = make_executor(visit_program(tiles, steps=3), threads)
    for _ in range(20):
        visits, who = visit(executor)
        assert np.all(visits == 3)
        assert who.min() >= 0 and who.max() < threads


@pytest.mark.parametrize("threads", [2, 3])
def test_work_is_shared(threads: int) -> None:
    executor = make_executor(visit_program(200), threads)
    seen: set[int] = set()
    deadline = time.monotonic() + 20
    while seen != set(range(threads)) and time.monotonic() < deadline:
        seen |= set(visit(executor, 20_000)[1].tolist())
    assert seen == set(range(threads))


def test_two_threads_take_tiles_from_both_ends() -> None:
    executor = make_executor(visit_program(200), 2)
    shared = 0
    deadline = time.monotonic() + 20
    while shared < 20 and time.monotonic() < deadline:
        _, who = visit(executor, 20_000)
        assert np.all(np.diff(who) >= 0)
        shared += who[0] != who[-1]
    assert shared == 20


def test_steps_too_small_to_share_run_on_the_caller() -> None:
    executor = make_executor(visit_program(100, cost=10), 4)
    for _ in range(50):
        assert np.all(visit(executor)[1] == 0)


@pytest.mark.parametrize("threads", [1, 2, 4])
def test_each_thread_has_scratch_of_its_own(threads: int) -> None:
    draft = Draft()
    n, tiles = draft.constant(3000), draft.constant(500)
    y = draft.output("y", [tiles])
    draft.step(
        "through_scratch",
        [y, slot(n)],
        tiles,
        cost=draft.constant(MILLISECOND),
        scratch=draft.constant(12_000),
    )
    executor = make_executor(draft.program(), threads)
    for _ in range(5):
        np.testing.assert_array_equal(executor.run([])[0], np.arange(500) * 3000.0)


@pytest.mark.parametrize("threads", [1, 2, 4])
def test_a_fault_stops_the_step(threads: int) -> None:
    draft = Draft("bad")
    tiles, price = draft.constant(20_000), draft.constant(MILLISECOND)
    draft.input("bad", [0], "bool")
    out = draft.output("out", [tiles], "int64")
    for _ in range(3):
        draft.step("fail_from", [out, slot(0)], tiles, cost=price)
    executor = make_executor(draft.program(), threads)
    for _ in range(50):
        visits = np.zeros(20_000, np.int64)
        with pytest.raises(ExecutionFault) as caught:
            executor.run_into([np.zeros(7000, np.bool_)], [visits])
        fault = caught.value
        assert (fault.step, fault.code, fault.limit) == (0, 3, 7000)
        assert fault.value >= 7000
        assert visits.max() <= 1 and visits[7000:].max() == 0
        if threads == 1:  # others may meet the fault first, since they begin at the end
            assert visits[:7000].min() == 1
        executor.run_into([np.zeros(20_000, np.bool_)], [visits])


def test_callers_at_once_with_different_limits() -> None:
    """More callers and threads than cores, each checking all of its own results."""
    wrong: list[str] = []
    library()  # the compiler is not for several threads at once

    def call(limit: int, tiles: int) -> None:
        executor = make_executor(visit_program(tiles, steps=5), limit)
        chain = make_executor(chain_program(), limit)
        generator = np.random.default_rng(tiles)
        for turn in range(150):
            visits, who = visit(executor, 50 if turn % 10 else 3000)
            if not (np.all(visits == 5) and who.min() >= 0 and who.max() < limit):
                wrong.append(f"{limit} threads, {tiles} tiles")
            x = generator.standard_normal(generator.integers(0, 30_000)).astype(np.float32)
            if not np.array_equal(chain.run([x])[0], 64 * x):
                wrong.append(f"{limit} threads, chain of {x.size}")

    callers = [
        threading.Thread(target=call, args=(limit, tiles))
        for limit, tiles in [(1, 40), (2, 7), (2, 300), (4, 64), (4, 1000), (3, 17)]
    ]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join()
    assert not wrong


def test_workers_sleep_between_runs() -> None:
    executor = make_executor(visit_program(400), 4)
    visit(executor, 1000)
    time.sleep(0.05)
    before = time.process_time()
    time.sleep(0.3)
    assert time.process_time() - before < 0.05


def test_a_worker_that_sleeps_is_woken() -> None:
    executor = make_executor(visit_program(100), 2)
    for _ in range(10):
        time.sleep(0.02)
        assert np.all(visit(executor, 3000)[0] == 1)


def test_where_the_system_refuses_threads(monkeypatch) -> None:
    pool = threads_module.ThreadPool()

    def refuse(self: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", refuse)
    pool.ensure(3, library())
    words = np.ctypeslib.as_array(pool._words)
    assert words[abi.POOL_WORKERS] == 2 and not pool._workers


def test_where_no_way_to_sleep_is_known(monkeypatch) -> None:
    monkeypatch.setattr(threads_module, "_FUTEX_NUMBERS", {})
    pool = threads_module.ThreadPool()
    assert pool.threads_allowed(8) == 1


def test_the_pool_is_one() -> None:
    assert process_pool() is process_pool()
    assert process_pool().threads_allowed(10**6) == abi.MAX_THREADS
    assert 1 <= default_threads() <= usable_cores()


def test_sessions_have_no_more_threads_than_there_are_processors(monkeypatch) -> None:
    monkeypatch.setattr(threads_module, "usable_cores", lambda: 4)
    assert [session_threads(asked) for asked in (1, 3, 4, 5, 10**6)] == [1, 3, 4, 4, 4]
    assert session_threads(0) == session_threads(-1) == default_threads()


def _run_script(script: str) -> None:
    path = Path(__file__).parent
    head = f"import sys\nsys.path.insert(0, {str(path)!r})\n"
    done = subprocess.run(
        [sys.executable, "-c", head + textwrap.dedent(script)], capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr


def test_after_a_fork_both_processes_go_on() -> None:
    _run_script(
        """
        import os, signal, threading
        import numpy as np
        from hand_programs import make_executor
        from test_threads import visit, visit_program

        signal.alarm(100)
        executor = make_executor(visit_program(300, steps=2), 3)
        assert np.all(visit(executor)[0] == 2)
        stop = threading.Event()

        def busy():
            while not stop.is_set():
                visit(executor, 500)

        other = threading.Thread(target=busy)
        other.start()
        for _ in range(20):
            child = os.fork()
            if child == 0:
                good = all(np.all(visit(executor)[0] == 2) for _ in range(20))
                seen = set()
                for _ in range(300):
                    seen |= set(visit(executor, 2000)[1].tolist())
                    if len(seen) > 1:
                        break
                os._exit(0 if good and len(seen) > 1 else 1)
            _, status = os.waitpid(child, 0)
            assert os.waitstatus_to_exitcode(status) == 0
            assert np.all(visit(executor)[0] == 2)
        stop.set()
        other.join()
        """
    )


def test_the_interpreter_exits_while_workers_sleep_and_others_run() -> None:
    _run_script(
        """
        import atexit, signal, threading
        import numpy as np
        from hand_programs import make_executor
        from test_threads import visit, visit_program

        signal.alarm(100)
        executor = make_executor(visit_program(300), 4)
        atexit.register(lambda: visit(executor))
        visit(executor)
        threading.Thread(target=lambda: [visit(executor, 1000) for _ in range(10**6)], daemon=True).start()
        """
    )


def test_a_library_is_unloaded_with_its_last_executor() -> None:
    _run_script(
        """
        import gc
        from pathlib import Path
        from hand_programs import code, sum_program, library
        from onnxsmith.executor import Executor
        from onnxsmith.loader import Library
        import numpy as np

        def mapped():
            return Path("/proc/self/maps").read_text().count("memfd:onnxsmith")

        for _ in range(3):
            executors = [Executor(sum_program(), Library(code()), None, 2) for _ in range(4)]
            x = np.ones(100_000, np.float32)
            for executor in executors:
                assert np.all(executor.run([x, x])[0] == 2)
            assert mapped() >= 4
            del executor, executors
            gc.collect()
        few = mapped()
        assert few <= 6, few
        """
    )
