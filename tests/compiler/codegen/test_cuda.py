"""Kernels printed for CUDA, run in numba's simulator, and what has no CUDA form."""

from __future__ import annotations

import os
import subprocess
import sys

import numpy as np
import pytest
from tests.graphs import Sketch, normal

from onnxsmith_compiler.codegen.cuda import print_cuda
from onnxsmith_compiler.ir import dtype as dtypes
from onnxsmith_compiler.ops.gather import Gather
from onnxsmith_compiler.schedule.fusion import schedule

NAMES = ("pointwise", "row_sums", "softmax")


def test_kernels_give_numpys_results_in_the_simulator() -> None:
    run = subprocess.run(
        [sys.executable, "-m", "tests.compiler.codegen.cuda_simulation"],
        env={**os.environ, "NUMBA_ENABLE_CUDASIM": "1"},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert run.returncode == 0, run.stderr
    done = {line.split()[0] for line in run.stdout.splitlines()}
    assert done == set(NAMES)


def test_positions_read_from_tensors_are_refused() -> None:
    sketch = Sketch()
    rows = sketch.constant(np.array([1, 0]), dtypes.INT64)
    sketch.output(sketch.emit(Gather(0), sketch.fed(normal(3, 4), "n"), rows))
    graph = sketch.graph()
    (group,) = schedule(graph).groups
    with pytest.raises(NotImplementedError, match="positions"):
        print_cuda(group, frozenset(graph.output_values()))  # type: ignore[arg-type]
