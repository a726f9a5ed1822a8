"""Damaged models load or raise a CompileError; nothing else, and without asking for much memory."""

from __future__ import annotations

import numpy as np
import onnx
from hypothesis import given, settings
from hypothesis import strategies as st
from model_builders import NODE, float_info, make_model
from onnx import AttributeProto, TensorProto, helper, numpy_helper

from onnxsmith_compiler.errors import CompileError
from onnxsmith_compiler.onnx.limits import LoadLimits
from onnxsmith_compiler.onnx.loader import load_model
from onnxsmith_compiler.onnx.wire import strip_payloads

LIMITS = LoadLimits(nodes=2000, tensor_bytes=1 << 26, dense_bytes=1 << 22)


def rich_model(elements: int) -> bytes:
    """A valid model with everything the loader knows; large tensors are taken out of it before parsing."""
    weight = numpy_helper.from_array(np.linspace(0, 1, elements, dtype=np.float32), "w")
    typed = helper.make_tensor("v", TensorProto.FLOAT, (elements,), np.ones(elements, np.float32))
    small = [
        helper.make_tensor("s", TensorProto.STRING, (2,), ["ab", "c"]),
        numpy_helper.from_array(np.array([1, 2, 3], np.int8), "i8"),
        helper.make_tensor("i4", TensorProto.INT4, (3,), [1, -2, 3]),
        helper.make_tensor("h", TensorProto.FLOAT16, (2,), [1.0, 2.0]),
        helper.make_tensor("c", TensorProto.COMPLEX64, (1,), [1j]),
    ]
    external = TensorProto(name="e", data_type=TensorProto.FLOAT, dims=[0])
    branch = helper.make_graph([NODE("Add", ["x", "w"], ["r"])], "branch", [], [float_info("r", ("n",))])
    scale = NODE("Elu", ["a"], ["b"])
    scale.attribute.append(AttributeProto(name="alpha", type=AttributeProto.FLOAT, ref_attr_name="slope"))
    function = helper.make_function(
        "my",
        "F",
        ["a"],
        ["b"],
        [scale],
        [helper.make_opsetid("", 17)],
        [],
        [helper.make_attribute("slope", 2.0)],
    )
    nodes = [
        NODE("If", ["cond"], ["p"], then_branch=branch, else_branch=branch),
        NODE("F", ["p"], ["q"], domain="my", slope=0.5),
        NODE("Constant", [], ["k"], value=weight),
        NODE("Add", ["q", "sp"], ["t"]),
        NODE("Add", ["t", "v"], ["u"]),
        NODE("Transpose", ["u"], ["y"], perm=[0]),
    ]
    sequence = helper.make_sequence_type_proto(helper.make_tensor_type_proto(TensorProto.FLOAT, ("n", None)))
    inputs = [
        float_info("x", ("n",)),
        helper.make_tensor_value_info("cond", TensorProto.BOOL, ()),
        helper.make_value_info("seq", helper.make_optional_type_proto(sequence)),
    ]
    model = make_model(
        nodes,
        inputs=inputs,
        outputs=[float_info("y", (None,))],
        initializers=[weight, typed, *small, external],
        functions=[function],
        imports={"my": 1},
        ir_version=10,
    )
    values = numpy_helper.from_array(np.array([1, 2], np.float32), "sp")
    sparse = helper.make_sparse_tensor(values, numpy_helper.from_array(np.array([0, 3])), [elements])
    model.graph.sparse_initializer.append(sparse)
    helper.set_model_props(model, {"k": "v"})
    return bytes(model.SerializeToString())


MODELS = [rich_model(8), rich_model(2000)]


def loads_or_complains(data: bytes) -> None:
    try:
        load_model(data, limits=LIMITS)
    except CompileError as error:
        assert error.message and isinstance(error.message, str)


def test_the_models_themselves_load() -> None:
    for data in MODELS:
        assert len(load_model(data, limits=LIMITS).graph.nodes) == 6


@settings(max_examples=300, deadline=None)
@given(st.sampled_from(MODELS), st.data())
def test_truncated_models(data: bytes, draw: st.DataObject) -> None:
    loads_or_complains(data[: draw.draw(st.integers(0, len(data)))])


@settings(max_examples=1000, deadline=None)
@given(st.sampled_from(MODELS), st.data())
def test_models_with_flipped_bits(data: bytes, draw: st.DataObject) -> None:
    damaged = bytearray(data)
    for bit in draw.draw(st.lists(st.integers(0, 8 * len(data) - 1), min_size=1, max_size=8)):
        damaged[bit // 8] ^= 1 << bit % 8
    loads_or_complains(bytes(damaged))


@settings(max_examples=300, deadline=None)
@given(st.sampled_from(MODELS), st.data())
def test_models_with_bytes_put_in_or_taken_out(data: bytes, draw: st.DataObject) -> None:
    start = draw.draw(st.integers(0, len(data)))
    stop = draw.draw(st.integers(start, min(len(data), start + 64)))
    loads_or_complains(data[:start] + draw.draw(st.binary(max_size=16)) + data[stop:])


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=200))
def test_random_bytes(data: bytes) -> None:
    loads_or_complains(data)


@settings(max_examples=50, deadline=None)
@given(st.binary(min_size=1, max_size=200))
def test_random_bytes_that_repeat(data: bytes) -> None:
    """Long enough that large fields are taken out first."""
    loads_or_complains(data * (8192 // len(data) + 1))


def test_stripping_leaves_an_equal_message() -> None:
    """What is parsed after large tensors are taken out, with them put back, is the original message."""
    data = MODELS[1]
    stripped = strip_payloads(memoryview(data))
    assert len(data) - 3 * 8000 - 100 < len(stripped.message) < len(data) - 3 * 8000 + 100
    assert sorted(payload.end - payload.begin for payload in stripped.payloads.values()) == [8000, 8000, 8000]
    original, parsed = onnx.ModelProto.FromString(data), onnx.ModelProto.FromString(stripped.message)
    for before, after in zip(original.graph.initializer, parsed.graph.initializer, strict=True):
        if after.HasField("segment"):
            payload = stripped.payloads[after.segment.begin, after.segment.end]
            after.ClearField("segment")
            content = data[payload.begin : payload.end]
            assert content == (before.raw_data or np.array(before.float_data, np.float32).tobytes())
            before.ClearField("raw_data")
            before.ClearField("float_data")
    for model in (original, parsed):
        model.graph.node[2].attribute[0].t.Clear()
    assert original == parsed
