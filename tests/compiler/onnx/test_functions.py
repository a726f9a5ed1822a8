"""Model-local functions, and operators that ONNX defines as functions, against engines that know them."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from model_builders import NODE, float_info, make_model
from onnx import AttributeProto, TensorProto, helper, numpy_helper
from onnx.backend.test import loader as official_cases
from onnx.reference import ReferenceEvaluator
from proto_export import export_model

from onnxsmith_compiler import errors
from onnxsmith_compiler.ir import dtype as dt
from onnxsmith_compiler.onnx.functions import expand_function, has_function_body
from onnxsmith_compiler.onnx.limits import LoadLimits
from onnxsmith_compiler.onnx.loader import load_model
from onnxsmith_compiler.onnx.model import OnnxGraph, OnnxNode, SequenceType, TensorType
from onnxsmith_compiler.onnx.names import NamePool

onnxruntime.set_default_logger_severity(4)
X = np.array([-1.5, 2.0], np.float32)
FLOAT2 = TensorType(dt.FLOAT32, (2,))


def function(
    name: str,
    nodes: Sequence[onnx.NodeProto],
    *,
    inputs: Sequence[str] = ("a",),
    outputs: Sequence[str] = ("b",),
    attributes: Sequence[str] = (),
    defaults: dict[str, Any] | None = None,
    opset: int = 17,
    calls: bool = False,
    **fields: Any,
) -> onnx.FunctionProto:
    """A function of domain "my"; one that calls others imports that domain too."""
    imports = [helper.make_opsetid("", opset)] + ([helper.make_opsetid("my", 1)] if calls else [])
    protos = [helper.make_attribute(key, value) for key, value in (defaults or {}).items()]
    return helper.make_function("my", name, inputs, outputs, nodes, imports, attributes, protos, **fields)


def reference_attribute(node: onnx.NodeProto, name: str, kind: int, stands_for: str) -> onnx.NodeProto:
    node.attribute.append(AttributeProto(name=name, type=kind, ref_attr_name=stands_for))
    return node


def calling_model(
    nodes: Sequence[onnx.NodeProto], functions: Sequence[onnx.FunctionProto], **options: Any
) -> onnx.ModelProto:
    return make_model(nodes, functions=functions, imports={"my": 1}, **{"ir_version": 9, **options})


def run(proto: onnx.ModelProto, **feeds: np.ndarray) -> list[np.ndarray]:
    session = onnxruntime.InferenceSession(proto.SerializeToString(), providers=["CPUExecutionProvider"])
    return list(session.run(None, {"x": X, **feeds}))


def inlined(proto: onnx.ModelProto, **feeds: np.ndarray) -> OnnxGraph:
    """The loaded graph, after a check that it computes what onnxruntime makes of the original."""
    model = load_model(proto)
    for ours, theirs in zip(run(export_model(model), **feeds), run(proto, **feeds), strict=True):
        assert np.array_equal(ours, theirs)
    return model.graph


def all_value_names(graph: OnnxGraph) -> list[str]:
    found = [name for node in graph.nodes for name in node.outputs if name]
    for node in graph.nodes:
        for _, subgraph in node.subgraphs():
            found += [info.name for info in subgraph.inputs] + all_value_names(subgraph)
    return found


def test_each_call_has_names_of_its_own() -> None:
    twice = function("Twice", [NODE("Add", ["a", "a"], ["t"]), NODE("Neg", ["t"], ["b"])])
    nodes = [
        NODE("Twice", ["x"], ["m"], domain="my", name="first"),
        NODE("Twice", ["m"], ["n"], domain="my"),
        NODE("Identity", ["n"], ["first/t"]),  # a name that inlining would like to use
        NODE("Identity", ["first/t"], ["y"]),
    ]
    graph = inlined(calling_model(nodes, [twice]))
    assert [node.name for node in graph.nodes] == [
        "first/Add_0", "first/Neg_1", "Twice_1/Add_0", "Twice_1/Neg_1", "Identity_2", "Identity_3",
    ]  # fmt: skip
    names = all_value_names(graph)
    assert len(set(names)) == len(names)


def test_nested_functions_and_calls_in_subgraphs() -> None:
    inner = function("Inner", [NODE("Mul", ["a", "a"], ["b"])])
    outer = function(
        "Outer",
        [NODE("Inner", ["a"], ["t"], domain="my"), NODE("Inner", ["t"], ["b"], domain="my")],
        calls=True,
    )
    then_branch = helper.make_graph([NODE("Outer", ["x"], ["r"], domain="my")], "then", [], [float_info("r")])
    else_branch = helper.make_graph([NODE("Inner", ["x"], ["r"], domain="my")], "else", [], [float_info("r")])
    proto = calling_model(
        [NODE("If", ["c"], ["y"], then_branch=then_branch, else_branch=else_branch)],
        [outer, inner],
        inputs=["x", helper.make_tensor_value_info("c", TensorProto.BOOL, ())],
    )
    for condition in (True, False):
        graph = inlined(proto, c=np.array(condition))
    branches = dict(graph.nodes[0].subgraphs())
    assert [len(branches[name].nodes) for name in ("then_branch", "else_branch")] == [2, 1]


def test_each_function_has_its_own_operator_sets() -> None:
    old = function("Old", [NODE("Squeeze", ["a"], ["b"], axes=[0])], opset=11)
    proto = calling_model([NODE("Old", ["x"], ["y"], domain="my")], [old],
                          inputs=[float_info("x", (1, 2))])  # fmt: skip
    (node,) = load_model(proto).graph.nodes
    assert (node.op_type, node.version) == ("Squeeze", 11)
    no_import = function("F", [NODE("Inner", ["a"], ["b"], domain="com.example")])
    with pytest.raises(errors.InvalidGraph, match=r"com\.example"):
        load_model(calling_model([NODE("F", ["x"], ["y"], domain="my")], [no_import]))


def test_attributes_given_defaulted_and_absent() -> None:
    elu = reference_attribute(NODE("Elu", ["a"], ["t"]), "alpha", AttributeProto.FLOAT, "slope")
    leaky = reference_attribute(NODE("LeakyRelu", ["t"], ["b"]), "alpha", AttributeProto.FLOAT, "leak")
    both = function("Both", [elu, leaky], attributes=["leak"], defaults={"slope": 3.0})
    for given, expected in (
        ({"leak": 0.5}, (3.0, 0.5)),
        ({"leak": 0.5, "slope": 7.0}, (7.0, 0.5)),
        ({}, (3.0, None)),  # without value or default the inner attribute is absent, and has its own default
    ):
        graph = inlined(calling_model([NODE("Both", ["x"], ["y"], domain="my", **given)], [both]))
        assert tuple(node.attributes.get("alpha") for node in graph.nodes) == expected
        assert not any(node.references for node in graph.nodes)


def test_attributes_through_two_levels_and_into_subgraphs() -> None:
    constant = reference_attribute(NODE("Constant", [], ["k"]), "value_float", AttributeProto.FLOAT, "inner_k")
    branch = helper.make_graph([constant, NODE("Mul", ["a", "k"], ["r"])], "branch", [], [float_info("r")])
    inner = function(
        "Inner",
        [NODE("Constant", [], ["true"], value=helper.make_tensor("t", TensorProto.BOOL, (), [True])),
         NODE("If", ["true"], ["b"], then_branch=branch, else_branch=branch)],
        attributes=["inner_k"],
    )  # fmt: skip
    call = reference_attribute(NODE("Inner", ["a"], ["b"], domain="my"), "inner_k", AttributeProto.FLOAT, "outer_k")
    outer = function("Outer", [call], attributes=["outer_k"], calls=True)
    nodes = [
        NODE("Outer", ["x"], ["m"], domain="my", outer_k=2.5),
        NODE("Outer", ["m"], ["y"], domain="my", outer_k=4.0),
    ]
    graph = inlined(calling_model(nodes, [inner, outer]))
    names = all_value_names(graph)
    assert len(set(names)) == len(names)


def test_an_attribute_may_be_a_graph_that_captures_the_callers_values() -> None:
    branch = helper.make_graph([NODE("Neg", ["late"], ["r"])], "branch", [], [float_info("r")])
    chooser = NODE("If", ["c"], ["b"])
    reference_attribute(chooser, "then_branch", AttributeProto.GRAPH, "body")
    reference_attribute(chooser, "else_branch", AttributeProto.GRAPH, "body")
    choose = function("Choose", [chooser], inputs=["c"], attributes=["body"])
    nodes = [NODE("Abs", ["x"], ["late"]), NODE("Choose", ["cond"], ["y"], domain="my", body=branch)]
    model = load_model(
        calling_model(nodes, [choose], inputs=["x", helper.make_tensor_value_info("cond", TensorProto.BOOL, ())])
    )
    then_branch = dict(model.graph.nodes[1].subgraphs())["then_branch"]
    assert then_branch.nodes[0].inputs == ("late",)
    names = all_value_names(model.graph)
    assert len(set(names)) == len(names)
    (result,) = run(export_model(model), cond=np.array(True))
    assert np.array_equal(result, -np.abs(X))


def test_optional_inputs_and_outputs() -> None:
    clip = function("MyClip", [NODE("Clip", ["a", "low", "high"], ["b"]), NODE("Neg", ["a"], ["c"])],
                    inputs=["a", "low", "high"], outputs=["b", "c"])  # fmt: skip
    one = numpy_helper.from_array(np.array(1, np.float32), "one")
    for inputs, expected in ((["x"], ("x", None, None)), (["x", "", "one"], ("x", None, "one"))):
        proto = calling_model([NODE("MyClip", inputs, ["y"], domain="my")], [clip], initializers=[one])
        assert load_model(proto).graph.nodes[0].inputs == expected
    second_only = load_model(calling_model([NODE("MyClip", ["x"], ["", "y"], domain="my")], [clip]))
    assert second_only.graph.nodes[1].outputs == ("y",)


def test_an_input_that_is_returned_and_a_value_that_is_returned_twice() -> None:
    passing = function("Pass", [NODE("Neg", ["a"], ["n"])], outputs=["a", "n", "n"])
    proto = calling_model([NODE("Pass", ["x"], ["p", "q", "r"], domain="my")], [passing], outputs=["p", "q", "r"])
    model = load_model(proto)
    results = run(export_model(model))
    assert all(np.array_equal(result, expected) for result, expected in zip(results, (X, -X, -X), strict=True))


def test_a_function_wins_over_the_operator_of_its_name() -> None:
    relu = helper.make_function("", "Relu", ["a"], ["b"], [NODE("Neg", ["a"], ["b"])], [helper.make_opsetid("", 17)])
    proto = make_model([NODE("Relu", ["x"], ["y"])], functions=[relu], ir_version=9)
    assert load_model(proto).graph.nodes[0].op_type == "Neg"


def test_overloads() -> None:
    functions = [
        function("F", [NODE(op, ["a"], ["b"])], overload=overload) for op, overload in (("Neg", "n"), ("Abs", "a"))
    ]
    nodes = [
        NODE("F", ["x"], ["m"], domain="my", overload="a"),
        NODE("F", ["m"], ["y"], domain="my", overload="n"),
    ]
    graph = load_model(calling_model(nodes, functions, ir_version=10)).graph
    assert [node.op_type for node in graph.nodes] == ["Abs", "Neg"]
    with pytest.raises(errors.InvalidGraph, match="defined twice"):
        load_model(calling_model(nodes, [functions[0], functions[0]], ir_version=10))


@pytest.mark.parametrize(
    ("call", "functions", "error", "message"),
    [
        (["x", "x"], [function("F", [NODE("Neg", ["a"], ["b"])])], errors.InvalidGraph, "2 inputs and 1 out"),
        (["x"], [function("F", [NODE("Neg", ["x"], ["b"])])], errors.UndefinedName, "reads 'x', which"),
        (["x"], [function("F", [NODE("Neg", ["a"], ["t"])])], errors.UndefinedOutput, "does not define 'b'"),
        (
            ["x"],
            [function("F", [NODE("F", ["a"], ["b"], domain="my")], calls=True)],
            errors.InvalidGraph,
            "'F' -> 'F'",
        ),
        (
            ["x"],
            [function("F", [NODE("G", ["a"], ["b"], domain="my")], calls=True),
             function("G", [NODE("F", ["a"], ["b"], domain="my")], calls=True)],
            errors.InvalidGraph,
            "functions call themselves: 'F' -> 'G' -> 'F'",
        ),
    ],
)  # fmt: skip
def test_errors_name_the_call(
    call: list[str], functions: list[onnx.FunctionProto], error: type[errors.CompileError], message: str
) -> None:
    with pytest.raises(error, match=message) as caught:
        load_model(calling_model([NODE("F", call, ["y"], domain="my", name="the call")], functions))
    assert "the call" in caught.value.message


def test_functions_that_double_at_each_level_end_at_the_limit() -> None:
    functions = [function("F0", [NODE("Neg", ["a"], ["b"])])]
    for level in range(1, 25):
        below = f"F{level - 1}"
        nodes = [NODE(below, ["a"], ["t"], domain="my"), NODE(below, ["t"], ["b"], domain="my")]
        functions.append(function(f"F{level}", nodes, calls=True))
    proto = calling_model([NODE("F24", ["x"], ["y"], domain="my")], functions)
    with pytest.raises(errors.LimitExceeded, match="more than 5000 nodes"):
        load_model(proto, limits=LoadLimits(nodes=5000))
    with pytest.raises(errors.LimitExceeded, match="nested more than 10 levels"):
        load_model(proto, limits=LoadLimits(depth=10))


def close(left: Any, right: Any) -> bool:
    if isinstance(left, list):
        return len(left) == len(right) and all(map(close, left, right))
    left, right = np.asarray(left), np.asarray(right)
    tolerance = 2e-2 if left.dtype.itemsize < 4 else 1e-4
    same_kind = left.dtype == right.dtype and left.shape == right.shape
    wide = [array.astype(np.float64) for array in (left, right)] if same_kind else []
    return same_kind and np.allclose(*wide, rtol=tolerance, atol=tolerance, equal_nan=True)


def function_cases() -> list[Any]:
    """The official cases of one node that is a function, without those the reference gets wrong."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        cases = official_cases.load_model_tests(kind="node")
    found = []
    for case in cases:
        if case.model is None or len(case.model.graph.node) != 1:
            continue
        (node,) = load_model(case.model).graph.nodes
        if has_function_body(node) and node.op_type not in ("Bernoulli", "Range"):
            found.append(case)
    return found


def as_array(value: Any) -> Any:
    return numpy_helper.to_array(value) if isinstance(value, onnx.TensorProto) else value


@pytest.mark.filterwarnings("ignore")
def test_official_cases_expanded() -> None:
    """Every operator that is a function in ONNX, replaced by its body, gives the case's results."""
    failures, seen = [], set()
    for case in function_cases():
        model = load_model(case.model)
        (node,) = model.graph.nodes
        types = {info.name: info.type for info in model.graph.inputs}
        body = expand_function(node, [types.get(name or "") for name in node.inputs])
        assert body is not None
        seen.add(node.op_type)
        proto = export_model(replace(model, graph=replace(model.graph, nodes=tuple(body))))
        load_model(proto)
        for inputs, expected in case.data_sets:
            feeds = dict(zip([info.name for info in case.model.graph.input], map(as_array, inputs), strict=False))
            results = ReferenceEvaluator(proto).run(None, feeds)
            if not all(map(close, results, map(as_array, expected))):
                failures.append(case.name)
    assert not failures
    assert len(seen) > 45


def node_of(op_type: str, version: int, inputs: Sequence[str | None] = ("x",), **attributes: Any) -> OnnxNode:
    return OnnxNode("n", op_type, "", version, tuple(inputs), ("y",), attributes)


def test_defaults_of_the_schema_are_written_out() -> None:
    body = expand_function(node_of("MeanVarianceNormalization", 13), [TensorType(dt.FLOAT32, (1, 2, 3, 4))])
    assert body is not None
    axes = [node.attributes["axes"] for node in body if "axes" in node.attributes]
    assert axes and all(value == (0, 2, 3) for value in axes)


@pytest.mark.parametrize(("version", "expected"), [(13, 13), (17, 13), (18, 18), (28, 18)])
def test_the_body_of_the_right_operator_set(version: int, expected: int) -> None:
    body = expand_function(node_of("MeanVarianceNormalization", version), [FLOAT2])
    assert body is not None
    assert {node.version for node in body} == {expected}
    assert any("axes" in node.attributes for node in body) == (expected < 18)  # an input from 18 on


def test_a_body_newer_than_the_node_says_so() -> None:
    body = expand_function(node_of("Relu", 14), [FLOAT2])
    assert body is not None
    assert {node.version for node in body} == {18}


def test_bodies_that_depend_on_types_and_omitted_inputs() -> None:
    low_only = expand_function(node_of("Clip", 13, ("x", "low")), [FLOAT2, TensorType(dt.FLOAT32, ())])
    high_only = expand_function(node_of("Clip", 13, ("x", None, "high")), [FLOAT2, None, TensorType(dt.FLOAT32, ())])
    assert low_only is not None and high_only is not None
    assert ["Less" in [node.op_type for node in body] for body in (low_only, high_only)] in (
        [True, True],
        [True, False],
    )
    assert low_only[-1].outputs == high_only[-1].outputs == ("y",)
    halves = expand_function(node_of("CastLike", 19, ("x", "like")), [FLOAT2, TensorType(dt.FLOAT16, (2,))])
    assert halves is not None and halves[0].attributes["to"] == TensorProto.FLOAT16


def test_unknown_types_and_impossible_attributes() -> None:
    """onnx's own code would crash, or raises errors of its own."""
    empty = OnnxGraph("body", (), (), ())
    for node, types in (
        (node_of("SequenceMap", 17, ("s",), body=empty), [None]),
        (node_of("SequenceMap", 17, ("s",), body=empty), []),
        (node_of("SequenceMap", 17, ("s", None), body=empty), [SequenceType(FLOAT2), None]),
        (node_of("Clip", 13, ("x", "low")), [FLOAT2, None]),
    ):
        with pytest.raises(errors.UnsupportedFeature, match=r"node 'n'.*the type of input \d must be known"):
            expand_function(node, types)
    huge = node_of("SpaceToDepth", 28, blocksize=10**12)
    with pytest.raises(errors.UnsupportedFeature, match=r"node 'n'.*cannot write it as a function"):
        expand_function(huge, [TensorType(dt.FLOAT32, (1, 2, 3, 4))])


def test_operators_that_are_no_functions() -> None:
    assert expand_function(node_of("MatMul", 13, ("x", "w")), [FLOAT2, FLOAT2]) is None
    assert expand_function(node_of("Softmax", 11), [FLOAT2]) is None  # another operator before 13
    assert not has_function_body(node_of("Softmax", 11)) and has_function_body(node_of("Softmax", 13))
    assert not has_function_body(node_of("NoSuchOperator", 13))
    unknown = OnnxNode("n", "Gelu", "com.microsoft", 1, ("x",), ("y",))
    assert expand_function(unknown, [FLOAT2]) is None


def test_inner_names_come_from_the_pool() -> None:
    pool = NamePool(["n::Celu/X_alpha"])
    first = expand_function(node_of("Mish", 18), [FLOAT2], value_names=pool)
    second = expand_function(node_of("Mish", 18), [FLOAT2], value_names=pool)
    assert first is not None and second is not None
    inner = [name for node in (*first, *second) for name in node.outputs if name != "y"]
    assert inner and len(set(inner)) == len(inner)


def test_nodes_in_graph_attributes_keep_their_versions_and_their_own_graphs() -> None:
    """SequenceMap's body is moved into a loop; its nodes may be of any version and capture outer values."""
    deep = OnnxGraph("deep", (OnnxNode("d", "Mul", "", 9, ("item", "outer"), ("r",)),), (), ())
    inner = OnnxNode("if", "If", "", 11, ("c",), ("out",), {"then_branch": deep, "else_branch": deep})
    info = load_model(make_model([], inputs=["item"], outputs=["item"])).graph.inputs
    body = OnnxGraph("body", (inner,), info, (replace(info[0], name="out"),))
    node = node_of("SequenceMap", 17, ("s",), body=body)
    expanded = expand_function(node, [SequenceType(FLOAT2)])
    assert expanded is not None
    (loop,) = [item for item in expanded if item.op_type == "Loop"]
    loop_body = loop.attributes["body"]
    assert isinstance(loop_body, OnnxGraph)
    (moved,) = [item for item in loop_body.nodes if item.op_type == "If"]
    assert (moved.version, moved.inputs) == (11, ("c",))
    (multiply,) = dict(moved.subgraphs())["then_branch"].nodes
    assert multiply.version == 9 and multiply.inputs[1] == "outer"
    produced = {name for item in loop_body.nodes for name in item.outputs}
    assert multiply.inputs[0] in produced and moved.outputs[0] in produced
