"""Layers of one form share a kernel, whatever their sizes."""

from __future__ import annotations

import numpy as np
import pytest
from tests.graphs import Sketch

from onnxsmith_compiler.codegen.source import KernelSource
from onnxsmith_compiler.codegen.target import Target
from onnxsmith_compiler.ops.reduce import Reduce
from onnxsmith_compiler.ops.view import Transpose
from onnxsmith_compiler.options import CompileOptions
from onnxsmith_compiler.pipeline import print_steps, run_passes
from onnxsmith_compiler.schedule.fusion import schedule


def _kernels(sketch: Sketch) -> set[KernelSource]:
    target = Target.generic_x86_64("v4")
    graph = run_passes(sketch.graph(), CompileOptions(), target)
    return {step.kernel.source for step in print_steps(graph, schedule(graph, True), target)}


def _mean_over_positions(positions: int, channels: int) -> set[KernelSource]:
    sketch = Sketch()
    x = sketch.fed(np.ones((2, positions, channels), np.float32))
    sketch.output(sketch.map("div", sketch.emit(Reduce("sum", (1,)), x), float(positions)))
    return _kernels(sketch)


def _heads_outside(heads: int) -> set[KernelSource]:
    sketch = Sketch()
    x = sketch.fed(np.ones((3, 50, heads, 64), np.float32))
    sketch.output(sketch.map("neg", sketch.emit(Transpose((0, 2, 1, 3)), x)))
    return _kernels(sketch)


@pytest.mark.parametrize(("positions", "channels"), [(49, 96), (196, 320), (12544, 6 * 64)])
def test_means_over_counts(positions: int, channels: int) -> None:
    assert _mean_over_positions(positions, channels) == _mean_over_positions(784, 960)


@pytest.mark.parametrize("heads", [6, 8])
def test_few_heads_and_many(heads: int) -> None:
    assert _heads_outside(heads) == _heads_outside(24)
