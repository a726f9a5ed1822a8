"""Which graphs become one attention kernel, and that they compute the same."""

from __future__ import annotations

import numpy as np
import pytest
from tests.graphs import Sketch, normal
from tests.interpreter import HOST

from onnxsmith_compiler.ir import dim as dims
from onnxsmith_compiler.ir.graph import Value
from onnxsmith_compiler.ops.attention import FusedAttention
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


def _fused(sketch: Sketch) -> FusedAttention:
    """The operator of the only attention, once its results are checked."""
    sketch.check()
    nodes = run_passes(sketch.graph(), CompileOptions(), HOST).nodes
    (op,) = (node.op for node in nodes if isinstance(node.op, FusedAttention))
    return op


def _windows(batch: int, symbol: str | None, bias: bool = True) -> Sketch:
    """Heads' biases and windows' masks, added through a view of the scores whose batch is split into windows."""
    windows, heads, rows, depth = 4, 2, 5, 3
    sketch = Sketch()
    images = dims.symbol(symbol) if symbol else batch
    names = (symbol,) if symbol else ()
    together = sketch.fed(normal(batch, windows, rows, 3 * heads * depth), *names)
    split = sketch.reshape(together, images * windows, rows, 3, heads, depth)
    turned = sketch.transpose(split, 2, 0, 3, 1, 4)
    whole = [(0, 1, images * windows), (0, 1, heads), (0, 1, rows), (0, 1, depth)]
    query, key, value = (
        sketch.reshape(sketch.slice(turned, (number, 1, 1), *whole), images * windows, heads, rows, depth)
        for number in range(3)
    )
    scores = sketch.matmul(sketch.map("mul", query, 0.5), sketch.transpose(key, 0, 1, 3, 2))
    if bias:
        scores = sketch.map("add", scores, sketch.constant(normal(1, heads, rows, rows, seed=5)))
    apart = sketch.reshape(scores, images, windows, heads, rows, rows)
    masked = sketch.map("add", apart, sketch.constant(normal(1, windows, 1, rows, rows, seed=6)))
    weights = sketch.softmax(sketch.reshape(masked, images * windows, heads, rows, rows))
    result = sketch.transpose(sketch.matmul(weights, value), 0, 2, 1, 3)
    sketch.output(sketch.reshape(result, images * windows, rows, heads * depth))
    return sketch


@pytest.mark.parametrize(("batch", "symbol"), [(1, None), (3, None), (3, "n")])
def test_masks_added_through_a_view_of_the_scores(batch: int, symbol: str | None) -> None:
    op = _fused(_windows(batch, symbol))
    heads, windows = op.masks
    assert heads.strides[-4:] == (0, 25, 5, 1)  # of windows, heads, rows and columns
    assert windows.strides[-4:] == (25, 0, 5, 1)


def test_nothing_is_copied_around_shifted_windows() -> None:
    graph = run_passes(_windows(3, "n").graph(), CompileOptions(), HOST)
    assert {node.op.name for node in graph.nodes} <= {"attention", "reshape"}


def test_a_mask_over_rows_and_columns_as_one_axis() -> None:
    sketch = Sketch()
    query, key, value = _operands(sketch)
    flat = sketch.map("add", sketch.reshape(sketch.matmul(query, key), 2, 2, 15), sketch.fed(normal(15)))
    sketch.output(sketch.matmul(sketch.softmax(sketch.reshape(flat, 2, 2, 3, 5)), value))
    assert _fused(sketch).masks[0].strides == (0, 0, 5, 1)


def test_a_view_that_takes_rows_apart_is_left_alone() -> None:
    sketch = Sketch()
    query, key, value = (sketch.fed(normal(*shape)) for shape in ((2, 2, 5, 4), (2, 2, 4, 3), (2, 2, 5, 6)))
    scores = sketch.reshape(sketch.matmul(query, key), 2, 2, 3, 5)
    sketch.output(sketch.matmul(sketch.softmax(scores), value))
    _check(sketch, 0)


@pytest.mark.parametrize("symbol", [None, "n"])
def test_keys_and_values_repeated_for_groups_of_heads(symbol: str | None) -> None:
    batch, groups, shared = 2, 2, 3
    names = (symbol,) if symbol else ()
    size = dims.symbol(symbol) if symbol else batch
    sketch = Sketch()
    query = sketch.fed(normal(batch, groups * shared, 4, 8), *names)
    repeated = []
    for seed in (1, 2):
        one = sketch.fed(normal(batch, groups, 5, 8, seed=seed), *names)
        wide = sketch.expand(sketch.reshape(one, size, groups, 1, 5, 8), size, groups, shared, 5, 8)
        repeated.append(sketch.reshape(wide, size, groups * shared, 5, 8))
    key, value = repeated
    sketch.output(_attention(sketch, query, sketch.transpose(key, 0, 1, 3, 2), value))
    op = _fused(sketch)
    assert op.outer == (size, groups, shared)
    assert op.key.strides == op.value.strides == (groups * 5 * 8, 5 * 8, 0, 8, 1)


def test_keys_broadcast_over_the_scores_of_a_group() -> None:
    sketch = Sketch()
    query, key, value = (sketch.fed(normal(*shape)) for shape in ((2, 2, 3, 4, 8), (2, 2, 1, 8, 5), (2, 2, 1, 5, 6)))
    sketch.output(_attention(sketch, query, key, value))
    assert _fused(sketch).value.strides == (60, 30, 0, 6, 1)


def test_soft_cap() -> None:
    sketch = Sketch()
    query, key, value = _operands(sketch)
    scores = sketch.map("div", sketch.matmul(sketch.map("mul", query, 0.25), key), 1.5)
    scores = sketch.map("mul", sketch.map("tanh", scores), 1.5)
    sketch.output(sketch.matmul(sketch.softmax(sketch.map("add", scores, sketch.fed(normal(3, 5)))), value))
    op = _fused(sketch)
    assert (op.softcap, op.scale) == (1.5, 0.25)


def test_a_mask_before_the_scale_is_left_alone() -> None:
    sketch = Sketch()
    query, key, value = _operands(sketch)
    scores = sketch.map("mul", sketch.map("add", sketch.matmul(query, key), sketch.fed(normal(3, 5))), 2.0)
    sketch.output(sketch.matmul(sketch.softmax(scores), value))
    _check(sketch, 0)


@pytest.mark.parametrize("past", [0, 2])
@pytest.mark.parametrize("hidden", [-np.inf, float(np.finfo(np.float32).min)])
def test_constant_causal_mask(past: int, hidden: float) -> None:
    sketch = Sketch()
    query, key, value = _operands(sketch)
    mask = np.where(np.arange(5) <= np.arange(3)[:, None] + past, 0.0, hidden)
    sketch.output(_attention(sketch, query, key, value, sketch.constant(mask[None, None])))
    op = _fused(sketch)
    assert op.past == past and op.masks == ()


def test_masks_that_are_nearly_causal_stay_masks() -> None:
    causal = np.where(np.arange(5) <= np.arange(3)[:, None], 0.0, -np.inf)
    for change in ((0, 0, -np.inf), (2, 1, 0.5), (0, 4, 0.0), (0, 4, -100.0)):
        mask = causal.copy()
        mask[change[:2]] = change[2]
        sketch = Sketch()
        sketch.output(_attention(sketch, *_operands(sketch), sketch.constant(mask)))
        nodes = run_passes(sketch.graph(), CompileOptions(), HOST).nodes
        assert [node.op.past for node in nodes if isinstance(node.op, FusedAttention)] == [None]
