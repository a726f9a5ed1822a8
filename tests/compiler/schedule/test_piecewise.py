"""Maps of concatenations are computed in each piece, where nobody else reads the concatenation."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import onnx
import pytest
from onnx import helper
from tests.compiling import Compiler, executor_of, run_named

from onnxsmith_compiler.options import CompileOptions

WIDTHS = (3, 5, 0, 8)
RNG = np.random.default_rng(0)
FEED = {f"x{n}": RNG.standard_normal((2, width, 6), np.float32) for n, width in enumerate(WIDTHS)}
FEED["s"], FEED["z"] = RNG.standard_normal((16, 1), np.float32), RNG.standard_normal((2, 16, 6), np.float32)
JOINED = np.concatenate([FEED[f"x{n}"] for n in range(len(WIDTHS))], axis=1)


@pytest.fixture(scope="module")
def compiler(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Compiler]:
    with Compiler(tmp_path_factory.mktemp("kernels")) as compiler:
        yield compiler


def concatenation(*nodes: onnx.NodeProto, outputs: tuple[str, ...] = ("y",)) -> onnx.ModelProto:
    """c is the concatenation of x0, x1, ... along axis 1."""
    joined = helper.make_node("Concat", [f"x{n}" for n in range(len(WIDTHS))], ["c"], axis=1)
    graph = helper.make_graph(
        [joined, *nodes],
        "concatenation",
        [helper.make_tensor_value_info(name, 1, array.shape) for name, array in FEED.items()],
        [onnx.ValueInfoProto(name=name, type=helper.make_tensor_type_proto(1, None)) for name in outputs],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)


SCALED = (
    helper.make_node("Mul", ["c", "s"], ["m"]),
    helper.make_node("Add", ["m", "z"], ["a"]),
    helper.make_node("Relu", ["a"], ["y"]),
)


def run(compiler: Compiler, model: onnx.ModelProto) -> list[np.ndarray]:
    return run_named(executor_of(compiler.compile(model), threads=2), FEED)


def test_scale_and_sum(compiler: Compiler) -> None:
    model = concatenation(*SCALED)
    (got,) = run(compiler, model)
    np.testing.assert_allclose(got, np.maximum(JOINED * FEED["s"] + FEED["z"], 0), rtol=1e-6)
    outputs = {step.writes for step in compiler.lower(model, CompileOptions()).steps}
    assert len(outputs) == 1, "the concatenation itself is not stored"


def test_concatenation_that_is_a_result_too(compiler: Compiler) -> None:
    got, joined = run(compiler, concatenation(*SCALED, outputs=("y", "c")))
    np.testing.assert_array_equal(joined, JOINED)
    np.testing.assert_allclose(got, np.maximum(JOINED * FEED["s"] + FEED["z"], 0), rtol=1e-6)


def test_map_of_other_elements_reads_the_whole(compiler: Compiler) -> None:
    """y = c with its last axis reversed, plus c: an element takes two elements of the concatenation."""
    ends = [helper.make_node("Constant", [], [name], value_ints=[n]) for name, n in (("b", -1), ("e", -99), ("k", 2))]
    step = helper.make_node("Constant", [], ["step"], value_ints=[-1])
    turned = helper.make_node("Slice", ["c", "b", "e", "k", "step"], ["t"])
    (got,) = run(compiler, concatenation(*ends, step, turned, helper.make_node("Add", ["t", "c"], ["y"])))
    np.testing.assert_allclose(got, JOINED[:, :, ::-1] + JOINED, rtol=1e-6)


def test_two_readers_share_the_whole(compiler: Compiler) -> None:
    other = helper.make_node("ReduceSum", ["c"], ["total"], keepdims=0)
    got, total = run(compiler, concatenation(*SCALED, other, outputs=("y", "total")))
    np.testing.assert_allclose(got, np.maximum(JOINED * FEED["s"] + FEED["z"], 0), rtol=1e-6)
    np.testing.assert_allclose(total, JOINED.sum(), rtol=1e-4)
