"""Maps printed in transposed blocks: whole blocks, overlapping last ones, and axes too short for any."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import ml_dtypes
import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper
from tests.compiling import Compiler, executor_of, run_named

from onnxsmith_compiler.options import CompileOptions

DTYPES = (np.float32, np.float64, np.float16, ml_dtypes.bfloat16, np.int8, np.uint16, np.int32, np.int64, np.bool_)
SHAPES = ((16, 16), (17, 33), (8, 100), (100, 8), (7, 50), (1, 64), (3, 47, 19), (2, 16, 15))


@pytest.fixture(scope="module")
def compiler(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Compiler]:
    path: Path = tmp_path_factory.mktemp("kernels")
    with Compiler(path) as compiler:
        yield compiler


def model(
    nodes: list[onnx.NodeProto], inputs: dict[str, tuple[int, list[int | str]]], outputs: dict[str, int]
) -> onnx.ModelProto:
    graph = helper.make_graph(
        nodes,
        "transposes",
        [helper.make_tensor_value_info(name, kind, shape) for name, (kind, shape) in inputs.items()],
        [
            onnx.ValueInfoProto(name=name, type=helper.make_tensor_type_proto(kind, None))
            for name, kind in outputs.items()
        ],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)


def labels(compiler: Compiler, proto: onnx.ModelProto) -> list[str]:
    return [step.label for step in compiler.lower(proto, CompileOptions()).steps]


def test_every_type_and_shape(compiler: Compiler) -> None:
    nodes, inputs, outputs, feed, expected = [], {}, {}, {}, []
    for dtype in DTYPES:
        for shape in SHAPES:
            name = f"x{len(feed)}"
            order = (*range(len(shape) - 2), len(shape) - 1, len(shape) - 2)
            array = np.random.default_rng(len(feed)).integers(0, 100, shape).astype(dtype)
            kind = numpy_helper.from_array(array).data_type
            nodes.append(helper.make_node("Transpose", [name], [f"y{name}"], perm=order))
            inputs[name], outputs[f"y{name}"], feed[name] = (kind, list(shape)), kind, array
            expected.append(array.transpose(order))
    for got, wanted in zip(
        run_named(executor_of(compiler.compile(model(nodes, inputs, outputs))), feed), expected, strict=True
    ):
        np.testing.assert_array_equal(got, wanted)


def test_arithmetic_on_both_orders(compiler: Compiler) -> None:
    """y = (relu(x).T + b) * x2.T, for sizes that only a run knows: shorter than a block, and not."""
    nodes = [
        helper.make_node("Relu", ["x"], ["r"]),
        helper.make_node("Transpose", ["r"], ["t"], perm=(0, 2, 1)),
        helper.make_node("Add", ["t", "b"], ["s"]),
        helper.make_node("Transpose", ["x2"], ["t2"], perm=(0, 2, 1)),
        helper.make_node("Mul", ["s", "t2"], ["y"]),
    ]
    names: list[int | str] = ["n", "p", "q"]
    inputs: dict[str, tuple[int, list[int | str]]] = {"x": (1, names), "x2": (1, names), "b": (1, ["p"])}
    proto = model(nodes, inputs, {"y": 1})
    assert labels(compiler, proto) == ["transposing_map"]
    executor = executor_of(compiler.compile(proto))
    for shape in ((1, 16, 32), (3, 21, 50), (2, 40, 5), (2, 5, 40), (1, 1, 1), (0, 20, 20), (2, 0, 20), (2, 20, 0)):
        generator = np.random.default_rng(0)
        x, x2 = generator.standard_normal((2, *shape), np.float32)
        b = generator.standard_normal(shape[1], np.float32)
        wanted = (np.maximum(x, 0).transpose(0, 2, 1) + b) * x2.transpose(0, 2, 1)
        (got,) = run_named(executor, {"x": x, "x2": x2, "b": b})
        np.testing.assert_allclose(got, wanted, rtol=1e-6)


def test_same_bits_for_any_number_of_threads(compiler: Compiler) -> None:
    nodes = [helper.make_node("Transpose", ["x"], ["y"], perm=(1, 0))]
    compiled = compiler.compile(model(nodes, {"x": (1, [501, 1003])}, {"y": 1}))
    x = np.random.default_rng(0).standard_normal((501, 1003), np.float32)
    for threads in (1, 2, 3):
        np.testing.assert_array_equal(run_named(executor_of(compiled, threads), {"x": x})[0], x.T)


def test_short_axes_stay_plain_loops(compiler: Compiler) -> None:
    nodes = [helper.make_node("Transpose", ["x"], ["y"], perm=(0, 2, 1))]
    assert labels(compiler, model(nodes, {"x": (1, [2, 500, 3])}, {"y": 1})) == ["map"]
    assert labels(compiler, model(nodes, {"x": (1, [2, 500, 8])}, {"y": 1})) == ["transpose"]


@pytest.mark.parametrize("scale", [2, 3, 4, 5])
def test_a_short_innermost_axis(compiler: Compiler, scale: int) -> None:
    """Pixels that are made of channels, as DepthToSpace does."""
    inputs: dict[str, tuple[int, list[int | str]]] = {"x": (1, ["h", "w", scale, scale, "c"]), "b": (1, ["c", 1, 1])}
    nodes = [
        helper.make_node("Transpose", ["x"], ["t"], perm=(4, 0, 2, 1, 3)),
        helper.make_node("Shape", ["x"], ["s"]),
        helper.make_node("Split", ["s"], ["h", "w", "k", "k2", "c"], num_outputs=5),
        helper.make_node("Mul", ["h", "k"], ["hk"]),
        helper.make_node("Mul", ["w", "k"], ["wk"]),
        helper.make_node("Concat", ["c", "hk", "wk"], ["shape"], axis=0),
        helper.make_node("Reshape", ["t", "shape"], ["r"]),
        helper.make_node("Add", ["r", "b"], ["y"]),
    ]
    proto = model(nodes, inputs, {"y": 1})
    assert labels(compiler, proto) == (["transposing_map"] if scale < 5 else ["map"])
    executor = executor_of(compiler.compile(proto))
    for height, width, channels in ((3, 16, 32), (2, 21, 17), (1, 5, 40), (3, 40, 5), (1, 1, 1), (2, 0, 20)):
        x = np.random.default_rng(0).standard_normal((height, width, scale, scale, channels), np.float32)
        b = np.arange(channels, dtype=np.float32)[:, None, None]
        expected = x.transpose(4, 0, 2, 1, 3).reshape(channels, height * scale, width * scale) + b
        (got,) = run_named(executor, {"x": x, "b": b})
        np.testing.assert_array_equal(got, expected)
