"""Names of sizes are the model's to choose: none is taken for another, for one of the compiler's own, or for code."""

from __future__ import annotations

import warnings
from collections.abc import Sequence

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

import onnxsmith
from tests.compiling import Array, Compiler, executor_of, run_named

NAMES = (
    "?", "?0.0", "?1.0", "?late", "?late_1", "?size", "?count", "n.0.0", "i0", "k0", "begin", "ctx", "def", "None",
    "a b", " ", "a + b", "(a // 4)", "2", "-1", "max(a, b)", "größe", "\N{SNOWMAN}", "'", '"', "\\", "\n", "%s", "{n}",
    "x" * 10_000,
)  # fmt: skip


def model(nodes: Sequence[onnx.NodeProto], *shapes: Sequence[str | int | None]) -> onnx.ModelProto:
    """A model with the float inputs x0, x1, ... and the outputs y0, y1, ... of all nodes."""
    inputs = [helper.make_tensor_value_info(f"x{i}", TensorProto.FLOAT, shape) for i, shape in enumerate(shapes)]
    outputs = [onnx.ValueInfoProto(name=name) for node in nodes for name in node.output if name.startswith("y")]
    graph = helper.make_graph(nodes, "named", inputs, outputs)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)


def row(*shape: int) -> Array:
    return np.random.default_rng(sum(shape)).standard_normal(shape).astype(np.float32)


TOGETHER = [
    helper.make_node("Concat", ["x0", "x1"], ["joined"], axis=0),
    helper.make_node("Exp", ["joined"], ["y0"]),
    helper.make_node("NonZero", ["x0"], ["y1"]),
    helper.make_node("Shape", ["x1"], ["y2"]),
    helper.make_node("ReduceSum", ["joined"], ["y3"], keepdims=0),
]


@pytest.mark.parametrize("names", list(zip(NAMES, (*NAMES[1:], NAMES[0]), strict=True)))
def test_any_name_will_do(names: tuple[str, str], compiler: Compiler) -> None:
    executor = executor_of(compiler.compile(model(TOGETHER, [names[0]], [names[1]])))
    for sizes in ((3, 5), (1, 1), (4, 0)):
        x0, x1 = row(sizes[0]), row(sizes[1])
        joined, found, shape, total = run_named(executor, {"x0": x0, "x1": x1})
        np.testing.assert_allclose(joined, np.exp(np.concatenate([x0, x1])), rtol=1e-6)
        np.testing.assert_array_equal(found, np.nonzero(x0))
        np.testing.assert_array_equal(shape, [sizes[1]])
        np.testing.assert_allclose(total, np.concatenate([x0, x1]).sum(dtype=np.float64), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", ["?0.0", "?2.0", "?late", "?size"])
def test_sizes_without_a_name_are_not_those_of_that_name(name: str, compiler: Compiler) -> None:
    nodes = [helper.make_node("Exp", [f"x{i}"], [f"y{i}"]) for i in range(3)]
    executor = executor_of(compiler.compile(model(nodes, [None], [name], [""])))
    feed = {"x0": row(2), "x1": row(3), "x2": row(4)}
    for found, x in zip(run_named(executor, feed), feed.values(), strict=True):
        np.testing.assert_allclose(found, np.exp(x), rtol=1e-6)


@pytest.mark.parametrize("name", ["?late", "?size"])
def test_sizes_that_a_run_computes_are_not_those_of_that_name(name: str, compiler: Compiler) -> None:
    nodes = [
        helper.make_node("NonZero", ["x0"], ["places"]),
        helper.make_node("Cast", ["places"], ["numbers"], to=TensorProto.FLOAT),
        helper.make_node("Exp", ["numbers"], ["y0"]),
        helper.make_node("Cast", ["x2"], ["count"], to=TensorProto.INT64),
        helper.make_node("ConstantOfShape", ["count"], ["zeros"]),
        helper.make_node("Exp", ["zeros"], ["y1"]),
        helper.make_node("Exp", ["x1"], ["y2"]),
    ]
    executor = executor_of(compiler.compile(model(nodes, ["n"], [name], [1])))
    x0, x1 = np.array([0, 1, 2, 0], np.float32), row(7)
    places, ones, other = run_named(executor, {"x0": x0, "x1": x1, "x2": np.array([5], np.float32)})
    np.testing.assert_allclose(places, np.exp([[1.0, 2.0]]), rtol=1e-6)
    np.testing.assert_array_equal(ones, np.ones(5))
    np.testing.assert_allclose(other, np.exp(x1), rtol=1e-6)


def test_a_name_like_that_of_an_occurrence(private_cache: None) -> None:
    """Where inputs disagree on n, its occurrences get names, which another size may have."""
    nodes = [helper.make_node("Exp", [f"x{i}"], [f"y{i}"]) for i in range(3)]
    session = onnxsmith.InferenceSession(model(nodes, ["n"], ["n"], ["n.0.0"]).SerializeToString())
    feed = {"x0": row(2), "x1": row(3), "x2": row(4)}
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        results = session.run(None, feed)
    assert len(told) == 1
    for found, x in zip(results, feed.values(), strict=True):
        np.testing.assert_allclose(found, np.exp(x), rtol=1e-6)


@pytest.mark.parametrize("name", ["?0.0", "?late", "a b", "größe", "x" * 10_000])
def test_a_size_is_fixed_by_its_name(name: str, private_cache: None) -> None:
    options = onnxsmith.SessionOptions()
    options.add_free_dimension_override_by_name(name, 3)
    data = model([helper.make_node("Exp", ["x0"], ["y0"])], [name]).SerializeToString()
    session = onnxsmith.InferenceSession(data, options)
    assert session.get_inputs()[0].shape == [3]
    np.testing.assert_allclose(session.run(None, {"x0": row(3)})[0], np.exp(row(3)), rtol=1e-6)
    plain = onnxsmith.InferenceSession(data)
    assert plain.get_inputs()[0].shape == [name]
    np.testing.assert_allclose(plain.run(None, {"x0": row(5)})[0], np.exp(row(5)), rtol=1e-6)
