"""Factors move into weights, and only where that loses nothing."""

from __future__ import annotations

import numpy as np
from tests.graphs import Sketch

from onnxsmith_compiler.ir import dtype as dtypes
from onnxsmith_compiler.ir.dtype import DType
from onnxsmith_compiler.ir.graph import Graph, Value
from onnxsmith_compiler.ops.contraction import MatMul
from onnxsmith_compiler.passes.cleanup import remove_dead_nodes
from onnxsmith_compiler.passes.fold_scales import fold_scales


def _operators(sketch: Sketch, output: Value) -> list[str]:
    """What is left of the graph once factors have moved."""
    graph = Graph(tuple(sketch.inputs), (("y", output),), tuple(sketch.builder.nodes))
    return [node.op.name for node in remove_dead_nodes(fold_scales(graph)).nodes]


def _scaled_product(dtype: DType) -> list[str]:
    sketch = Sketch()
    x = sketch.input(["rows", 3], dtype=dtype)
    product = sketch.emit(MatMul(), x, sketch.constant(np.ones((3, 2)), dtype))
    shifted = sketch.map("add", product, sketch.constant([1, 2], dtype))
    scaled = sketch.map("mul", shifted, sketch.constant([0.5, 4], dtype))
    return _operators(sketch, sketch.map("add", scaled, sketch.constant([3, 4], dtype)))


def test_scale_and_shifts_of_a_product_are_one_shift() -> None:
    assert _scaled_product(dtypes.FLOAT32) == ["matmul", "add"]


def test_narrow_weights_are_left_alone() -> None:
    assert _scaled_product(dtypes.FLOAT16) == ["matmul", "add", "mul", "add"]


def test_constants_that_cancel_something_stay_where_they_are() -> None:
    sketch = Sketch()
    x = sketch.input(["rows"])
    moved = sketch.map("add", x, -1.6e9)
    assert _operators(sketch, sketch.map("mul", moved, 0.1)) == ["add", "mul"]
    rounded = sketch.map("add", x, 12582912.0)
    assert _operators(sketch, sketch.map("add", rounded, -12582912.0)) == ["add", "add"]
