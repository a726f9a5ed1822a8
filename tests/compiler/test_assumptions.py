"""Sizes that operators rely on stay on record through every pass."""

from __future__ import annotations

import onnx.parser

from onnxsmith_compiler.codegen.target import Target
from onnxsmith_compiler.ir.graph import Graph, Relation
from onnxsmith_compiler.onnx.loader import load_model
from onnxsmith_compiler.options import CompileOptions
from onnxsmith_compiler.pipeline import lower_model

_HEADER = '<ir_version: 10, opset_import: ["" : 20]>\n'


def optimised(text: str) -> Graph:
    model = onnx.parser.parse_model(_HEADER + text)
    return lower_model(load_model(model.SerializeToString()), CompileOptions(), Target.host()).graph


def recorded(graph: Graph) -> set[tuple[str, str, Relation]]:
    return {(str(a.left), str(a.right), a.relation) for a in graph.assumptions}


def test_what_a_pass_relies_on_is_recorded() -> None:
    """The layout pass writes the sampler whose kernel takes both batches to be one."""
    graph = optimised("g (float[n,2,4,4] x, float[k,3,3,2] grid) => (y) { y = GridSample (x, grid) }")
    assert ("n", "k", Relation.EQUAL) in recorded(graph)


def test_what_the_importer_relies_on_outlives_the_passes() -> None:
    graph = optimised("g (float[n] x, float[k] z) => (y) { s = Add (x, z) y = Relu (s) }")
    assert ("n", "k", Relation.BROADCAST) in recorded(graph)
