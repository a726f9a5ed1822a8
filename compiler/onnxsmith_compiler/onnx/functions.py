"""Expands operators that ONNX itself defines as functions of simpler ones."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import lru_cache
from typing import Any, TypeAlias

import onnx
from onnx import defs, helper, numpy_helper

from onnxsmith_compiler.errors import UnsupportedFeature
from onnxsmith_compiler.onnx.convert import Converter
from onnxsmith_compiler.onnx.external_data import ExternalData
from onnxsmith_compiler.onnx.inline import inline_call
from onnxsmith_compiler.onnx.limits import Budget, LoadLimits
from onnxsmith_compiler.onnx.model import AttributeValue, OnnxGraph, OnnxNode, OnnxType
from onnxsmith_compiler.onnx.names import NamePool
from onnxsmith_compiler.onnx.rename import Instance, captured_names, map_subgraphs
from onnxsmith_compiler.onnx.tensors import TensorReader
from onnxsmith_compiler.onnx.to_proto import attribute_proto, node_proto, type_proto
from onnxsmith_compiler.onnx.wire import Stripped

_OPAQUE_DOMAIN = "onnxsmith.opaque"
_UNSTATED_OPSET = 26  # of bodies of ai.onnx.preview, which do not import ai.onnx

_Schema: TypeAlias = Any  # onnx.defs.OpSchema, of which onnx's stubs declare only a part


def expand_function(
    node: OnnxNode, input_types: Sequence[OnnxType | None], *, value_names: NamePool | None = None
) -> list[OnnxNode] | None:
    """The node as nodes of simpler operators, in topological order; None where ONNX has no function for it.

    `input_types` has one type for each input of the node, None for one that is omitted: some bodies depend on
    them (and on attributes, whose defaults are written out first). Inner values get names from `value_names`;
    by default they are "<node name>::<operator>/...".

    The nodes carry the operator set version that the body is written in, which may not be the node's own.
    They may be functions themselves. Raises UnsupportedFeature where ONNX cannot build the body.
    """
    schema = _function_schema(node.op_type, node.version, node.domain)
    if schema is None:
        return None
    full = replace(node, attributes={**_default_attributes(schema), **node.attributes})
    opaque: list[OnnxNode] = []
    body = _function_proto(schema, full, input_types, opaque)
    if body is None:
        return None
    return _inlined(full, body, opaque, value_names or NamePool())


def has_function_body(node: OnnxNode) -> bool:
    """Whether ONNX defines the operator as a function, perhaps for some input types only."""
    return _function_schema(node.op_type, node.version, node.domain) is not None


@lru_cache(maxsize=1024)
def _function_schema(op_type: str, version: int, domain: str) -> _Schema | None:
    try:
        schema: _Schema = defs.get_schema(op_type, version, domain)
    except defs.SchemaError:
        return None
    return schema if schema.has_function or schema.has_context_dependent_function else None


def _default_attributes(schema: _Schema) -> dict[str, AttributeValue]:
    """The schema's attribute defaults as the values that a node has them as."""
    converter = _converter(frozenset())
    given = [item.default_value for item in schema.attributes.values() if item.default_value.name]
    return converter.attributes(given, schema.name)


def _function_proto(
    schema: _Schema,
    node: OnnxNode,
    input_types: Sequence[OnnxType | None],
    opaque: list[OnnxNode],
) -> onnx.FunctionProto | None:
    if schema.has_function:
        version = _body_version(schema.function_opset_versions, node.version)
        return _parsed(schema.get_function_with_opset_version(version))
    _check_types(schema, node, input_types)
    version = _body_version(schema.context_dependent_function_opset_versions, node.version)
    proto = node_proto(node, [_attribute(name, value, schema, opaque) for name, value in node.attributes.items()])
    types = [type_proto(value_type).SerializeToString() for value_type in input_types]
    try:
        built = schema.get_context_dependent_function_with_opset_version(version, proto.SerializeToString(), types)
    except Exception as error:  # of onnx's C++ code: several types without a common base
        raise UnsupportedFeature(f"{node}: ONNX cannot write it as a function: {error}") from None
    return _parsed(built) if built else None


def _check_types(schema: _Schema, node: OnnxNode, input_types: Sequence[OnnxType | None]) -> None:
    """Refuses unknown types: some of onnx's builders follow a null pointer there."""
    optional = defs.OpSchema.FormalParameterOption.Optional
    for index, name in enumerate(node.inputs):
        parameter = schema.inputs[min(index, len(schema.inputs) - 1)]
        known = index < len(input_types) and input_types[index] is not None
        if not known and not (name is None and parameter.option == optional):
            raise UnsupportedFeature(f"{node}: the type of input {index} must be known to write it as a function")


def _body_version(versions: Sequence[int], wanted: int) -> int:
    """The newest body not newer than the node, else the oldest: a body says which operator set it is in."""
    return max((version for version in versions if version <= wanted), default=min(versions))


def _parsed(data: bytes) -> onnx.FunctionProto:
    proto = onnx.FunctionProto()
    proto.ParseFromString(data)
    return proto


def _attribute(name: str, value: AttributeValue, schema: _Schema, opaque: list[OnnxNode]) -> onnx.AttributeProto:
    if isinstance(value, OnnxGraph):
        return helper.make_attribute(name, _opaque_graph(value, opaque))
    expected = schema.attributes[name].type.value if name in schema.attributes else None
    return attribute_proto(name, value, expected)


def _opaque_graph(graph: OnnxGraph, opaque: list[OnnxNode]) -> onnx.GraphProto:
    """The graph for a builder that moves nodes about: each a stand-in, which keeps what protobuf would lose.

    A stand-in reads the node's inputs and what its subgraphs capture; `opaque` collects the nodes themselves.
    """
    stand_ins = []
    for node in graph.nodes:
        reads = [name or "" for name in (*node.inputs, *_captured(node))]
        writes = [name or "" for name in node.outputs]
        stand_ins.append(helper.make_node(str(len(opaque)), reads, writes, domain=_OPAQUE_DOMAIN))
        opaque.append(node)
    return helper.make_graph(
        stand_ins,
        graph.name,
        [helper.make_value_info(info.name, type_proto(info.type)) for info in graph.inputs],
        [helper.make_value_info(info.name, type_proto(info.type)) for info in graph.outputs],
        [numpy_helper.from_array(value, name) for name, value in graph.initializers.items()],
    )


def _captured(node: OnnxNode) -> tuple[str, ...]:
    return tuple(dict.fromkeys(captured_names(node)))


def _converter(functions: frozenset[tuple[str, str, str]]) -> Converter:
    budget = Budget(LoadLimits())
    nothing = Stripped(b"", memoryview(b""), {})
    reader = TensorReader(nothing, ExternalData(None), budget)
    return Converter(reader, budget, NamePool(), functions)


def _inlined(
    node: OnnxNode, proto: onnx.FunctionProto, opaque: Sequence[OnnxNode], value_names: NamePool
) -> list[OnnxNode]:
    stand_in_keys = frozenset((_OPAQUE_DOMAIN, str(index), "") for index in range(len(opaque)))
    if not any(entry.domain == "" for entry in proto.opset_import):
        proto.opset_import.append(helper.make_opsetid("", _UNSTATED_OPSET))
    body = _converter(stand_in_keys).function(proto)
    node_names = NamePool()
    instance = Instance(
        owner=f"ONNX's function for {node}",
        prefix=f"{node.name}::{node.op_type}",
        attributes={**body.defaults, **node.attributes},
        value_names=value_names,
        node_names=node_names,
        budget=Budget(LoadLimits()),
        free=frozenset(captured_names(node)),
    )
    nodes = inline_call(node, body, instance, node_names)
    return list(_without_stand_ins(nodes, opaque, instance)) if opaque else nodes


def _without_stand_ins(nodes: Sequence[OnnxNode], opaque: Sequence[OnnxNode], instance: Instance) -> Iterator[OnnxNode]:
    def inner(graph: OnnxGraph) -> OnnxGraph:
        return replace(graph, nodes=tuple(_without_stand_ins(graph.nodes, opaque, instance)))

    for node in nodes:
        if node.domain != _OPAQUE_DOMAIN:
            yield map_subgraphs(node, inner)
            continue
        original = opaque[int(node.op_type)]
        names: Mapping[str, str | None] = {
            old: new
            for old, new in zip(
                (*original.inputs, *_captured(original), *original.outputs),
                (*node.inputs, *node.outputs),
                strict=True,
            )
            if old is not None
        }
        yield from instance.nodes([original], names)
