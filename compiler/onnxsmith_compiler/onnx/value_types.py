"""TypeProto and ValueInfoProto to the types of `model`."""

from __future__ import annotations

import onnx

from onnxsmith_compiler.errors import InvalidType, quoted
from onnxsmith_compiler.onnx.model import (
    Dim,
    MapType,
    OnnxType,
    OpaqueType,
    OptionalType,
    SequenceType,
    SparseTensorType,
    TensorType,
    ValueInfo,
)
from onnxsmith_compiler.onnx.names import text
from onnxsmith_compiler.onnx.tensors import element_type


def value_info(proto: onnx.ValueInfoProto) -> ValueInfo:
    name = text(proto.name)
    return ValueInfo(name, value_type(proto.type, f"value {quoted(name)}"))


def value_type(proto: onnx.TypeProto, owner: str) -> OnnxType | None:
    """The type, None where the proto says nothing or leaves a tensor's element type open."""
    kind = proto.WhichOneof("value")
    match kind:
        case None:
            return None
        case "tensor_type":
            tensor = proto.tensor_type
            if tensor.elem_type == onnx.TensorProto.UNDEFINED:
                return None
            denotations = tuple(text(dim.denotation) or None for dim in tensor.shape.dim)
            shown = denotations if any(denotations) else ()
            return TensorType(element_type(tensor.elem_type, owner), _shape(tensor), shown)
        case "sparse_tensor_type":
            sparse = proto.sparse_tensor_type
            return SparseTensorType(element_type(sparse.elem_type, owner), _shape(sparse))
        case "sequence_type":
            return SequenceType(value_type(proto.sequence_type.elem_type, owner))
        case "optional_type":
            return OptionalType(value_type(proto.optional_type.elem_type, owner))
        case "map_type":
            key = element_type(proto.map_type.key_type, owner)
            return MapType(key, value_type(proto.map_type.value_type, owner))
        case "opaque_type":
            return OpaqueType(text(proto.opaque_type.domain), text(proto.opaque_type.name))
        case _:
            raise InvalidType(f"{owner} has a type of an unknown kind, {kind}")


def _shape(proto: onnx.TypeProto.Tensor | onnx.TypeProto.SparseTensor) -> tuple[Dim, ...] | None:
    if not proto.HasField("shape"):
        return None
    return tuple(_dim(dim) for dim in proto.shape.dim)


def _dim(proto: onnx.TensorShapeProto.Dimension) -> Dim:
    """Exporters write -1, an empty name or nothing for a size that they do not know."""
    if proto.HasField("dim_value"):
        return proto.dim_value if proto.dim_value >= 0 else None
    return text(proto.dim_param) or None
