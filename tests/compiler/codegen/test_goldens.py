"""Printed kernels of small graphs, to the letter. `pytest --bless` writes those that changed.

What a kernel computes is checked beside it: the same kernels run uncompiled and give what the graph's operators do.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from tests.graphs import Sketch

from onnxsmith_compiler.codegen.target import Target
from onnxsmith_compiler.ir import dtype as dtypes
from onnxsmith_compiler.ir.graph import Graph
from onnxsmith_compiler.ops.cast import Cast
from onnxsmith_compiler.ops.contraction import Conv, MatMul
from onnxsmith_compiler.ops.gather import Gather
from onnxsmith_compiler.ops.packed import Window
from onnxsmith_compiler.ops.pooling import Pool
from onnxsmith_compiler.ops.reduce import Reduce
from onnxsmith_compiler.ops.view import Concat, Transpose
from onnxsmith_compiler.options import CompileOptions
from onnxsmith_compiler.pipeline import print_steps, run_passes
from onnxsmith_compiler.schedule.fusion import schedule

FOLDER = Path(__file__).parent / "goldens"
# One target for all machines: kernels differ with the width of vectors.
TARGET = Target.generic_x86_64("v4")


def _array(*shape: int) -> np.ndarray:
    return np.random.default_rng(sum(shape)).standard_normal(shape).astype(np.float32)


def pointwise_chain(sketch: Sketch) -> None:
    x, bias = sketch.fed(_array(3, 5), "n"), sketch.constant(_array(5))
    total = sketch.map("add", x, bias)
    sketch.output(sketch.map("mul", sketch.map("sigmoid", total), total))


def transpose_and_add(sketch: Sketch) -> None:
    x, y = sketch.fed(_array(2, 3, 4), "n"), sketch.fed(_array(4, 3))
    turned = sketch.emit(Transpose((0, 2, 1)), x)
    sketch.output(sketch.map("add", turned, y))


def softmax(sketch: Sketch) -> None:
    x = sketch.fed(_array(3, 7), "n")
    powers = sketch.map("exp", sketch.map("sub", x, sketch.emit(Reduce("max", (1,)), x)))
    sketch.output(sketch.map("div", powers, sketch.emit(Reduce("sum", (1,)), powers)))


def layer_norm_of_a_sum(sketch: Sketch) -> None:
    total = sketch.map("add", sketch.fed(_array(3, 6), "n"), sketch.fed(_array(3, 6), "n"))
    mean = sketch.map("div", sketch.emit(Reduce("sum", (1,)), total), 6.0)
    centred = sketch.map("sub", total, mean)
    variance = sketch.map("div", sketch.emit(Reduce("sum", (1,)), sketch.map("mul", centred, centred)), 6.0)
    inverse = sketch.map("reciprocal", sketch.map("sqrt", sketch.map("add", variance, 1e-5)))
    sketch.output(total)
    sketch.output(sketch.map("mul", centred, inverse))


def argmax(sketch: Sketch) -> None:
    sketch.output(sketch.emit(Reduce("argmax_first", (1,)), sketch.fed(_array(3, 7), "n")))


def mean_over_outer_axes(sketch: Sketch) -> None:
    total = sketch.emit(Reduce("sum", (1, 2)), sketch.fed(_array(2, 3, 5, 8), "n"))
    sketch.output(sketch.map("div", total, 15.0))


def max_pool(sketch: Sketch) -> None:
    window = Window((3, 3), (2, 2), (1, 1), (1, 1), (1, 1))
    sketch.output(sketch.emit(Pool("max", window), sketch.fed(_array(1, 4, 7, 7), "n")))


def gather_and_add(sketch: Sketch) -> None:
    rows = sketch.constant(np.array([2, -1, 0]), dtypes.INT64)
    taken = sketch.emit(Gather(0), sketch.fed(_array(4, 5), "n"), rows)
    sketch.output(sketch.map("add", taken, sketch.constant(_array(5))))


def concat(sketch: Sketch) -> None:
    x, y = sketch.fed(_array(3, 2), "n"), sketch.fed(_array(3, 4), "n")
    sketch.output(sketch.emit(Concat(1), sketch.map("neg", x), y))


def halves(sketch: Sketch) -> None:
    sketch.output(sketch.emit(Cast(dtypes.FLOAT16), sketch.map("mul", sketch.fed(_array(3, 5), "n"), 0.5)))


def matmul_with_epilogue(sketch: Sketch) -> None:
    product = sketch.emit(MatMul(), sketch.fed(_array(3, 4), "n"), sketch.constant(_array(4, 5)))
    sketch.output(sketch.map("max", sketch.map("add", product, sketch.constant(_array(5))), 0.0))


def convolution_with_epilogue(sketch: Sketch) -> None:
    window = Window((3, 3), (1, 1), (1, 1), (1, 1), (1, 1))
    result = sketch.emit(Conv(window), sketch.fed(_array(1, 16, 4, 4), "n"), sketch.constant(_array(8, 16, 3, 3)))
    sketch.output(sketch.map("max", sketch.map("add", result, sketch.constant(_array(8, 1, 1))), 0.0))


GRAPHS: tuple[Callable[[Sketch], None], ...] = (
    pointwise_chain, transpose_and_add, softmax, layer_norm_of_a_sum, argmax, mean_over_outer_axes, max_pool,
    gather_and_add, concat, halves, matmul_with_epilogue, convolution_with_epilogue,
)  # fmt: skip


def _kernels(graph: Graph) -> str:
    """Every kernel's text once, in the order of the steps."""
    optimised = run_passes(graph, CompileOptions(), TARGET)
    steps = print_steps(optimised, schedule(optimised), TARGET)
    return "\n".join(dict.fromkeys(step.kernel.source.text for step in steps))


@pytest.mark.parametrize("draw", GRAPHS, ids=lambda draw: draw.__name__)
def test_printed_kernels(draw: Callable[[Sketch], None], request: pytest.FixtureRequest) -> None:
    sketch = Sketch()
    draw(sketch)
    printed = _kernels(sketch.graph())
    golden = FOLDER / f"{draw.__name__}.txt"
    if request.config.getoption("--bless"):
        golden.write_text(printed)
    assert printed == golden.read_text(), "the printed kernels changed: look at them, then run pytest --bless"


# Tests of operators compare the others with onnxruntime: they have no evaluation in numpy.
EVALUATED = tuple(draw for draw in GRAPHS if draw not in (argmax, max_pool, convolution_with_epilogue))


@pytest.mark.parametrize("draw", EVALUATED, ids=lambda draw: draw.__name__)
def test_printed_kernels_compute_the_graph(draw: Callable[[Sketch], None]) -> None:
    sketch = Sketch()
    draw(sketch)
    sketch.check(tolerance=1e-3 if draw is halves else 1e-5)
