"""Long reductions with few results: partial results whose order does not depend on the threads."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper
from tests.compiling import Compiler, executor_of, run_named

from onnxsmith_compiler.options import CompileOptions

Sizes = tuple[int | str, ...]


@pytest.fixture(scope="module")
def compiler(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Compiler]:
    with Compiler(tmp_path_factory.mktemp("kernels")) as compiler:
        yield compiler


def reduction(
    operator: str, shape: Sizes, axes: tuple[int, ...], kind: int = onnx.TensorProto.FLOAT
) -> onnx.ModelProto:
    """y = reduction of relu(x)."""
    nodes = [helper.make_node("Relu", ["x"], ["r"]), helper.make_node(operator, ["r", "axes"], ["y"], keepdims=0)]
    graph = helper.make_graph(
        nodes,
        "reduction",
        [helper.make_tensor_value_info("x", kind, shape)],
        [onnx.ValueInfoProto(name="y", type=helper.make_tensor_type_proto(kind, None))],
        [numpy_helper.from_array(np.array(axes, np.int64), "axes")],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)


CASES = (
    ("ReduceSum", (300, 1000), (0, 1), np.sum),
    ("ReduceSum", (1, 90_000), (1,), np.sum),
    ("ReduceSum", (3, 7, 20_000), (1, 2), np.sum),
    ("ReduceSum", (20_000, 10), (0,), np.sum),
    ("ReduceMax", (2, 100, 500, 3), (1, 2), np.max),
    ("ReduceMin", (123_456,), (0,), np.min),
    ("ReduceMean", (640, 480), (0, 1), np.mean),
)


@pytest.mark.parametrize(("operator", "shape", "axes", "oracle"), CASES)
def test_parts_are_the_same_for_any_number_of_threads(
    compiler: Compiler, operator: str, shape: tuple[int, ...], axes: tuple[int, ...], oracle: np.ufunc
) -> None:
    compiled = compiler.compile(reduction(operator, shape, axes))
    first = compiled.program.segments[0].steps[0]
    assert compiled.program.slots[first.tiles] >= 4
    x = np.random.default_rng(0).standard_normal(shape, np.float32) - np.float32(0.25)
    results = [run_named(executor_of(compiled, threads), {"x": x})[0] for threads in (1, 2, 3)]
    np.testing.assert_allclose(results[0], oracle(np.maximum(x, 0).astype(np.float64), axis=axes), rtol=1e-5)
    for other in results[1:]:
        np.testing.assert_array_equal(results[0], other)


def test_parts_of_half_precision_sums_are_in_full_precision(compiler: Compiler) -> None:
    x = np.full((1, 80_000), 0.7, np.float16)
    executor = executor_of(compiler.compile(reduction("ReduceSum", (1, 80_000), (1,), onnx.TensorProto.FLOAT16)))
    (got,) = run_named(executor, {"x": x})
    assert got == np.float16(np.sum(x, dtype=np.float64))


@pytest.mark.parametrize(
    ("shape", "axes"),
    [((100, 1000), (1,)), ((10, 100), (0, 1)), (("n", 1000), (0, 1)), ((1000, 1000), (0,)), ((100_003,), (0,))],
)
def test_others_stay_whole(compiler: Compiler, shape: Sizes, axes: tuple[int, ...]) -> None:
    """Enough tiles, few elements, unknown sizes, and a prime extent."""
    assert len(compiler.lower(reduction("ReduceSum", shape, axes), CompileOptions()).steps) == 1
