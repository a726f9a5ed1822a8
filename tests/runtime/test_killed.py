"""Processes that are killed while they compile leave no process, no damage and no litter behind."""

from __future__ import annotations

import os
import random as random_numbers
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from onnx import helper
from small_models import model, tensor

import onnxsmith
from onnxsmith import artifact
from onnxsmith.cache import Cache, open_cache

pytestmark = pytest.mark.skipif(not os.path.isdir("/proc/self/fd"), reason="finds processes in /proc")

ROLES = ("client", "onnxsmith_compiler.worker", "onnxsmith_compiler.kernel_worker")
SESSION = "import sys, onnxsmith; onnxsmith.InferenceSession(sys.argv[1])"
# Compiling takes so long, in seconds: the moments to kill at lie within.
SPAN = 3.0
SECONDS_TO_END = 120.0


def row_model() -> bytes:
    """Several kernels: products, rows and maps of [N, 24]."""
    weight = np.linspace(-1, 1, 24 * 24, dtype=np.float32).reshape(24, 24)
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["a"]),
        helper.make_node("Softmax", ["a"], ["b"]),
        helper.make_node("Transpose", ["b"], ["c"], perm=[1, 0]),
        helper.make_node("ReduceSum", ["c", "axes"], ["d"], keepdims=0),
        helper.make_node("CumSum", ["d", "axis"], ["y"]),
    ]
    return model(
        nodes,
        [tensor("x", ["N", 24])],
        [tensor("y", [24])],
        [
            helper.make_tensor("w", 1, weight.shape, weight.tobytes(), raw=True),
            helper.make_tensor("axes", 7, [1], [1]),
            helper.make_tensor("axis", 7, [], [0]),
        ],
    )


def expected(x: np.ndarray) -> np.ndarray:
    a = x @ np.linspace(-1, 1, 24 * 24, dtype=np.float32).reshape(24, 24)
    e = np.exp(a - a.max(1, keepdims=True))
    return np.cumsum((e / e.sum(1, keepdims=True)).sum(0))


class Victims:
    """A session in a process of its own, with all the processes that it starts, on a cache of its own."""

    def __init__(self, folder: Path, model_path: Path) -> None:
        self._mark = f"ONNXSMITH_TEST_VICTIM={folder}"
        name, _, value = self._mark.partition("=")
        self.client = subprocess.Popen(
            [sys.executable, "-c", SESSION, str(model_path)],
            env={**os.environ, name: value},
            stderr=subprocess.DEVNULL,
        )

    def processes(self) -> dict[int, str]:
        """Their roles by process number."""
        self.client.poll()  # a process that ended is there until its parent asks
        found = {}
        for entry in Path("/proc").iterdir():
            try:
                if entry.name.isdigit() and self._mark.encode() in (entry / "environ").read_bytes().split(b"\0"):
                    words = (entry / "cmdline").read_text().split("\0")
                    found[int(entry.name)] = next((role for role in ROLES if role in words), "client")
            except OSError:
                continue
        return found

    def kill(self, role: str) -> str | None:
        """Kill one process of that role, or any if there is none; the role of the one that was killed."""
        found = self.processes()
        numbers = [number for number, other in found.items() if other == role] or list(found)
        if not numbers:
            return None
        os.kill(numbers[0], signal.SIGKILL)
        return found[numbers[0]]

    def wait(self) -> dict[int, str]:
        """Those that are still there some time later."""
        deadline = time.monotonic() + SECONDS_TO_END
        while (left := self.processes()) and time.monotonic() < deadline:
            time.sleep(0.02)
        return left


@pytest.fixture
def scene(tmp_path, monkeypatch):
    """(the cache, the folder for temporary files, the path of the model)."""
    temporary = tmp_path / "tmp"
    temporary.mkdir()
    monkeypatch.setenv("ONNXSMITH_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setenv("TMPDIR", str(temporary))
    path = tmp_path / "model.onnx"
    path.write_bytes(row_model())
    return open_cache(tmp_path / "cache"), temporary, path


def check_whole(cache: Cache) -> None:
    """Every entry that can be seen is whole."""
    for store in (cache.kernels, cache.sources, cache.tilings):
        for entry in store.entries():
            assert store.get(entry.key) is not None
    for entry in cache.programs.entries():
        artifact.read(entry.path, verify=True)


def check_kills(scene, count: int) -> None:
    cache, temporary, path = scene
    generator = random_numbers.Random(count)
    x = np.linspace(-2, 2, 5 * 24, dtype=np.float32).reshape(5, 24)
    killed = []
    for number in range(count):
        for entry in cache.entries():
            if entry.store == "programs" or generator.random() < 0.3:
                cache.remove(entry)
        victims = Victims(path.parent, path)
        time.sleep(generator.uniform(0, SPAN))
        killed.append(victims.kill(ROLES[number % len(ROLES)]))
        assert victims.wait() == {}, killed[-1]
        check_whole(cache)
        (y,) = onnxsmith.InferenceSession(path).run(None, {"x": x})
        np.testing.assert_allclose(y, expected(x), 1e-5, 1e-5)
        check_tidy(cache, temporary)
    print(*map(killed.count, ROLES), "clients, compile processes and workers were killed")


def check_tidy(cache: Cache, temporary: Path) -> None:
    """Pruning leaves no temporary file; what it passes over, the compile process is removing at that moment."""
    deadline = time.monotonic() + SECONDS_TO_END
    while time.monotonic() < deadline:
        cache.prune()
        left = [*(cache.directory / "tmp").iterdir(), *temporary.iterdir()]
        if not left:
            return
        time.sleep(0.02)
    raise AssertionError(f"left behind: {left}")


def test_a_few_moments(scene):
    check_kills(scene, 6)


@pytest.mark.slow
def test_many_moments(scene):
    check_kills(scene, 200)
