"""Checks nodes against the onnx package's operator schemas: names, arity, attributes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from onnx import defs

from onnxsmith_compiler.errors import InvalidGraph
from onnxsmith_compiler.errors import quoted as q
from onnxsmith_compiler.onnx.model import (
    AttributeValue,
    MapType,
    OnnxGraph,
    OnnxNode,
    OpaqueType,
    OptionalType,
    SequenceType,
    SparseTensor,
    SparseTensorType,
    TensorType,
)

NEWEST_OPSETS: Mapping[str, int] = {
    "": 28,
    "ai.onnx.ml": 5,
    "ai.onnx.preview": 1,
    "ai.onnx.preview.training": 1,
}
"""Domains whose operators have schemas, and the newest operator set of each that this compiler knows."""

_SHOWN_PROBLEMS = 10
_TYPES = (TensorType, SparseTensorType, SequenceType, OptionalType, MapType, OpaqueType)
_AttrType = defs.OpSchema.AttrType
# Attribute type -> what it is in Python, and whether it is a tuple of them.
_PYTHON_TYPES: dict[object, tuple[type | tuple[type, ...], bool]] = {
    _AttrType.FLOAT: (float, False),
    _AttrType.INT: (int, False),
    _AttrType.STRING: ((str, bytes), False),
    _AttrType.TENSOR: (np.ndarray, False),
    _AttrType.GRAPH: (OnnxGraph, False),
    _AttrType.SPARSE_TENSOR: (SparseTensor, False),
    _AttrType.TYPE_PROTO: (_TYPES, False),
    _AttrType.FLOATS: (float, True),
    _AttrType.INTS: (int, True),
    _AttrType.STRINGS: ((str, bytes), True),
    _AttrType.TENSORS: (np.ndarray, True),
    _AttrType.GRAPHS: (OnnxGraph, True),
    _AttrType.SPARSE_TENSORS: (SparseTensor, True),
    _AttrType.TYPE_PROTOS: (_TYPES, True),
}


@dataclass(frozen=True)
class _Signature:
    """What a schema says about the nodes of its operator. `single` are the inputs that may not be omitted."""

    inputs: tuple[int, int]
    outputs: tuple[int, int]
    single: tuple[int, ...]
    attributes: Mapping[str, object]
    required: tuple[str, ...]
    deprecated: bool


def check_schemas(graph: OnnxGraph) -> None:
    """Raises InvalidGraph that names each node which breaks its operator's schema (the first ten)."""
    problems = [f"{node}: {problem}" for node in _all_nodes(graph) for problem in _problems(node)]
    if not problems:
        return
    more = f"\n... and {len(problems) - _SHOWN_PROBLEMS} more" if len(problems) > _SHOWN_PROBLEMS else ""
    raise InvalidGraph("\n".join(problems[:_SHOWN_PROBLEMS]) + more)


def _all_nodes(graph: OnnxGraph) -> Iterator[OnnxNode]:
    for node in graph.nodes:
        yield node
        for _, subgraph in node.subgraphs():
            yield from _all_nodes(subgraph)


def _problems(node: OnnxNode) -> Iterator[str]:
    if node.domain not in NEWEST_OPSETS:
        return
    signature = _signature(node.op_type, node.version, node.domain)
    if signature is None:
        domain = node.domain or "ai.onnx"
        yield f"no operator {q(node.op_type)} in {q(domain)[1:-1]} operator set {node.version}"
        return
    if signature.deprecated:
        yield f"deprecated, no longer an operator in operator set {node.version}"
    yield from _arity_problems(node, signature)
    yield from _attribute_problems(node, signature)


def _arity_problems(node: OnnxNode, signature: _Signature) -> Iterator[str]:
    for what, values, (least, most) in (
        ("inputs", node.inputs, signature.inputs),
        ("outputs", node.outputs, signature.outputs),
    ):
        if not least <= len(values) <= most:
            expected = str(least) if least == most else f"{least} to {most}"
            yield f"{len(values)} {what}, the operator has {expected}"
    for index in signature.single:
        if index < len(node.inputs) and node.inputs[index] is None:
            yield f"input {index} is omitted and is not optional"


def _attribute_problems(node: OnnxNode, signature: _Signature) -> Iterator[str]:
    for name in signature.required:
        if name not in node.attributes:
            yield f"attribute {q(name)} is missing"
    for name, value in node.attributes.items():
        if name.startswith("__"):  # ONNX leaves these names to tools
            continue
        if name not in signature.attributes:
            known = ", ".join(sorted(signature.attributes)) or "none"
            yield f"unknown attribute {q(name)}; the operator has {known}"
        elif not _has_type(value, signature.attributes[name]):
            expected = str(signature.attributes[name]).rsplit(".", maxsplit=1)[-1]
            yield f"attribute {q(name)} is of the wrong type; it is {expected} in the operator"


def _has_type(value: AttributeValue, expected: object) -> bool:
    python_type, is_list = _PYTHON_TYPES[expected]
    if isinstance(value, tuple) != is_list:
        return False
    items = value[:1] if isinstance(value, tuple) else (value,)  # the items of a list are of one type
    return all(isinstance(item, python_type) for item in items)


@lru_cache(maxsize=4096)
def _signature(op_type: str, version: int, domain: str) -> _Signature | None:
    try:
        schema = defs.get_schema(op_type, version, domain)
    except defs.SchemaError:
        return None
    single = defs.OpSchema.FormalParameterOption.Single
    return _Signature(
        inputs=(schema.min_input, schema.max_input),
        outputs=(schema.min_output, schema.max_output),
        single=tuple(index for index, item in enumerate(schema.inputs) if item.option == single),
        attributes={name: item.type for name, item in schema.attributes.items()},
        required=tuple(name for name, item in schema.attributes.items() if item.required),
        deprecated=schema.deprecated,
    )
