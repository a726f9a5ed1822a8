"""Which loop nests share a kernel of rows, and in which order kernels run."""

from __future__ import annotations

import numpy as np
import pytest
from tests.graphs import Sketch, normal

from onnxsmith_compiler.ir.graph import Value
from onnxsmith_compiler.ops.view import Reshape
from onnxsmith_compiler.schedule.fusion import MOST_STAGES, schedule
from onnxsmith_compiler.schedule.groups import LoopGroup


def _groups(sketch: Sketch) -> int:
    return len(schedule(sketch.graph()).groups)


def _layer_norm(sketch: Sketch, x: Value) -> Value:
    count = float(x.shape[-1])  # type: ignore[arg-type]
    centered = sketch.map("sub", x, sketch.map("div", sketch.reduce("sum", x, -1), count))
    variance = sketch.map("div", sketch.reduce("sum", sketch.map("mul", centered, centered), -1), count)
    return sketch.map("div", centered, sketch.map("sqrt", sketch.map("add", variance, 1e-5)))


@pytest.mark.parametrize("shape", [(3, 7), (2, 3, 5), (1, 7), (3, 1), (1, 1)])
def test_softmax_is_one_kernel(shape: tuple[int, ...]) -> None:
    for symbols in ((), ("n",)):
        sketch = Sketch()
        sketch.output(sketch.softmax(sketch.fed(normal(*shape), *symbols)))
        if 1 not in shape:
            assert _groups(sketch) == 1
        sketch.check()


def test_softmax_along_an_outer_axis() -> None:
    sketch = Sketch()
    sketch.output(sketch.softmax(sketch.fed(normal(3, 70), "n"), 0))
    sketch.check()


@pytest.mark.parametrize("order", [(1, 0, 2), (2, 1, 0), (1, 2, 0)])
def test_softmax_over_one_element_of_a_turned_tensor(order: tuple[int, ...]) -> None:
    """Rows without loops: totals are known before what reads them."""
    sketch = Sketch()
    turned = sketch.transpose(sketch.fed(normal(3, 4, 5), "n"), *order)
    lone = sketch.reshape(turned, *turned.shape, 1)
    sketch.output(sketch.softmax(lone), sketch.softmax(sketch.map("exp", lone)))
    sketch.check()


def test_normalisation_with_its_residual_has_two_outputs() -> None:
    sketch = Sketch()
    total = sketch.map("add", sketch.fed(normal(4, 6), "n"), sketch.fed(normal(4, 6), "n"))
    normed = sketch.map("mul", _layer_norm(sketch, total), sketch.constant(normal(6)))
    sketch.output(total, sketch.map("add", normed, sketch.constant(normal(6))))
    assert _groups(sketch) == 1
    sketch.check()


def test_row_read_backwards() -> None:
    sketch = Sketch()
    soft = sketch.softmax(sketch.fed(normal(4, 6)))
    sketch.output(sketch.map("add", soft, sketch.slice(soft, (0, 1, 4), (5, -1, 6))))
    sketch.check()


def test_another_row_is_read_by_another_kernel() -> None:
    sketch = Sketch()
    soft = sketch.softmax(sketch.fed(normal(4, 6)))
    sketch.output(sketch.map("add", soft, sketch.slice(soft, (3, -1, 4), (0, 1, 6))))
    assert _groups(sketch) == 2
    sketch.check()


def test_rows_of_reshaped_members() -> None:
    sketch = Sketch()
    soft = sketch.softmax(sketch.fed(normal(4, 6)))
    again = sketch.softmax(sketch.reshape(soft, 6, 4))
    flat = sketch.reshape(soft, 24)
    sketch.output(again, sketch.map("neg", flat), sketch.map("add", soft, sketch.reshape(again, 4, 6)))
    sketch.check()


def test_totals_of_totals() -> None:
    sketch = Sketch()
    x = sketch.fed(normal(2, 3, 4), "n")
    rows = sketch.reduce("sum", sketch.map("exp", x), 2)
    sketch.output(sketch.reduce("max", rows, 1), sketch.map("sub", x, rows), sketch.reduce("sum", rows, 0, 1, 2))
    sketch.check()


def test_maps_of_several_totals_of_a_row() -> None:
    sketch = Sketch()
    x = sketch.fed(normal(5, 9), "n")
    low, high = sketch.reduce("min", x, 1), sketch.reduce("max", x, 1)
    spread = sketch.map("sub", high, low)
    sketch.output(sketch.map("div", sketch.map("sub", x, low), spread), spread, low)
    sketch.check()


@pytest.mark.parametrize("kind", ["argmax_first", "argmax_last", "argmin_first", "argmin_last"])
def test_positions_of_totals(kind: str) -> None:
    sketch = Sketch()
    numbers = np.array([[3, 1, 3, 1], [2, 2, 2, 2], [0, 5, -1, 5]], np.float32)
    sketch.output(sketch.reduce(kind, sketch.map("neg", sketch.fed(numbers, "n")), 1))
    turned = -numbers if kind.startswith("argmax") else numbers
    if kind.endswith("first"):
        expected = turned.argmax(1, keepdims=True)
    else:
        expected = 3 - turned[:, ::-1].argmax(1, keepdims=True)
    sketch.check(expected)


def test_pieces_of_a_concatenation_are_read_by_rows() -> None:
    sketch = Sketch()
    x = sketch.fed(normal(3, 4), "n")
    both = sketch.concat(1, sketch.map("exp", x), x, x)
    soft = sketch.softmax(both)
    sketch.output(both, soft, sketch.transpose(sketch.map("add", both, soft), 1, 0))
    sketch.check()


def test_reductions_of_nothing() -> None:
    for shape in ((0, 3), (3, 0), (0, 0)):
        sketch = Sketch()
        x = sketch.fed(normal(*shape), "a", "b")
        sketch.output(sketch.reduce("sum", x, 1), sketch.reduce("prod", x, 0), sketch.reduce("max", x, 0, 1))
        sums, products = np.zeros((shape[0], 1)), np.ones((1, shape[1]))
        lowest = np.full((1, 1), -np.inf)
        sketch.output(sketch.softmax(x), sketch.softmax(x, 0))
        sketch.check(sums, products, lowest, np.zeros(shape), np.zeros(shape))


def test_masked_totals() -> None:
    """A row whose mask hides everything is NaN, as numpy has it."""
    sketch = Sketch()
    hidden = np.where(np.eye(4) > 0, -np.inf, 0).astype(np.float32)
    hidden[2] = -np.inf
    sketch.output(sketch.softmax(sketch.map("add", sketch.fed(normal(4, 4)), sketch.fed(hidden))))
    sketch.check()


def test_many_stages_are_cut() -> None:
    sketch = Sketch()
    y = sketch.fed(normal(2, 5), "n")
    for _ in range(20):
        y = sketch.softmax(y)
    sketch.output(y)
    groups = schedule(sketch.graph()).groups
    assert max(len(group.stages) for group in groups if isinstance(group, LoopGroup)) <= MOST_STAGES
    sketch.check()


def test_kernels_wait_for_the_sizes_they_need() -> None:
    """The map joins the first kernel, which then waits for a product, which waits for a size read in mid-run."""
    sketch = Sketch()
    x, count = sketch.fed(normal(2, 4), "n"), sketch.fed(np.array([2]))
    powers = sketch.map("exp", x)
    sums = sketch.reduce("sum", powers, 1)
    rows = sketch.builder.late_symbol(sketch.map("add", count, 1.0), signed=False)
    table = sketch.emit(Reshape((rows, 4)), sketch.fed(normal(12), "k"))
    product = sketch.matmul(table, sketch.constant(normal(4, 2)))
    first = sketch.slice(product, (0, 1, 1), (0, 1, 1))
    sketch.output(sketch.map("add", powers, sketch.map("mul", first, sums)))
    sketch.check()


def test_order_is_the_same_every_time() -> None:
    def texts() -> list[str]:
        sketch = Sketch()
        x = sketch.fed(normal(5, 9), "n")
        parts = [sketch.reduce(kind, sketch.map("exp", x), 1) for kind in ("sum", "max", "min", "prod")]
        sketch.output(sketch.map("sub", sketch.map("mul", *parts[:2]), sketch.map("div", *parts[2:])))
        return [str(group.origins) + str([str(s.computation) for s in group.stages])  # type: ignore[union-attr]
                for group in schedule(sketch.graph()).groups]  # fmt: skip

    assert len({tuple(texts()) for _ in range(8)}) == 1
