"""Forks while another thread opens a model for the first time, in a fresh process."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from onnx import helper
from small_models import model, tensor

import onnxsmith

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")

# `use()` opens a model and runs it. The import of `slow` takes so long that the fork falls into it; a child that
# waits for what no thread of its own will finish is ended by the alarm.
SCRIPT = """
import importlib.abc, os, signal, sys, threading, time, warnings
warnings.simplefilter("ignore")

class Slow(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path, target=None):
        if name == slow:
            reached.set()
            time.sleep(0.3)

reached = threading.Event()
sys.meta_path.insert(0, Slow())
thread = threading.Thread(target=use)
thread.start()
assert reached.wait(300)
child = os.fork()
if not child:
    signal.alarm(300)
    use()
    sys.exit(0)
thread.join()
use()
assert os.waitpid(child, 0)[1] == 0
"""


def check(head: str, **environment: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", head + SCRIPT], capture_output=True, text=True, env={**os.environ, **environment}
    )
    assert (done.returncode, done.stderr) == (0, "")


@pytest.fixture
def path(tmp_path, relu_model) -> Path:
    path = tmp_path / "relu.onnx"
    path.write_bytes(relu_model)
    return path


@pytest.mark.parametrize("slow", ["my_model._runtime.embedded", "my_model._runtime.executor"])
def test_package(tmp_path, relu_model, slow):
    onnxsmith.compile(relu_model, tmp_path / "my_model")
    check(
        f"import sys\nsys.path.insert(0, {str(tmp_path)!r})\nimport my_model\nslow = {slow!r}\n"
        "def use():\n    assert my_model.run(None, {'x': [-1.0, 2.0]})[0].tolist() == [0, 2]\n"
    )


@pytest.mark.parametrize("slow", ["onnxsmith.opening", "onnxsmith.executor"])
def test_session(path, slow):
    onnxsmith.InferenceSession(path)
    check(
        f"import onnxsmith\nslow = {slow!r}\ndef use():\n    session = onnxsmith.InferenceSession({str(path)!r})\n"
        "    assert session.run(None, {'x': [-1.0, 2.0]})[0].tolist() == [0, 2]\n"
    )


def test_both_compile(tmp_path):
    """The child has a compile process of its own; the parent's goes on with its work."""
    path = tmp_path / "negative.onnx"
    path.write_bytes(model([helper.make_node("Neg", ["x"], ["y"])], [tensor("x", ["N"])], [tensor("y", ["N"])]))
    check(
        f"import onnxsmith\nslow = 'onnxsmith.compile_process'\n"
        f"def use():\n    session = onnxsmith.InferenceSession({str(path)!r})\n"
        "    assert session.run(None, {'x': [-1.0, 2.0]})[0].tolist() == [1, -2]\n"
    )
