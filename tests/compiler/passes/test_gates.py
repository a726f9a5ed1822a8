"""Factors of columns move from a matrix into packed weights, and only where that saves a pass over the matrix."""

from __future__ import annotations

import numpy as np
import pytest
from tests.graphs import Size, Sketch, normal

from onnxsmith_compiler.ir import dtype as dtypes
from onnxsmith_compiler.ir.graph import Value
from onnxsmith_compiler.passes.cleanup import remove_dead_nodes
from onnxsmith_compiler.passes.gates import move_gates
from onnxsmith_compiler.passes.packing import pack_matmuls

ROWS, DEPTH, COLUMNS = 64, 5, 8


def _squeezed(sketch: Sketch, x: Value, axis: int = -2) -> Value:
    return sketch.map("sigmoid", sketch.reduce("sum", x, axis))


def _times_weights(sketch: Sketch, x: Value, columns: int = COLUMNS) -> Value:
    return sketch.matmul(x, sketch.constant(normal(x.shape[-1], columns), x.dtype))  # type: ignore[arg-type]


def _moves(sketch: Sketch) -> bool:
    """Whether the gate is multiplied with something smaller than the matrix."""
    graph = remove_dead_nodes(move_gates(pack_matmuls(sketch.graph(), lambda dtype, n: 8)))
    products = [node.output for node in graph.nodes if node.op.name == "mul"]
    assert len(products) == 1
    return products[0].shape[-2:] != (ROWS, DEPTH) and products[0].shape[-1] == 8


@pytest.mark.parametrize("shape", [(ROWS, DEPTH), (1, ROWS, DEPTH), (3, ROWS, DEPTH), ("n", ROWS, DEPTH)])
@pytest.mark.parametrize("swapped", [False, True])
def test_gate_of_each_image_moves(shape: tuple[Size, ...], swapped: bool) -> None:
    sketch = Sketch()
    array = normal(*(2 if isinstance(size, str) else size for size in shape))
    x = sketch.input(shape, array)
    gate = _squeezed(sketch, x)
    sketch.output(_times_weights(sketch, sketch.map("mul", *((gate, x) if swapped else (x, gate)))))
    assert _moves(sketch)
    total = array.sum(-2, keepdims=True)
    sketch.check((array / (1 + np.exp(-total))) @ normal(DEPTH, COLUMNS))


def test_gate_of_fewer_axes_moves() -> None:
    sketch = Sketch()
    x = sketch.fed(normal(2, 3, ROWS, DEPTH))
    gate = sketch.map("sigmoid", sketch.reduce("sum", x, 0, 2))
    sketch.output(_times_weights(sketch, sketch.map("mul", x, gate)))
    assert not _moves(sketch)  # the gate varies along the second axis, and not along the first
    sketch.check()


def test_gate_for_all_images_moves() -> None:
    sketch = Sketch()
    x, gate = sketch.fed(normal(2, ROWS, DEPTH)), sketch.fed(normal(DEPTH, seed=1))
    sketch.output(_times_weights(sketch, sketch.map("mul", x, gate)), sketch.map("neg", x))
    assert _moves(sketch)
    sketch.check()


def test_few_rows_are_multiplied_themselves() -> None:
    for rows, moves in ((31, False), (32, True)):
        sketch = Sketch()
        x = sketch.fed(normal(rows, DEPTH))
        sketch.output(_times_weights(sketch, sketch.map("mul", x, _squeezed(sketch, x))))
        graph = remove_dead_nodes(move_gates(pack_matmuls(sketch.graph(), lambda dtype, n: 8)))
        assert ((rows, DEPTH) not in [node.output.shape for node in graph.nodes if node.op.name == "mul"]) == moves


def test_unknown_numbers_of_rows_stay() -> None:
    sketch = Sketch()
    x = sketch.fed(normal(ROWS, DEPTH), "rows")
    sketch.output(_times_weights(sketch, sketch.map("mul", x, _squeezed(sketch, x))))
    assert not _moves(sketch)


def test_a_factor_of_each_row_stays() -> None:
    sketch = Sketch()
    x = sketch.fed(normal(ROWS, DEPTH))
    sketch.output(_times_weights(sketch, sketch.map("mul", x, _squeezed(sketch, x, -1))))
    assert not _moves(sketch)
    sketch.check()


def test_what_nothing_else_reads_is_multiplied_where_it_is_made() -> None:
    sketch = Sketch()
    x, gate = sketch.fed(normal(ROWS, DEPTH)), sketch.fed(normal(1, DEPTH, seed=1))
    sketch.output(_times_weights(sketch, sketch.map("mul", sketch.map("exp", x), gate)))
    assert not _moves(sketch)


@pytest.mark.parametrize("other", ["output", "reader"])
def test_a_scaled_matrix_that_others_read_is_stored(other: str) -> None:
    sketch = Sketch()
    x = sketch.fed(normal(ROWS, DEPTH))
    scaled = sketch.map("mul", x, _squeezed(sketch, x))
    sketch.output(_times_weights(sketch, scaled), scaled if other == "output" else sketch.map("neg", scaled))
    assert not _moves(sketch)
    sketch.check()


def test_narrow_floats_keep_their_rounding() -> None:
    sketch = Sketch()
    x = sketch.input([ROWS, DEPTH], dtype=dtypes.FLOAT16)
    sketch.output(_times_weights(sketch, sketch.map("mul", x, _squeezed(sketch, x))))
    assert not _moves(sketch)
