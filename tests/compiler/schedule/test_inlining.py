"""Which values are computed by their readers."""

from __future__ import annotations

import time

import numpy as np
from tests.graphs import Sketch, normal

from onnxsmith_compiler.ir import dtype as dtypes
from onnxsmith_compiler.ir.graph import Value
from onnxsmith_compiler.ops.gather import Gather
from onnxsmith_compiler.schedule.fusion import schedule
from onnxsmith_compiler.schedule.inlining import choose_inlined, lower_nodes

NUMBERS = np.arange(-8, 8, dtype=np.int32).reshape(4, 4)


def _inlined(sketch: Sketch) -> frozenset[Value]:
    graph = sketch.graph()
    return choose_inlined(graph, lower_nodes(graph), fuse=True)


def _groups(sketch: Sketch) -> int:
    return len(schedule(sketch.graph()).groups)


def test_chains_become_one_kernel() -> None:
    sketch = Sketch()
    x = sketch.fed(normal(3, 4), "n")
    middle = sketch.map("exp", x)
    sketch.output(sketch.map("neg", sketch.transpose(sketch.map("mul", middle, x), 1, 0)))
    assert middle in _inlined(sketch)
    assert _groups(sketch) == 1
    sketch.check()


def test_nothing_is_inlined_without_fusion() -> None:
    sketch = Sketch()
    sketch.output(sketch.map("neg", sketch.map("exp", sketch.fed(normal(3)))))
    graph = sketch.graph()
    assert choose_inlined(graph, lower_nodes(graph), fuse=False) == frozenset()
    assert len(schedule(graph, fuse=False).groups) == 2
    sketch.check(level=1)


def test_outputs_are_stored_and_read_again() -> None:
    sketch = Sketch()
    middle = sketch.map("exp", sketch.fed(normal(3, 4), "n"))
    sketch.output(middle, sketch.map("neg", middle), sketch.reshape(middle, 4, "n"))
    assert middle not in _inlined(sketch)
    sketch.check()


def test_views_are_read_by_all_their_readers() -> None:
    sketch = Sketch()
    x = sketch.fed(normal(4, 4))
    turned = sketch.transpose(x, 1, 0)
    sketch.output(sketch.map("exp", turned), sketch.map("add", turned, x), sketch.reduce("sum", turned, 1))
    assert turned in _inlined(sketch)
    sketch.check()


def test_arithmetic_with_two_kernels_is_stored() -> None:
    sketch = Sketch()
    middle = sketch.map("exp", sketch.fed(normal(4, 4)))
    sketch.output(sketch.map("neg", middle), sketch.reduce("sum", middle, 1))
    assert middle not in _inlined(sketch)
    sketch.check()


def test_arithmetic_that_is_broadcast_is_stored() -> None:
    sketch = Sketch()
    row = sketch.map("exp", sketch.fed(normal(1, 4)))
    sketch.output(sketch.map("add", row, sketch.fed(normal(5, 4))))
    assert row not in _inlined(sketch)
    sketch.check()


def test_reader_that_visits_an_element_often_does_not_compute_it() -> None:
    sketch = Sketch()
    x = sketch.fed(NUMBERS)
    middle = sketch.map("neg", x)
    parts = [sketch.slice(middle, (start, 1, 2), (0, 1, 4)) for start in range(3)]
    total = sketch.map("add", sketch.map("add", parts[0], parts[1]), parts[2])
    sketch.output(sketch.expand(sketch.reshape(total, 1, 2, 4), 2, 2, 4))
    assert middle not in _inlined(sketch)
    sketch.check()


def test_diamonds_are_computed_once() -> None:
    """Every value is read twice, at the same element: thirty levels of it are one short kernel."""
    sketch = Sketch()
    x = y = sketch.fed(NUMBERS)
    for _ in range(30):
        y = sketch.map("sub", sketch.map("add", y, y), sketch.map("max", y, x))
    sketch.output(y)
    assert _groups(sketch) == 1
    sketch.check()


def test_values_read_at_ever_more_elements_are_stored() -> None:
    """A running sum by doubling: computing all on the way would take 2^14 loads for each element."""
    started = time.monotonic()
    sketch = Sketch()
    y = sketch.fed(np.arange(16, dtype=np.int32))
    zeros = sketch.constant(np.zeros(16), dtypes.INT32)
    for shift in range(14):
        padded = sketch.concat(0, sketch.slice(zeros, (0, 1, 1)), sketch.slice(y, (0, 1, 15)))
        y = sketch.map("add", y, padded) if shift % 2 else sketch.map("add", y, sketch.slice(y, (15, -1, 16)))
    sketch.output(y)
    sketch.check()
    assert time.monotonic() - started < 30


def test_long_chains_are_cut() -> None:
    sketch = Sketch()
    x = y = sketch.fed(np.arange(3, dtype=np.int32), "n")
    for step in range(500):
        y = sketch.map("sub", y, x) if step % 2 else sketch.map("add", y, float(step))
    sketch.output(y)
    assert 5 < _groups(sketch) < 20
    sketch.check()


def test_wide_trees_are_cut() -> None:
    sketch = Sketch()
    level = [sketch.fed(np.full(2, number, np.int32), "n") for number in range(600)]
    while len(level) > 1:
        level = [
            sketch.map("add", *pair) if len(pair) > 1 else pair[0]
            for pair in zip(level[::2], level[1::2], strict=False)
        ] + (level[-1:] if len(level) % 2 else [])
    sketch.output(level[0])
    assert 2 <= _groups(sketch) < 300
    sketch.check()


def test_views_of_views_of_gathered_rows() -> None:
    sketch = Sketch()
    positions = sketch.fed(np.array([[2, 0], [-1, 1]]), "a", "b")
    rows = sketch.emit(Gather(0), sketch.fed(normal(3, 4), "n"), positions)
    turned = sketch.transpose(rows, 2, 0, 1)
    backwards = sketch.slice(turned, (3, -2, 2), (0, 1, 2), (1, -1, 2))
    sketch.output(sketch.map("exp", backwards), sketch.reduce("max", backwards, 0))
    sketch.check()


def test_small_constants_are_literals_and_long_ones_are_not() -> None:
    sketch = Sketch()
    x = sketch.fed(normal(5), "n")
    short = sketch.map("add", x, sketch.constant([0.25]))
    sketch.output(sketch.map("mul", short, sketch.constant(0.1)))
    (group,) = schedule(sketch.graph()).groups
    constants = [value for value in group.reads() if value.is_constant]
    assert [value.data.item() for value in constants if value.data is not None] == [np.float32(0.1)]
    sketch.check()


def test_positions_computed_by_diamonds_stay_small() -> None:
    sketch = Sketch()
    positions = sketch.fed(np.array([0, 1, 2, 1]), "n")
    for _ in range(25):
        total = sketch.map("add", positions, positions)
        positions = sketch.map("mod", sketch.map("max", total, positions), 4.0)
    rows = sketch.emit(Gather(0), sketch.fed(NUMBERS), positions)
    sketch.output(sketch.map("neg", rows), rows)
    sketch.check()
