"""Graphs, nodes and attributes of a ModelProto to `model`'s dataclasses, function calls still in place."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import onnx

from onnxsmith_compiler.errors import InvalidGraph, InvalidType, quoted
from onnxsmith_compiler.onnx.limits import Budget
from onnxsmith_compiler.onnx.model import Array, AttributeValue, OnnxGraph, OnnxNode
from onnxsmith_compiler.onnx.names import NamePool, text
from onnxsmith_compiler.onnx.tensors import TensorReader, decode
from onnxsmith_compiler.onnx.value_types import value_info, value_type

_LOG = logging.getLogger(__name__)
_FIRST_IR_WITH_OVERRIDES = 4
_ATTRIBUTE = onnx.AttributeProto

# The field of AttributeProto that holds a value of each type.
_FIELDS = {
    _ATTRIBUTE.FLOAT: "f",
    _ATTRIBUTE.INT: "i",
    _ATTRIBUTE.STRING: "s",
    _ATTRIBUTE.TENSOR: "t",
    _ATTRIBUTE.GRAPH: "g",
    _ATTRIBUTE.SPARSE_TENSOR: "sparse_tensor",
    _ATTRIBUTE.TYPE_PROTO: "tp",
    _ATTRIBUTE.FLOATS: "floats",
    _ATTRIBUTE.INTS: "ints",
    _ATTRIBUTE.STRINGS: "strings",
    _ATTRIBUTE.TENSORS: "tensors",
    _ATTRIBUTE.GRAPHS: "graphs",
    _ATTRIBUTE.SPARSE_TENSORS: "sparse_tensors",
    _ATTRIBUTE.TYPE_PROTOS: "type_protos",
}
_MESSAGES = frozenset(("t", "g", "sparse_tensor", "tp"))
_LISTS = frozenset(("floats", "ints", "strings", "tensors", "graphs", "sparse_tensors", "type_protos"))

FunctionKey = tuple[str, str, str]
"""Domain, name and overload."""


@dataclass(frozen=True)
class FunctionBody:
    """A function before it is inlined. `required` are the attributes without default."""

    name: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    required: tuple[str, ...]
    defaults: Mapping[str, AttributeValue]
    nodes: tuple[OnnxNode, ...]
    opsets: Mapping[str, int]


@dataclass(frozen=True, eq=False)
class _Place:
    """Where a node stands: the operator sets in force, the nesting level, the pool of node names.

    Nodes in functions get their names when they are inlined: there is no pool then.
    """

    opsets: Mapping[str, int]
    names: NamePool | None
    depth: int = 0


def normal_domain(domain: str) -> str:
    """ONNX's own domain has two names."""
    return "" if domain == "ai.onnx" else domain


def function_key(proto: onnx.FunctionProto) -> FunctionKey:
    return normal_domain(text(proto.domain)), text(proto.name), text(proto.overload)


def imports_of(entries: Iterable[onnx.OperatorSetIdProto]) -> dict[str, int]:
    """Domain to operator set version; of two entries for one domain the newer counts."""
    imports: dict[str, int] = {}
    for entry in entries:
        domain = normal_domain(text(entry.domain))
        imports[domain] = max(entry.version, imports.get(domain, 0))
    return imports


class Converter:
    """Converts one model. `functions` are the keys of its functions, whose domains need no operator set."""

    def __init__(
        self, reader: TensorReader, budget: Budget, node_names: NamePool, functions: frozenset[FunctionKey]
    ) -> None:
        self._reader = reader
        self._budget = budget
        self._node_names = node_names
        self._functions = functions

    def main_graph(self, proto: onnx.GraphProto, opsets: Mapping[str, int], ir_version: int) -> OnnxGraph:
        """The model's graph; every input has a type."""
        graph = self._graph(proto, _Place(opsets, self._node_names))
        for info in graph.inputs:
            if info.type is None:
                raise InvalidType(f"graph input {quoted(info.name)} has no type, or one without element type")
        initialized = tuple(info for info in graph.inputs if info.name in graph.initializers)
        return replace(
            graph,
            inputs=tuple(info for info in graph.inputs if info.name not in graph.initializers),
            overridable=initialized if ir_version >= _FIRST_IR_WITH_OVERRIDES else (),
        )

    def function(self, proto: onnx.FunctionProto) -> FunctionBody:
        """A function's body; names in it are its own."""
        opsets = imports_of(proto.opset_import)
        place = _Place(opsets, None)
        name = text(proto.name)
        defaults = {
            text(item.name): self._attribute(item, f"function {quoted(name)}", place) for item in proto.attribute_proto
        }
        return FunctionBody(
            name=name,
            inputs=tuple(map(text, proto.input)),
            outputs=tuple(map(text, proto.output)),
            required=tuple(map(text, proto.attribute)),
            defaults=defaults,
            nodes=self._nodes(proto.node, place),
            opsets=opsets,
        )

    def attributes(self, protos: Iterable[onnx.AttributeProto], owner: str) -> dict[str, AttributeValue]:
        """Values of attributes that hold no graphs."""
        place = _Place({}, None)
        return {text(item.name): self._attribute(item, owner, place) for item in protos}

    def _graph(self, proto: onnx.GraphProto, place: _Place) -> OnnxGraph:
        name = text(proto.name)
        self._budget.check_depth(place.depth, f"graph {quoted(name)}")
        return OnnxGraph(
            name=name,
            nodes=self._nodes(proto.node, place),
            inputs=tuple(map(value_info, proto.input)),
            outputs=tuple(map(value_info, proto.output)),
            initializers=self._initializers(proto),
            value_info={info.name: info for info in map(value_info, proto.value_info)},
        )

    def _subgraph(self, proto: onnx.GraphProto, place: _Place) -> OnnxGraph:
        """A graph in an attribute, whose inputs are always fed: initializers of their names say nothing."""
        graph = self._graph(proto, replace(place, depth=place.depth + 1))
        fed = {info.name for info in graph.inputs}
        kept = {name: value for name, value in graph.initializers.items() if name not in fed}
        return replace(graph, initializers=kept)

    def _initializers(self, proto: onnx.GraphProto) -> dict[str, Array]:
        out: dict[str, Array] = {}
        for tensor in proto.initializer:
            name = text(tensor.name)
            _define(out, name, self._reader.dense(tensor, f"initializer {quoted(name)}"))
        for sparse in proto.sparse_initializer:
            name = text(sparse.values.name)
            _define(out, name, self._reader.sparse(sparse, f"sparse initializer {quoted(name)}").to_dense())
        return out

    def _nodes(self, protos: Iterable[onnx.NodeProto], place: _Place) -> tuple[OnnxNode, ...]:
        return tuple(self._node(proto, index, place) for index, proto in enumerate(protos))

    def _node(self, proto: onnx.NodeProto, index: int, place: _Place) -> OnnxNode:
        self._budget.spend_nodes(1)
        op_type, domain, overload = (
            text(proto.op_type),
            normal_domain(text(proto.domain)),
            text(proto.overload),
        )
        name = text(proto.name) or f"{op_type}_{index}"
        node = OnnxNode(
            name=name if place.names is None else place.names.fresh(name),
            op_type=op_type,
            domain=domain,
            version=0,
            inputs=tuple(text(value) or None for value in proto.input),
            outputs=tuple(text(value) or None for value in proto.output),
            overload=overload,
        )
        version = place.opsets.get(domain)
        if version is None and (domain, op_type, overload) not in self._functions:
            raise InvalidGraph(f"{node}: no operator set is imported for domain {quoted(domain or 'ai.onnx')}")
        attributes, references = self._attributes(proto, str(node), place)
        return replace(node, version=version or 0, attributes=attributes, references=references)

    def _attributes(
        self, proto: onnx.NodeProto, owner: str, place: _Place
    ) -> tuple[dict[str, AttributeValue], dict[str, str]]:
        """The values, and what stands for a function's attribute."""
        attributes: dict[str, AttributeValue] = {}
        references: dict[str, str] = {}
        for item in proto.attribute:
            name = text(item.name)
            if name in attributes or name in references:
                raise InvalidGraph(f"{owner} has the attribute {quoted(name)} twice")
            if item.ref_attr_name and place.names is not None:
                raise InvalidGraph(f"{owner}: attribute {quoted(name)} is a reference outside of a function")
            if item.ref_attr_name:
                references[name] = text(item.ref_attr_name)
            else:
                attributes[name] = self._attribute(item, owner, place)
        return attributes, references

    def _attribute(self, proto: onnx.AttributeProto, owner: str, place: _Place) -> AttributeValue:
        where = f"attribute {quoted(text(proto.name))} of {owner}"
        field = _field_of(proto, where)
        if field in _MESSAGES and not proto.HasField(field):
            raise InvalidGraph(f"{where} has no value")
        convert = self._value_converter(field, where, place)
        value = getattr(proto, field)
        if field in _LISTS:
            return tuple(value) if convert is None else tuple(map(convert, value))
        return value if convert is None else convert(value)  # type: ignore[no-any-return]

    def _value_converter(self, field: str, where: str, place: _Place) -> Callable[[Any], Any] | None:
        """What makes one value of an AttributeProto's field a plain one; None where it is one already."""
        match field:
            case "s" | "strings":
                return decode
            case "t" | "tensors":
                return lambda tensor: self._reader.dense(tensor, where)
            case "sparse_tensor" | "sparse_tensors":
                return lambda tensor: self._reader.sparse(tensor, where)
            case "g" | "graphs":
                return lambda graph: self._subgraph(graph, place)
            case "tp" | "type_protos":
                return lambda proto: _known_type(proto, where)
            case _:
                return None


def _define(out: dict[str, Array], name: str, value: Array) -> None:
    if not name:
        raise InvalidGraph("an initializer has no name")
    if name in out:
        _LOG.warning("initializer %s is given twice: the last one counts", quoted(name))
    out[name] = value


def _field_of(proto: onnx.AttributeProto, owner: str) -> str:
    """Which field holds the value. Models before IR version 2 do not say: then the one that is set."""
    if proto.type in _FIELDS:
        return _FIELDS[proto.type]
    if proto.type != _ATTRIBUTE.UNDEFINED:
        raise InvalidGraph(f"{owner} has the unknown type {proto.type}")
    present = [field for field in _FIELDS.values() if _is_set(proto, field)]
    if len(present) != 1:
        raise InvalidGraph(f"{owner} does not say its type and has {len(present)} values")
    return present[0]


def _is_set(proto: onnx.AttributeProto, field: str) -> bool:
    return len(getattr(proto, field)) > 0 if field in _LISTS else proto.HasField(field)


def _known_type(proto: onnx.TypeProto, owner: str) -> Any:
    converted = value_type(proto, owner)
    if converted is None:
        raise InvalidType(f"{owner} is an empty type")
    return converted
