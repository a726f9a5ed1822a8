"""Models with a node or an input changed at random compile, or are refused with an error that a user is told."""

from __future__ import annotations

import random
from collections.abc import Sequence

import onnx
import pytest
from onnx import AttributeProto, TensorProto

from onnxsmith_compiler.codegen.target import Target
from onnxsmith_compiler.errors import CompileError
from onnxsmith_compiler.onnx.loader import load_model
from onnxsmith_compiler.options import CompileOptions
from onnxsmith_compiler.pipeline import lower_model
from tests.conformance.cases import official_cases

_INTEGERS = (-(2**63), -(2**31), -7, -1, 0, 1, 2, 3, 5, 64, 2**31, 2**62)
_FLOATS = (0.0, -1.0, float("nan"), float("inf"), 1e30)
_TYPES = (
    TensorProto.FLOAT, TensorProto.UINT8, TensorProto.INT8, TensorProto.INT64, TensorProto.BOOL,
    TensorProto.FLOAT16, TensorProto.DOUBLE, TensorProto.BFLOAT16,
)  # fmt: skip
_OPERATORS = (
    "Add", "ArgMax", "AveragePool", "BatchNormalization", "Cast", "Clip", "Concat", "Expand", "Flatten", "Gather",
    "Gemm", "LayerNormalization", "LeakyRelu", "MatMul", "Pad", "Reshape", "Slice", "Softmax", "Split", "Squeeze",
    "Transpose", "Unsqueeze", "Where",
)  # fmt: skip


def _change_attribute(node: onnx.NodeProto, rng: random.Random) -> None:
    if not node.attribute:
        return
    attribute = rng.choice(node.attribute)
    match attribute.type:
        case AttributeProto.INT:
            attribute.i = rng.choice(_INTEGERS)
        case AttributeProto.INTS if attribute.ints:
            attribute.ints[rng.randrange(len(attribute.ints))] = rng.choice(_INTEGERS)
        case AttributeProto.FLOAT:
            attribute.f = rng.choice(_FLOATS)
        case AttributeProto.STRING:
            attribute.s = b"nonsense"
        case _:
            node.attribute.remove(attribute)


def _change_operand(node: onnx.NodeProto, names: Sequence[str], rng: random.Random) -> None:
    if node.input:
        node.input[rng.randrange(len(node.input))] = rng.choice((*names, ""))


def _change_input(graph: onnx.GraphProto, rng: random.Random) -> None:
    if not graph.input:
        return
    tensor = rng.choice(graph.input).type.tensor_type
    if rng.random() < 0.4:
        tensor.elem_type = rng.choice(_TYPES)
    elif tensor.shape.dim and rng.random() < 0.5:
        rng.choice(tensor.shape.dim).dim_value = rng.choice((0, 1, 2, 3, 7))
    elif tensor.shape.dim:
        del tensor.shape.dim[-1]
    else:
        tensor.shape.dim.add().dim_value = rng.choice((0, 1, 3))


def damaged(model: onnx.ModelProto, rng: random.Random) -> bytes:
    changed = onnx.ModelProto()
    changed.CopyFrom(model)
    graph = changed.graph
    match rng.randrange(4):
        case 0:
            _change_attribute(rng.choice(graph.node), rng)
        case 1:
            _change_operand(rng.choice(graph.node), [info.name for info in graph.input], rng)
        case 2:
            _change_input(graph, rng)
        case _:
            changed.opset_import[0].version = rng.choice((1, 7, 11, 13, 18, 21, 23))
    return changed.SerializeToString()


@pytest.mark.parametrize("seed", range(4))
def test_damaged_models_are_refused_in_the_users_words(seed: int) -> None:
    rng = random.Random(seed)
    wanted = set(_OPERATORS)
    models = [case.model() for case in official_cases().values() if case.kind == "node"]
    models = [model for model in models if wanted.issuperset(node.op_type for node in model.graph.node)]
    refused = 0
    for _ in range(300):
        data = damaged(rng.choice(models), rng)
        try:
            lower_model(load_model(data), CompileOptions(), Target.host())
        except CompileError as error:
            assert error.message
            refused += 1
    assert refused > 30
