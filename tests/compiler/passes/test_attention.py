"""Which graphs become one attention kernel, and that they compute the same."""

from __future__ import annotations

import numpy as np
from tests.graphs import Sketch, normal
from tests.interpreter import HOST

from onnxsmith_compiler.ir.graph import Value
from onnxsmith_compiler.options import CompileOptions
from onnxsmith_compiler.pipeline import run_passes


def _attention(sketch: Sketch, query: Value, key: Value, value: Value, mask: Value | None = None) -> Value:
    """softmax(query * key + mask) * value; the key is [..., depth, columns]."""
    scores = sketch.matmul(query, key)
    if mask is not None:
        scores = sketch.map("add", scores, mask)
    return sketch.matmul(sketch.softmax(scores), value)


def _kernels(sketch: Sketch) -> int:
    nodes = run_passes(sketch.graph(), CompileOptions(), HOST).nodes
    return sum(node.op.name == "attention" for node in nodes)


def _operands(sketch: Sketch, batch: int = 2, *symbols: str) -> tuple[Value, Value, Value]:
    shapes = (batch, 2, 3, 4), (batch, 2, 4, 5), (batch, 2, 5, 6)
    query, key, value = (sketch.fed(normal(*shape, seed=seed), *symbols) for seed, shape in enumerate(shapes))
    return query, key, value


def _check(sketch: Sketch, kernels: int) -> None:
    assert _kernels(sketch) == kernels
    sketch.check()


def test_ranks_three_and_four() -> None:
    for batch in ((2,), (2, 3)):
        sketch = Sketch()
        query, key, value = (sketch.fed(normal(*batch, *size), "n") for size in ((3, 4), (4, 5), (5, 6)))
        sketch.output(_attention(sketch, query, key, value))
        _check(sketch, 1)


def test_scale_before_and_after_the_product() -> None:
    sketch = Sketch()
    query, key, value = _operands(sketch)
    scores = sketch.map("div", sketch.matmul(sketch.map("mul", query, 0.5), sketch.map("mul", key, 0.25)), 3.0)
    sketch.output(sketch.matmul(sketch.softmax(scores), value))
    _check(sketch, 1)


def test_masks_of_every_shape_that_fits() -> None:
    for shape in ((3, 5), (1, 5), (3, 1), (2, 1, 1, 5), (1, 2, 3, 5), (2, 2, 3, 5), (1,), ()):
        sketch = Sketch()
        sketch.output(_attention(sketch, *_operands(sketch), sketch.fed(normal(*shape, seed=9))))
        _check(sketch, 1)


def test_constant_mask_and_constant_key() -> None:
    for constant_key in (False, True):
        sketch = Sketch()
        query, key, value = _operands(sketch)
        if constant_key:
            key = sketch.constant(normal(2, 2, 4, 5))
        causal = np.triu(np.full((3, 5), -np.inf, np.float32), 1)
        sketch.output(_attention(sketch, query, key, value, sketch.constant(causal)))
        _check(sketch, 1)


def test_mask_that_widens_the_scores_is_left_alone() -> None:
    for shape in ((7, 1, 3, 5), (1, 1, 3, 5)):
        sketch = Sketch()
        query, key, value = _operands(sketch, 1)
        sketch.output(_attention(sketch, query, key, value, sketch.fed(normal(*shape), "masks")))
        _check(sketch, 0)


def test_mask_that_widens_rows_is_left_alone() -> None:
    sketch = Sketch()
    query, key, value = sketch.fed(normal(2, 2, 1, 4)), sketch.fed(normal(2, 2, 4, 5)), sketch.fed(normal(2, 2, 5, 6))
    sketch.output(_attention(sketch, query, key, value, sketch.fed(normal(3, 5))))
    _check(sketch, 0)


def test_mask_whose_sizes_may_be_one() -> None:
    for shape in ((1, 1, 1, 1), (2, 1, 3, 1), (2, 2, 3, 5)):
        sketch = Sketch()
        mask = sketch.fed(normal(*shape), "m0", "m1", "m2", "m3")
        sketch.output(_attention(sketch, *_operands(sketch), mask))
        _check(sketch, 1)


def test_attention_over_attention() -> None:
    sketch = Sketch()
    query, key = sketch.fed(normal(1, 2, 3, 4)), sketch.fed(normal(1, 2, 4, 5))
    value = sketch.fed(normal(1, 2, 5, 4))
    first = _attention(sketch, query, key, value)
    turned = sketch.transpose(first, 0, 1, 3, 2)
    sketch.output(_attention(sketch, first, turned, first))
    _check(sketch, 2)


def test_scores_that_are_read_elsewhere_are_kept() -> None:
    sketch = Sketch()
    query, key, value = _operands(sketch)
    weights = sketch.softmax(sketch.matmul(query, key))
    sketch.output(weights, sketch.matmul(weights, value))
    _check(sketch, 0)


def test_operands_are_read_where_they_lie() -> None:
    """Heads split off by reshape, slice and transpose are strides of the kernel's operands."""
    sketch = Sketch()
    together = sketch.reshape(sketch.fed(normal(2, 5, 36)), 2, 5, 3, 3, 4)
    parts = []
    for number in range(3):
        part = sketch.slice(together, (0, 1, 2), (0, 1, 5), (number, 1, 1), (0, 1, 3), (0, 1, 4))
        parts.append(sketch.transpose(sketch.reshape(part, 2, 5, 3, 4), 0, 2, 1, 3))
    query, key, value = parts
    result = _attention(sketch, query, sketch.transpose(key, 0, 1, 3, 2), value)
    sketch.output(sketch.reshape(sketch.transpose(result, 0, 2, 1, 3), 2, 5, 12))
    graph = run_passes(sketch.graph(), CompileOptions(), HOST)
    (node,) = (node for node in graph.nodes if node.op.name == "attention")
    assert all(value is graph.inputs[0] for value in node.inputs)
    sketch.check()
