"""Names, order, nesting, schemas: what is repaired, what is an error, with onnxruntime's class for it."""

from __future__ import annotations

import onnx
import onnxruntime
import pytest
from model_builders import NODE, float_info, make_model, relu_model
from onnx import AttributeProto, TensorProto, helper

from onnxsmith_compiler import errors
from onnxsmith_compiler.onnx.limits import LoadLimits
from onnxsmith_compiler.onnx.loader import load_model
from onnxsmith_compiler.onnx.model import OnnxGraph, OnnxNode

onnxruntime.set_default_logger_severity(4)


def names(graph: OnnxGraph) -> list[str]:
    return [node.name for node in graph.nodes]


def bool_info(name: str) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, TensorProto.BOOL, ())


def if_model(then_nodes: list[onnx.NodeProto], result: str = "r", **options: object) -> onnx.ModelProto:
    """y = x if c, else the result of then_nodes."""
    then_branch = helper.make_graph(then_nodes, "then", [], [float_info(result)])
    else_branch = helper.make_graph([NODE("Identity", ["x"], ["e"])], "else", [], [float_info("e")])
    node = NODE("If", ["c"], ["y"], name="if", then_branch=then_branch, else_branch=else_branch)
    return make_model([node], inputs=["x", bool_info("c")], **options)  # type: ignore[arg-type]


def test_names_are_synthesised_and_made_unique() -> None:
    nodes = [
        NODE("Relu", ["x"], ["a"]),
        NODE("Neg", ["a"], ["b"], name="n"),
        NODE("Neg", ["b"], ["y"], name="n"),
    ]
    assert names(load_model(make_model(nodes)).graph) == ["Relu_0", "n", "n_1"]


def test_omitted_inputs_are_none() -> None:
    proto = make_model([NODE("Clip", ["x", "", "x"], ["y"])])
    (node,) = load_model(proto).graph.nodes
    assert node.inputs == ("x", None, "x")
    assert (node.input(1), node.input(2), node.input(3)) == (None, "x", None)


def test_attributes_become_python_values() -> None:
    graph = helper.make_graph([], "inner", [], [])
    values = {
        "f": 1.5, "i": -3, "s": "ü", "b": b"\xff", "floats": [1.0, 0.5], "ints": [1, 2],
        "strings": ["a", "b"],
    }  # fmt: skip
    node = NODE("Anything", ["x"], ["y"], domain="com.example", g=graph, **values)
    node.attribute.append(AttributeProto(name="none", type=AttributeProto.INTS))
    node.attribute.append(AttributeProto(name="zero", type=AttributeProto.INT))
    node.attribute.append(AttributeProto(name="untyped", floats=[2]))
    (loaded,) = load_model(make_model([node], imports={"com.example": 3})).graph.nodes
    attributes = dict(loaded.attributes)
    assert isinstance(attributes.pop("g"), OnnxGraph)
    assert attributes == {
        "f": 1.5, "i": -3, "s": "ü", "b": b"\xff", "floats": (1.0, 0.5), "ints": (1, 2),
        "strings": ("a", "b"),
        "none": (), "zero": 0, "untyped": (2.0,),
    }  # fmt: skip
    assert loaded.version == 3
    assert loaded.attribute("i", int) == -3 and loaded.attribute("absent", int, 7) == 7
    with pytest.raises(TypeError, match="'f' is a float, not a int"):
        loaded.attribute("f", int)
    with pytest.raises(KeyError, match="no attribute 'absent'"):
        loaded.attribute("absent", int)


def test_nodes_are_sorted_and_keep_their_order_where_they_can() -> None:
    nodes = [
        NODE("Add", ["b", "c"], ["y"], name="last"),
        NODE("Neg", ["a"], ["c"], name="second"),
        NODE("Relu", ["x"], ["a"], name="first"),
        NODE("Abs", ["a"], ["b"], name="third"),
    ]
    assert names(load_model(make_model(nodes)).graph) == ["first", "second", "third", "last"]


def test_sorting_sees_what_subgraphs_capture() -> None:
    proto = if_model([NODE("Neg", ["late"], ["r"])])
    proto.graph.node.append(NODE("Relu", ["x"], ["late"], name="late"))
    assert names(load_model(proto).graph) == ["late", "if"]


def test_subgraphs_are_sorted_and_may_shadow() -> None:
    proto = if_model([NODE("Neg", ["r1"], ["r"], name="b"), NODE("Relu", ["x"], ["r1"], name="a")])
    branch = load_model(proto).graph.nodes[0].attributes["then_branch"]
    assert isinstance(branch, OnnxGraph)
    assert names(branch) == ["a", "b"]
    shadowing = if_model([NODE("Neg", ["x"], ["y"])], result="y")
    assert load_model(shadowing).graph.nodes[0].outputs == ("y",)


def test_inputs_of_subgraphs_stay_even_with_an_initializer() -> None:
    one = helper.make_tensor("v", TensorProto.FLOAT, (2,), [1, 1])
    body = helper.make_graph(
        [NODE("Identity", ["c_in"], ["c_out"]), NODE("Neg", ["v"], ["v_out"])],
        "body",
        [helper.make_tensor_value_info("i", TensorProto.INT64, ()), bool_info("c_in"), float_info("v")],
        [bool_info("c_out"), float_info("v_out")],
        [one],
    )
    proto = make_model([NODE("Loop", ["n", "", "x"], ["y"], body=body)],
                       inputs=["x", helper.make_tensor_value_info("n", TensorProto.INT64, ())])  # fmt: skip
    (node,) = load_model(proto).graph.nodes
    loaded = node.attributes["body"]
    assert isinstance(loaded, OnnxGraph)
    assert [info.name for info in loaded.inputs] == ["i", "c_in", "v"]
    assert not loaded.initializers


CASES: list[tuple[str, onnx.ModelProto, type[errors.CompileError], str]] = [
    (
        "undefined input",
        make_model([NODE("Relu", ["hidden_stat"], ["y"], name="r")], inputs=["hidden_state"]),
        errors.UndefinedName,
        r"node 'r' \(Relu\) reads 'hidden_stat' \(not 'hidden_state'\?\)",
    ),
    (
        "undefined output",
        relu_model(outputs=["y", "z"]),
        errors.UndefinedOutput,
        "graph 'graph' returns 'z'",
    ),
    (
        "output twice",
        make_model([NODE("Relu", ["x"], ["y"], name="a"), NODE("Neg", ["x"], ["y"], name="b")]),
        errors.DuplicateName,
        r"node 'b' \(Neg\) defines 'y', which node 'a' \(Relu\) defines already",
    ),
    (
        "input twice",
        relu_model(inputs=["x", "x"]),
        errors.DuplicateName,
        "'x', an input of graph 'graph', is defined twice",
    ),
    (
        "node writes an initializer",
        relu_model(outputs=["y"], initializers=[helper.make_tensor("y", TensorProto.FLOAT, (2,), [1, 1])]),
        errors.DuplicateName,
        "defines 'y', which is an input or initializer",
    ),
    (
        "cycle",
        make_model([NODE("Add", ["x", "b"], ["a"], name="p"), NODE("Neg", ["a"], ["b"], name="q"),
                    NODE("Relu", ["b"], ["y"], name="r")]),
        errors.CyclicGraph,
        r"cycle: node 'p' \(Add\) -> node 'q' \(Neg\) -> node 'p' \(Add\)",
    ),
    (
        "node reads itself",
        make_model([NODE("Relu", ["y"], ["y"], name="r")]),
        errors.CyclicGraph,
        r"cycle: node 'r' \(Relu\) -> node 'r' \(Relu\)",
    ),
    (
        "unknown operator",
        make_model([NODE("Rleu", ["x"], ["y"], name="r")]),
        errors.InvalidGraph,
        r"node 'r' \(Rleu\): no operator 'Rleu' in ai.onnx operator set 17",
    ),
    (
        "operator of a later set",
        make_model([NODE("Gelu", ["x"], ["y"])]),
        errors.InvalidGraph,
        "no operator 'Gelu' in ai.onnx operator set 17",
    ),
    (
        "deprecated operator",
        make_model([NODE("Upsample", ["x", "x"], ["y"])]),
        errors.InvalidGraph,
        "deprecated, no longer an operator in operator set 17",
    ),
    (
        "too many inputs",
        make_model([NODE("Relu", ["x", "x"], ["y"], name="r")]),
        errors.InvalidGraph,
        r"node 'r' \(Relu\): 2 inputs, the operator has 1",
    ),
    (
        "too few inputs",
        make_model([NODE("Add", ["x"], ["y"])]),
        errors.InvalidGraph,
        "1 inputs, the operator has 2",
    ),
    (
        "omitted input",
        make_model([NODE("Add", ["x", ""], ["y"])]),
        errors.InvalidGraph,
        "input 1 is omitted and is not optional",
    ),
    (
        "unknown attribute",
        make_model([NODE("Elu", ["x"], ["y"], alhpa=1.0)]),
        errors.InvalidGraph,
        "unknown attribute 'alhpa'; the operator has alpha",
    ),
    (
        "attribute of the wrong type",
        make_model([NODE("Transpose", ["x"], ["y"], perm="a")]),
        errors.InvalidGraph,
        "attribute 'perm' is of the wrong type; it is INTS",
    ),
    (
        "missing attribute",
        make_model([NODE("Cast", ["x"], ["y"])]),
        errors.InvalidGraph,
        "attribute 'to' is missing",
    ),
    (
        "attribute twice",
        make_model([onnx.NodeProto(op_type="Elu", input=["x"], output=["y"], attribute=[
            helper.make_attribute("alpha", 1.0), helper.make_attribute("alpha", 2.0)])]),
        errors.InvalidGraph,
        "has the attribute 'alpha' twice",
    ),
]  # fmt: skip


@pytest.mark.parametrize(("proto", "error", "message"), [case[1:] for case in CASES], ids=[case[0] for case in CASES])
def test_errors(proto: onnx.ModelProto, error: type[errors.CompileError], message: str) -> None:
    with pytest.raises(error, match=message) as caught:
        load_model(proto)
    with pytest.raises(Exception) as theirs:
        onnxruntime.InferenceSession(proto.SerializeToString(), providers=["CPUExecutionProvider"])
    assert caught.value.code == type(theirs.value).__name__


def test_errors_in_subgraphs_name_the_place() -> None:
    with pytest.raises(errors.UndefinedName, match=r"node 'n' \(Neg\) reads 'q'"):
        load_model(if_model([NODE("Neg", ["q"], ["r"], name="n")]))
    with pytest.raises(errors.UndefinedOutput, match=r"graph 'then' in node 'if' \(If\) returns 'r'"):
        load_model(if_model([NODE("Neg", ["x"], ["q"])]))
    with pytest.raises(errors.InvalidGraph, match=r"node 'n' \(Foo\)"):
        load_model(if_model([NODE("Foo", ["x"], ["r"], name="n")]))


def test_a_node_cannot_see_into_subgraphs_or_ahead() -> None:
    proto = if_model([NODE("Neg", ["x"], ["r"])], outputs=["z"])
    proto.graph.node.append(NODE("Relu", ["r"], ["z"]))
    with pytest.raises(errors.UndefinedName, match="reads 'r'"):
        load_model(proto)
    with pytest.raises(errors.CyclicGraph):
        load_model(if_model([NODE("Neg", ["y"], ["r"])]))


def test_all_problems_are_reported_at_once() -> None:
    nodes = [NODE("Foo", ["x"], [f"y{index}"], name=f"n{index}") for index in range(13)]
    with pytest.raises(errors.InvalidGraph) as caught:
        load_model(make_model(nodes, outputs=["y0"]))
    assert all(f"'n{index}'" in caught.value.message for index in range(10))
    assert "and 3 more" in caught.value.message


def test_attributes_that_say_nothing() -> None:
    def with_attribute(**fields: object) -> onnx.ModelProto:
        proto = relu_model()
        proto.graph.node[0].attribute.append(AttributeProto(name="a", **fields))
        return proto

    for fields, message in (
        ({"type": AttributeProto.TENSOR}, "has no value"),
        ({}, "does not say its type and has 0 values"),
        ({"i": 1, "f": 2.0}, "has 2 values"),
        ({"type": AttributeProto.INT, "ref_attr_name": "q"}, "outside of a function"),
    ):
        with pytest.raises(errors.InvalidGraph, match=message):
            load_model(with_attribute(**fields))


def test_names_in_messages_are_printable_and_short() -> None:
    nodes = [NODE("Relu", ["\x1b[2J" + "a" * 1000], ["y"], name="\n" * 1000)]
    with pytest.raises(errors.UndefinedName) as caught:
        load_model(make_model(nodes))
    assert caught.value.message.isprintable() and len(caught.value.message) < 600


def nested_ifs(depth: int) -> onnx.ModelProto:
    proto = if_model([NODE("Neg", ["x"], ["r"])])
    node = proto.graph.node[0]
    for _ in range(depth - 1):
        outer = NODE("If", ["c"], ["r"])
        for name in ("then_branch", "else_branch"):
            inner = onnx.NodeProto()
            inner.CopyFrom(node)
            inner.output[0] = "r"
            branch = helper.make_graph([inner] if name == "then_branch" else [], name, [],
                                       [float_info("r" if name == "then_branch" else "x")])  # fmt: skip
            outer.attribute.append(helper.make_attribute(name, branch))
        node = outer
    node.output[0] = "y"
    del proto.graph.node[:]
    proto.graph.node.append(node)
    return proto


def test_nesting_is_limited() -> None:
    assert load_model(nested_ifs(5)).graph.nodes[0].op_type == "If"
    with pytest.raises(errors.LimitExceeded, match="more than 4 levels"):
        load_model(nested_ifs(5), limits=LoadLimits(depth=4))


def test_messages_nested_deeper_than_protobuf_allows() -> None:
    data = bytes(5000)  # no message, if anything were to look at it
    for _ in range(40):
        for tag in (b"\x32", b"\x2a", b"\x0a"):  # AttributeProto.g, NodeProto.attribute, GraphProto.node
            length = bytes([len(data) & 0x7F | 0x80, len(data) >> 7 & 0x7F | 0x80, len(data) >> 14])
            data = tag + length + data
    length = bytes([len(data) & 0x7F | 0x80, len(data) >> 7 & 0x7F | 0x80, len(data) >> 14])
    with pytest.raises(errors.MalformedModel, match="nested more than 100"):
        load_model(b"\x3a" + length + data)  # ModelProto.graph


def test_nodes_are_limited() -> None:
    nodes = [NODE("Relu", ["x"], [f"y{index}"]) for index in range(10)]
    proto = make_model(nodes, outputs=["y0"])
    assert len(load_model(proto, limits=LoadLimits(nodes=10)).graph.nodes) == 10
    with pytest.raises(errors.LimitExceeded, match="more than 9 nodes"):
        load_model(proto, limits=LoadLimits(nodes=9))


def test_a_long_chain_in_reverse_order() -> None:
    count = 20_000
    nodes = [NODE("Relu", [f"v{index}"], [f"v{index + 1}"]) for index in reversed(range(count))]
    graph = load_model(make_model(nodes, inputs=["v0"], outputs=[f"v{count}"])).graph
    assert graph.nodes[0].inputs == ("v0",) and isinstance(graph.nodes[-1], OnnxNode)
