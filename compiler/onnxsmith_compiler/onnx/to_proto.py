"""Back from the dataclasses of `model` to protobuf: what the onnx package must be shown of a node."""

from __future__ import annotations

import numpy as np
import onnx
from onnx import helper, numpy_helper

from onnxsmith_compiler.onnx.model import (
    AttributeValue,
    MapType,
    OnnxNode,
    OnnxType,
    OpaqueType,
    OptionalType,
    SequenceType,
    SparseTensor,
    SparseTensorType,
    TensorType,
)


def node_proto(node: OnnxNode, attributes: list[onnx.AttributeProto]) -> onnx.NodeProto:
    """The node with these attributes in place of its own."""
    return onnx.NodeProto(
        name=node.name,
        op_type=node.op_type,
        domain=node.domain,
        overload=node.overload,
        input=[name or "" for name in node.inputs],
        output=[name or "" for name in node.outputs],
        attribute=attributes,
    )


def attribute_proto(name: str, value: AttributeValue, attribute_type: int | None = None) -> onnx.AttributeProto:
    """An attribute without graphs. An empty list needs its `attribute_type`, a number of onnx.proto."""
    if isinstance(value, tuple):
        return helper.make_attribute(name, [_attribute_item(item) for item in value], None, attribute_type)
    return helper.make_attribute(name, _attribute_item(value))


def type_proto(value_type: OnnxType | None) -> onnx.TypeProto:
    """The type; an empty TypeProto for None."""
    match value_type:
        case None:
            return onnx.TypeProto()
        case TensorType(dtype, shape):
            return helper.make_tensor_type_proto(dtype.onnx_code, shape)
        case SparseTensorType(dtype, shape):
            return helper.make_sparse_tensor_type_proto(dtype.onnx_code, shape)
        case SequenceType(element):
            return helper.make_sequence_type_proto(type_proto(element))
        case OptionalType(element):
            return helper.make_optional_type_proto(type_proto(element))
        case MapType(key, value):
            return helper.make_map_type_proto(key.onnx_code, type_proto(value))
        case OpaqueType(domain, name):
            return onnx.TypeProto(opaque_type=onnx.TypeProto.Opaque(domain=domain, name=name))


def _attribute_item(value: object) -> object:
    if isinstance(value, np.ndarray):
        return numpy_helper.from_array(value)
    if isinstance(value, SparseTensor):
        values = numpy_helper.from_array(value.values)
        return helper.make_sparse_tensor(values, numpy_helper.from_array(value.indices), value.shape)
    if isinstance(value, TensorType | SparseTensorType | SequenceType | OptionalType | MapType | OpaqueType):
        return type_proto(value)
    return value
