"""Whole networks with weights stored as bfloat16."""

from __future__ import annotations

import numpy as np
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

import onnxsmith
from onnxsmith_compiler.options import CompileOptions
from tests.compiling import Compiler, executor_of, run_named
from tests.models.catalog import BY_NAME

TOLERANCE = 2e-2
"""Of the output's scale."""
BF16 = CompileOptions(precision="bf16")


@pytest.mark.parametrize("name", ["bert-symbolic", "gpt2", "vit", "resnet18-batch", "mobilenet_v2", "lstm"])
def test_networks_are_close_to_float32_whatever_the_threads(name: str, compiler: Compiler) -> None:
    _check_network(name, compiler)


@pytest.mark.parametrize("name", ["vit", "resnet18-batch"])
def test_networks_of_pairs_are_close_to_float32_whatever_the_threads(name: str, pairs_compiler: Compiler) -> None:
    lowered = pairs_compiler.lower(BY_NAME[name].proto, BF16)
    assert any("bf16x2" in step.kernel.source.text for step in lowered.steps)
    _check_network(name, pairs_compiler)


def _check_network(name: str, compiler: Compiler) -> None:
    model = BY_NAME[name]
    peer = onnxruntime.InferenceSession(model.proto.SerializeToString(), providers=["CPUExecutionProvider"])
    compiled, wide = (compiler.compile(model.proto, options) for options in (BF16, CompileOptions()))
    assert compiled.weights.size < wide.weights.size
    one, two = (executor_of(compiled, threads) for threads in (1, 2))
    for feed in model.feeds():
        found = run_named(one, feed)
        for result, again, reference in zip(found, run_named(two, feed), peer.run(None, feed), strict=True):
            np.testing.assert_array_equal(again, result)
            error = np.abs(result - reference).max() / np.abs(reference).max()
            assert 0 < error < TOLERANCE, f"off by {error:.1e} of the scale"


def test_images_keep_their_bits_in_a_batch(compiler: Compiler) -> None:
    _check_images(compiler)


def test_images_keep_their_bits_in_a_batch_of_pairs(pairs_compiler: Compiler) -> None:
    _check_images(pairs_compiler)


def _check_images(compiler: Compiler) -> None:
    model = BY_NAME["resnet18-batch"]
    executor = executor_of(compiler.compile(model.proto, BF16), threads=2)
    feed = model.feeds()[0]
    whole = run_named(executor, feed)
    for number in range(3):
        alone = run_named(executor, {name: array[number : number + 1] for name, array in feed.items()})
        for result, among in zip(alone, whole, strict=True):
            np.testing.assert_array_equal(result[0], among[number])


def test_a_session_takes_the_option(private_cache: None) -> None:
    weights = np.random.default_rng(0).standard_normal((64, 32)).astype(np.float32)
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "w"], ["y"])],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 64])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", 32])],
        [numpy_helper.from_array(weights, "w")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    options = onnxsmith.SessionOptions()
    options.add_session_config_entry("onnxsmith.compile.precision", "bf16")
    session = onnxsmith.InferenceSession(model.SerializeToString(), options)
    x = np.eye(64, dtype=np.float32)
    for rows in (0, 1, 2, 64):
        (y,) = session.run(None, {"x": x[:rows]})
        assert y.shape == (rows, 32)
        np.testing.assert_allclose(y, weights[:rows], rtol=2.0**-8)
        assert not rows or np.any(y != weights[:rows])
