"""Memory does not grow with the number of runs, whatever shapes they have."""

from __future__ import annotations

import gc
from pathlib import Path

import numpy as np
import pytest
from onnx import helper
from small_models import model, tensor

import onnxsmith

RUNS = 10_000
LARGEST = 3000
ALLOWED_MIB = 4


def resident_mib() -> float:
    """Memory of this process that is in use now, after the allocator's own slack has been given back."""
    gc.collect()
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) / 1024
    raise OSError("/proc/self/status has no VmRSS")


@pytest.mark.parametrize("threads", [1, 2])
def test_ten_thousand_runs_of_random_shapes(threads: int) -> None:
    weights = helper.make_tensor("w", 1, [8, 8], np.linspace(-1, 1, 64))
    nodes = [helper.make_node("MatMul", ["x", "w"], ["m"]), helper.make_node("Softmax", ["m"], ["y"])]
    options = onnxsmith.SessionOptions()
    options.intra_op_num_threads = threads
    session = onnxsmith.InferenceSession(
        model(nodes, [tensor("x", ["rows", 8])], [tensor("y", ["rows", 8])], [weights]), options
    )
    data = np.random.default_rng(0).standard_normal((LARGEST, 8)).astype(np.float32)

    def run(count: int, seed: int) -> None:
        for rows in np.random.default_rng(seed).integers(0, LARGEST, count):
            (result,) = session.run(None, {"x": data[:rows]})
            assert result.shape == (rows, 8)

    run(RUNS // 10, 1)
    session.run(None, {"x": data})
    before = resident_mib()
    run(RUNS, 2)
    assert resident_mib() - before < ALLOWED_MIB
