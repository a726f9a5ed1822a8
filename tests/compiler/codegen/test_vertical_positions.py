"""ArgMax and ArgMin along an axis that is not the last: columns searched side by side."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import onnx
import pytest
from onnx import helper
from tests.compiling import Compiler, executor_of, run_named

from onnxsmith_compiler.options import CompileOptions

SHAPES = ((7, 64), (2, 5, 130), (3, 1, 70), (1000, 3), (4, 6, 5))
DTYPES = (np.float32, np.float64, np.float16, np.int8, np.uint8, np.int32, np.int64)


@pytest.fixture(scope="module")
def compiler(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Compiler]:
    with Compiler(tmp_path_factory.mktemp("kernels")) as compiler:
        yield compiler


def search_model(operator: str, last: int, inputs: dict[str, tuple[int, tuple[int | str, ...]]]) -> onnx.ModelProto:
    """One search for each input: y0 of the first, and so on."""
    nodes = [
        helper.make_node(operator, [name], [f"y{number}"], axis=len(shape) - 2, select_last_index=last)
        for number, (name, (_, shape)) in enumerate(inputs.items())
    ]
    kind = helper.make_tensor_type_proto(onnx.TensorProto.INT64, None)
    graph = helper.make_graph(
        nodes,
        "search",
        [helper.make_tensor_value_info(name, *of) for name, of in inputs.items()],
        [onnx.ValueInfoProto(name=f"y{number}", type=kind) for number in range(len(inputs))],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)


def wanted(operator: str, last: int, x: np.ndarray) -> np.ndarray:
    """numpy's answer, in which NaN is the extreme."""
    search = np.argmax if operator == "ArgMax" else np.argmin
    axis = x.ndim - 2
    if not last:
        return np.expand_dims(search(x, axis), axis)
    return np.expand_dims(x.shape[axis] - 1 - search(np.flip(x, axis), axis), axis)


@pytest.mark.parametrize("operator", ["ArgMax", "ArgMin"])
@pytest.mark.parametrize("last", [0, 1])
def test_against_numpy(compiler: Compiler, operator: str, last: int) -> None:
    kinds = {np.dtype(dtype).name: helper.np_dtype_to_tensor_dtype(np.dtype(dtype)) for dtype in DTYPES}
    model = search_model(operator, last, {name: (kind, ("a", "b", "c")) for name, kind in kinds.items()})
    executor = executor_of(compiler.compile(model), threads=2)
    for shape in SHAPES:
        x = np.random.default_rng(0).integers(0, 5, (1, *shape)[-3:])  # many ties
        feed = {name: x.astype(name) for name in kinds}
        for got in run_named(executor, feed):
            np.testing.assert_array_equal(got, wanted(operator, last, x))


@pytest.mark.parametrize("operator", ["ArgMax", "ArgMin"])
def test_nan_is_the_extreme(compiler: Compiler, operator: str) -> None:
    x = np.random.default_rng(0).standard_normal((9, 70), np.float32)
    x[3, 5] = x[6, 5] = np.nan
    x[:, 11] = np.nan
    x[:, 12], x[:, 13] = -np.inf, np.inf
    (got,) = run_named(executor_of(compiler.compile(search_model(operator, 0, {"x": (1, (9, 70))}))), {"x": x})
    np.testing.assert_array_equal(got, wanted(operator, 0, x))


def test_columns_are_searched_side_by_side(compiler: Compiler) -> None:
    steps = compiler.lower(search_model("ArgMax", 0, {"x": (1, (9, 70))}), CompileOptions()).steps
    assert [step.label for step in steps] == ["vertical_argmax_first"]
