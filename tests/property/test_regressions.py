"""Small graphs that once were wrong, as text, against the reference evaluator in double precision."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx.parser
import pytest
from onnx.reference import ReferenceEvaluator

from onnxsmith_compiler.options import CompileOptions
from tests.compiling import Compiler, executor_of, run_named

_HEADER = '<ir_version: 10, opset_import: ["" : 20]>\n'

NORMALISED_TOTAL = """
g (float[n,n] x) => (y) <int64[2] axes = {0, 1}, float[1] scale = {0.75}, float[1] bias = {0.5}> {
    total = ReduceL2 <keepdims: int = 1> (x, axes)
    y = LayerNormalization (total, scale, bias)
}
"""

EMPTY_INTEGERS = """
g (float[1,1] x) => (y) <int64[1] zero = {0}, int64[1] one = {1}, int64[0,1] nothing = {}> {
    best = ArgMax <axis: int = 0> (x)
    none = Slice (best, zero, zero, zero, one)
    y = Less (none, nothing)
}
"""

LAST_NAN = """
g (float[n,3,n] x) => (rows, columns, least) {
    root = Sqrt (x)
    rows = ArgMax <axis: int = 2, select_last_index: int = 1> (root)
    columns = ArgMax <axis: int = 1, select_last_index: int = 1> (root)
    least = ArgMin <axis: int = 1, select_last_index: int = 1> (root)
}
"""

GRAPHS = {
    "a reduction over one element of a total": (NORMALISED_TOTAL, {"x": (3, 3)}),
    "a constant of integers without elements": (EMPTY_INTEGERS, {"x": (1, 1)}),
    "the last of several NaN": (LAST_NAN, {"x": (20, 3, 20)}),
}


@pytest.fixture(scope="module")
def compiler(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Compiler]:
    cache = os.environ.get("ONNXSMITH_CACHE_DIR") or tmp_path_factory.mktemp("kernels")
    with Compiler(Path(cache), workers=2) as running:
        yield running


@pytest.mark.parametrize("level", [0, 99])
@pytest.mark.parametrize("name", GRAPHS)
def test_graph(name: str, level: int, compiler: Compiler) -> None:
    text, shapes = GRAPHS[name]
    model = onnx.parser.parse_model(_HEADER + text)
    rng = np.random.default_rng(0)
    feed = {key: rng.integers(-8, 9, shape).astype(np.float32) / 8 for key, shape in shapes.items()}
    expected = ReferenceEvaluator(model).run(None, feed)
    found = run_named(executor_of(compiler.compile(model, CompileOptions(optimization_level=level))), feed)
    for a, b in zip(found, expected, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)
