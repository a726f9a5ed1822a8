"""Sources, versions, metadata, types, initializers."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from model_builders import NODE, float_info, make_model, relu_model, weight_model
from onnx import TensorProto, helper, numpy_helper

from onnxsmith_compiler import errors
from onnxsmith_compiler.ir import dtype as dt
from onnxsmith_compiler.onnx.loader import load_model
from onnxsmith_compiler.onnx.model import (
    MapType,
    OptionalType,
    SequenceType,
    SparseTensorType,
    TensorType,
    ValueInfo,
)

onnxruntime.set_default_logger_severity(4)


def onnxruntime_error(source: str | bytes) -> str:
    """The name of the exception that onnxruntime raises for a model."""
    with pytest.raises(Exception) as caught:
        onnxruntime.InferenceSession(source, providers=["CPUExecutionProvider"])
    return type(caught.value).__name__


def test_every_kind_of_source_gives_the_same_graph(tmp_path: Path) -> None:
    proto = relu_model()
    path = tmp_path / "model.onnx"
    path.write_bytes(proto.SerializeToString())
    for source in (proto, proto.SerializeToString(), path, str(path)):
        (node,) = load_model(source).graph.nodes
        assert (node.op_type, node.version, node.inputs, node.outputs) == ("Relu", 17, ("x",), ("y",))


@pytest.mark.parametrize("suffix", [".json", ".textproto"])
def test_text_formats(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"model{suffix}"
    onnx.save(relu_model(), path, format=suffix[1:])
    assert load_model(path).graph.nodes[0].op_type == "Relu"


@pytest.mark.parametrize("suffix", [".json", ".textproto"])
def test_malformed_text(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"model{suffix}"
    for text in ("{<[junk", '{"graph":' * 100_000, "graph { node { attribute { g {" * 100_000):
        path.write_text(text)
        with pytest.raises(errors.MalformedModel, match="model in the text format"):
            load_model(path)


def test_other_types_are_refused_in_onnxruntimes_words() -> None:
    with pytest.raises(TypeError, match="Unable to load from type '<class 'int'>'"):
        load_model(5)  # type: ignore[arg-type]


RELU = relu_model().SerializeToString()


@pytest.mark.parametrize(
    ("data", "error"),
    [
        (b"", errors.EmptyModel),
        (b"junk, certainly no model", errors.MalformedModel),
        (RELU[:-5], errors.MalformedModel),
        (onnx.ModelProto(ir_version=8).SerializeToString(), errors.EmptyModel),
        (b"\xff" * 5000, errors.MalformedModel),
        (b"\x0b" * 5000, errors.MalformedModel),
    ],
)
def test_bytes_without_a_model(tmp_path: Path, data: bytes, error: type[errors.CompileError]) -> None:
    path = tmp_path / "bad.onnx"
    path.write_bytes(data)
    with pytest.raises(error) as from_bytes:
        load_model(data)
    with pytest.raises(error, match=r"bad\.onnx"):
        load_model(path)
    assert from_bytes.value.code == onnxruntime_error(data)


def test_paths_without_a_file(tmp_path: Path) -> None:
    with pytest.raises(errors.ModelFileMissing) as missing:
        load_model(tmp_path / "nothing.onnx")
    assert missing.value.code == onnxruntime_error(str(tmp_path / "nothing.onnx"))
    with pytest.raises(errors.MalformedModel, match="not a regular file") as folder:
        load_model(tmp_path)
    assert folder.value.code == onnxruntime_error(str(tmp_path))
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(errors.MalformedModel, match="not a regular file"):
        load_model(tmp_path / "pipe")
    with pytest.raises(errors.CompileError):
        load_model("a\0b")


def test_versions() -> None:
    for ir_version in (2, 15):
        with pytest.raises(errors.UnsupportedVersion, match="IR version"):
            load_model(relu_model(ir_version=ir_version))
    with pytest.raises(errors.UnsupportedVersion, match="version 29 of operator set"):
        load_model(relu_model(opset=29))
    with pytest.raises(errors.UnsupportedVersion, match=r"version 6 of operator set 'ai\.onnx\.ml'"):
        load_model(relu_model(imports={"ai.onnx.ml": 6}))
    no_import = relu_model()
    del no_import.opset_import[:]
    with pytest.raises(errors.UnsupportedVersion) as caught:
        load_model(no_import)
    assert caught.value.code == onnxruntime_error(no_import.SerializeToString())
    for opset in (1, 28):
        assert load_model(relu_model(opset=opset)).graph.nodes[0].version == opset


def test_both_names_of_onnx_domain_are_one() -> None:
    proto = make_model([NODE("Relu", ["x"], ["y"], domain="ai.onnx")])
    proto.opset_import[0].domain = "ai.onnx"
    model = load_model(proto)
    assert model.opset_imports == {"": 17}
    assert (model.graph.nodes[0].domain, model.graph.nodes[0].version) == ("", 17)


def test_domains_without_import_have_defaults_or_are_errors() -> None:
    ml = make_model([NODE("Binarizer", ["x"], ["y"], domain="ai.onnx.ml")])
    assert load_model(ml).graph.nodes[0].version == 5
    microsoft = make_model([NODE("Gelu", ["x"], ["y"], domain="com.microsoft")])
    assert load_model(microsoft).graph.nodes[0].domain == "com.microsoft"
    other = make_model([NODE("Relu", ["x"], ["y"], domain="com.example", name="r")])
    with pytest.raises(errors.InvalidGraph, match=r"node 'r' \(com.example.Relu\): .*domain 'com.example'") as caught:
        load_model(other)
    assert caught.value.code == onnxruntime_error(other.SerializeToString())


def test_metadata_as_onnxruntime_reports_it() -> None:
    proto = relu_model()
    proto.producer_name, proto.domain, proto.doc_string = "maker", "org.example", "what it is"
    proto.model_version, proto.graph.doc_string = 7, "of the graph"
    helper.set_model_props(proto, {"key": "value", "über": "ß"})
    theirs = onnxruntime.InferenceSession(proto.SerializeToString()).get_modelmeta()
    ours = load_model(proto).metadata
    for name in ("producer_name", "graph_name", "domain", "description", "graph_description", "version"):
        assert getattr(ours, name) == getattr(theirs, name), name
    assert ours.custom_metadata_map == theirs.custom_metadata_map


def test_types_of_inputs() -> None:
    tensor = helper.make_tensor_type_proto(TensorProto.FLOAT16, [1, "n", None])
    protos = {
        "tensor": tensor,
        "sequence": helper.make_sequence_type_proto(tensor),
        "optional": helper.make_optional_type_proto(helper.make_sequence_type_proto(tensor)),
        "map": helper.make_map_type_proto(TensorProto.STRING, tensor),
        "sparse": helper.make_sparse_tensor_type_proto(TensorProto.DOUBLE, [3, "k"]),
        "rankless": helper.make_tensor_type_proto(TensorProto.BFLOAT16, None),
    }
    infos = [helper.make_value_info(name, proto) for name, proto in protos.items()]
    graph = load_model(make_model([], inputs=infos, outputs=["tensor"])).graph
    expected = TensorType(dt.FLOAT16, (1, "n", None))
    assert graph.inputs == (
        ValueInfo("tensor", expected),
        ValueInfo("sequence", SequenceType(expected)),
        ValueInfo("optional", OptionalType(SequenceType(expected))),
        ValueInfo("map", MapType(dt.STRING, expected)),
        ValueInfo("sparse", SparseTensorType(dt.FLOAT64, (3, "k"))),
        ValueInfo("rankless", TensorType(dt.BFLOAT16, None)),
    )


def test_sizes_that_exporters_leave_open() -> None:
    proto = relu_model(inputs=[float_info("x", (-1, 3, "batch", 0))])
    proto.graph.input[0].type.tensor_type.shape.dim[1].denotation = "DATA_CHANNEL"
    (info,) = load_model(proto).graph.inputs
    assert isinstance(info.type, TensorType)
    assert info.type.shape == (None, 3, "batch", 0)
    assert info.type.denotations == (None, "DATA_CHANNEL", None, None)


def test_inputs_without_type_and_unknown_element_types() -> None:
    untyped = relu_model(inputs=[onnx.ValueInfoProto(name="x")])
    with pytest.raises(errors.InvalidType, match="'x' has no type") as caught:
        load_model(untyped)
    assert caught.value.code == onnxruntime_error(untyped.SerializeToString())
    float6 = relu_model(inputs=[helper.make_tensor_value_info("x", TensorProto.FLOAT6E2M3, (2,))])
    with pytest.raises(errors.UnsupportedFeature, match="FLOAT6E2M3"):
        load_model(float6)


@pytest.mark.parametrize("ir_version", [3, 4, 14])
def test_initializers_that_are_inputs_too(ir_version: int) -> None:
    weight = numpy_helper.from_array(np.ones(2, np.float32), "w")
    graph = load_model(weight_model(weight, inputs=["x", "w"], ir_version=ir_version)).graph
    assert [info.name for info in graph.inputs] == ["x"]
    assert [info.name for info in graph.overridable] == (["w"] if ir_version >= 4 else [])
    assert np.array_equal(graph.initializers["w"], np.ones(2, np.float32))


def test_of_two_initializers_of_one_name_the_last_counts(caplog: pytest.LogCaptureFixture) -> None:
    pair = [numpy_helper.from_array(np.full(2, value, np.float32), "w") for value in (1, 2)]
    proto = make_model([NODE("Add", ["x", "w"], ["y"])], initializers=pair)
    assert np.array_equal(load_model(proto).graph.initializers["w"], [2, 2])
    assert "'w' is given twice" in caplog.text
    session = onnxruntime.InferenceSession(proto.SerializeToString())
    assert np.array_equal(session.run(None, {"x": np.zeros(2, np.float32)})[0], [2, 2])


def test_large_weights_are_views_of_the_source(tmp_path: Path) -> None:
    weight = np.random.default_rng(0).standard_normal((64, 64), np.float32)
    proto = weight_model(numpy_helper.from_array(weight, "w"), inputs=[float_info("x", (64, 64))])
    data = proto.SerializeToString()
    path = tmp_path / "model.onnx"
    path.write_bytes(data)
    from_bytes = load_model(data).graph.initializers["w"]
    start = np.frombuffer(data, np.uint8).__array_interface__["data"][0]
    assert start < from_bytes.__array_interface__["data"][0] < start + len(data)
    from_file = load_model(path).graph.initializers["w"]
    for array in (from_bytes, from_file):
        assert np.array_equal(array, weight)
        assert not array.flags.writeable and not array.flags.owndata


def test_names_that_are_no_utf8() -> None:
    data = relu_model().SerializeToString().replace(b"Relu", b"\xff\xfe\xff\xfe")
    with pytest.raises(errors.MalformedModel, match="UTF-8"):
        load_model(data)
