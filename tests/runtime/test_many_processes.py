"""Processes that compile at once share the work: each kernel is compiled once."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

from onnx import helper
from small_models import model, tensor

from onnxsmith.cache import Cache

COUNT = 8
# Arguments: a model of [3] whose result for zeros is all the same number, and that number.
SCRIPT = """
import logging, sys, onnxsmith
logging.basicConfig(level="INFO")
options = onnxsmith.SessionOptions()
options.add_session_config_entry("onnxsmith.compile.workers", "1")
session = onnxsmith.InferenceSession(sys.argv[1], options)
assert session.run(None, {"x": [0.0, 0.0, 0.0]})[0].tolist() == [float(sys.argv[2])] * 3
"""
NEW_KERNELS = re.compile(r"with (\d+) new kernels")


def shared_model(number: int) -> bytes:
    """exp(x) + number, in two kernels since the intermediate result is an output; a size keeps models apart."""
    nodes = [
        helper.make_node("Exp", ["x"], ["e"]),
        helper.make_node("CumSum", ["e", "axis"], ["c"]),
        helper.make_node("Sub", ["c", "c"], ["z"]),
        helper.make_node("Add", ["z", "n"], ["y"]),
    ]
    constants = [helper.make_tensor("axis", 7, [], [0]), helper.make_tensor("n", 1, [], [number])]
    return model(nodes, [tensor("x", [3])], [tensor("y", [3]), tensor("e", [3])], constants)


def compile_at_once(models: list[Path], cache: Path) -> list[int]:
    """How many kernels each process compiled."""
    started = [
        subprocess.Popen(
            [sys.executable, "-c", SCRIPT, str(path), path.stem],
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, "ONNXSMITH_CACHE_DIR": str(cache)},
        )
        for path in models
    ]
    errors = [process.communicate()[1] for process in started]
    assert [process.returncode for process in started] == [0] * len(started), errors
    return [sum(map(int, NEW_KERNELS.findall(text))) for text in errors]


def test_one_model(tmp_path):
    path = tmp_path / "1.onnx"
    path.write_bytes(shared_model(1))
    compiled = compile_at_once([path] * COUNT, tmp_path / "cache")
    cache = Cache(tmp_path / "cache")
    assert sorted(compiled)[:-1] == [0] * (COUNT - 1)
    assert sum(compiled) == len(list(cache.kernels.entries())) >= 3  # one of them is the native core
    assert len(list(cache.programs.entries())) == 1


def test_models_that_share_kernels(tmp_path):
    paths = [tmp_path / f"{number}.onnx" for number in range(COUNT)]
    for number, path in enumerate(paths):
        path.write_bytes(shared_model(number))
    compiled = compile_at_once(paths, tmp_path / "cache")
    cache = Cache(tmp_path / "cache")
    assert len(list(cache.programs.entries())) == COUNT
    assert sum(compiled) == len(list(cache.kernels.entries()))
