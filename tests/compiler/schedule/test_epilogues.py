"""Which maps a contraction computes as it stores its results."""

from __future__ import annotations

import numpy as np
import pytest
from tests.graphs import Sketch, normal
from tests.interpreter import HOST

from onnxsmith_compiler.options import CompileOptions
from onnxsmith_compiler.pipeline import run_passes
from onnxsmith_compiler.schedule.fusion import schedule
from onnxsmith_compiler.schedule.groups import ContractGroup


def _epilogues(sketch: Sketch) -> list[bool]:
    groups = schedule(run_passes(sketch.graph(), CompileOptions(), HOST)).groups
    return [group.epilogue is not None for group in groups if isinstance(group, ContractGroup)]


def test_map_of_the_result_is_an_epilogue() -> None:
    sketch = Sketch()
    product = sketch.matmul(sketch.fed(normal(5, 4), "rows"), sketch.constant(normal(4, 6)))
    other = sketch.fed(normal(5, 6), "rows")
    sketch.output(sketch.map("max", sketch.map("add", product, other), 0.0))
    assert _epilogues(sketch) == [True]
    sketch.check()


def test_epilogue_through_reshapes() -> None:
    sketch = Sketch()
    product = sketch.matmul(sketch.fed(normal(6, 4)), sketch.constant(normal(4, 8)))
    sketch.output(sketch.map("neg", sketch.reshape(product, 2, 3, 4, 2)))
    assert _epilogues(sketch) == [True]
    sketch.check()


@pytest.mark.parametrize("rows", [2, 4])
def test_first_rows_of_the_result_are_no_epilogue(rows: int) -> None:
    sketch = Sketch()
    product = sketch.matmul(sketch.fed(normal(5, 4)), sketch.constant(normal(4, 6)))
    sketch.output(sketch.map("exp", sketch.slice(product, (0, 1, rows), (0, 1, 6))))
    assert _epilogues(sketch) == [False]
    sketch.check()


def test_result_that_is_read_twice_is_stored() -> None:
    sketch = Sketch()
    product = sketch.matmul(sketch.fed(normal(5, 4)), sketch.constant(normal(4, 5)))
    sketch.output(sketch.map("add", product, sketch.transpose(product, 1, 0)))
    assert _epilogues(sketch) == [False]
    sketch.check()


def test_result_that_is_an_output_is_stored() -> None:
    sketch = Sketch()
    product = sketch.matmul(sketch.fed(normal(5, 4)), sketch.constant(normal(4, 6)))
    sketch.output(product, sketch.map("neg", product))
    assert _epilogues(sketch) == [False]
    sketch.check()


def test_broadcast_of_the_result_is_no_epilogue() -> None:
    sketch = Sketch()
    product = sketch.matmul(sketch.fed(normal(1, 4)), sketch.constant(normal(4, 6)))
    sketch.output(sketch.map("add", product, sketch.fed(normal(3, 6))))
    assert _epilogues(sketch) == [False]
    sketch.check()


def test_epilogue_reads_by_position() -> None:
    from onnxsmith_compiler.ops.gather import Gather

    sketch = Sketch()
    product = sketch.matmul(sketch.fed(normal(4, 3)), sketch.constant(normal(3, 6)))
    rows = sketch.emit(Gather(0), sketch.constant(normal(5, 6)), sketch.fed(np.array([0, -1, 3, 4])))
    sketch.output(sketch.map("add", product, rows))
    assert _epilogues(sketch) == [True]
    sketch.check()
