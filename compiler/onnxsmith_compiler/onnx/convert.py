"""Graphs, nodes and attributes of a ModelProto to `model`'s dataclasses, function calls still in place."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import onnx

from onnxsmith_compiler.errors import InvalidGraph, InvalidType, quoted
from onnxsmith_compiler.onnx.limits import Budget
from onnxsmith_compiler.onnx.model import Array, AttributeValue, OnnxGraph, OnnxNode, ValueInfo
from onnxsmith_compiler.onnx.names import NamePool
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


def normal_domain(domain: str) -> str:
    """ONNX's own domain has two names."""
    return "" if domain == "ai.onnx" else domain


def function_key(proto: onnx.FunctionProto) -> FunctionKey:
    return normal_domain(proto.domain), proto.name, proto.overload


def imports_of(entries: Iterable[onnx.OperatorSetIdProto]) -> dict[str, int]:
    """Domain to operator set version; of two entries for one domain the newer counts."""
    imports: dict[str, int] = {}
    for entry in entries:
        domain = normal_domain(entry.domain)
        imports[domain] = max(entry.version, imports.get(domain, 0))
    return imports


class Converter:
    """Converts one model. `functions` are the keys of its functions, whose domains need no operator set."""

    def __init__(
        self,
        reader: TensorReader,
        budget: Budget,
        node_names: NamePool,
        functions: frozenset[FunctionKey],
        ir_version: int,
    ) -> None:
        self._reader = reader
        self._budget = budget
        self._node_names = node_names
        self._functions = functions
        self._ir_version = ir_version

    def main_graph(self, proto: onnx.GraphProto, opsets: Mapping[str, int]) -> OnnxGraph:
        """The model's graph; every input has a type."""
        initializers = self._initializers(proto)
        declared = tuple(value_info(info) for info in proto.input)
        for info in declared:
            if info.type is None:
                raise InvalidType(f"graph input {quoted(info.name)} has no type, or one without element type")
        overridable: tuple[ValueInfo, ...] = ()
        if self._ir_version >= _FIRST_IR_WITH_OVERRIDES:
            overridable = tuple(info for info in declared if info.name in initializers)
        return OnnxGraph(
            name=proto.name,
            nodes=self.nodes(proto.node, opsets, 0, self._node_names),
            inputs=tuple(info for info in declared if info.name not in initializers),
            outputs=tuple(value_info(info) for info in proto.output),
            initializers=initializers,
            overridable=overridable,
            value_info={info.name: value_info(info) for info in proto.value_info},
        )

    def function(self, proto: onnx.FunctionProto) -> FunctionBody:
        """A function's body; names in it are its own."""
        opsets = imports_of(proto.opset_import)
        owner = f"function {quoted(proto.name)}"
        return FunctionBody(
            name=proto.name,
            inputs=tuple(proto.input),
            outputs=tuple(proto.output),
            required=tuple(proto.attribute),
            defaults={
                item.name: self._attribute(item, owner, opsets, 0, None) for item in proto.attribute_proto
            },
            nodes=self.nodes(proto.node, opsets, 0, None),
            opsets=opsets,
        )

    def nodes(
        self, protos: Iterable[onnx.NodeProto], opsets: Mapping[str, int], depth: int, names: NamePool | None
    ) -> tuple[OnnxNode, ...]:
        """Nodes at nesting level `depth`, named uniquely if there is a pool to name them from."""
        return tuple(self._node(proto, index, opsets, depth, names) for index, proto in enumerate(protos))

    def _subgraph(
        self, proto: onnx.GraphProto, opsets: Mapping[str, int], depth: int, names: NamePool | None
    ) -> OnnxGraph:
        self._budget.check_depth(depth, f"graph {quoted(proto.name)}")
        inputs = tuple(value_info(info) for info in proto.input)
        fed = {info.name for info in inputs}
        initializers = self._initializers(proto)
        return OnnxGraph(
            name=proto.name,
            nodes=self.nodes(proto.node, opsets, depth, names),
            inputs=inputs,
            outputs=tuple(value_info(info) for info in proto.output),
            initializers={name: value for name, value in initializers.items() if name not in fed},
            value_info={info.name: value_info(info) for info in proto.value_info},
        )

    def _initializers(self, proto: onnx.GraphProto) -> dict[str, Array]:
        out: dict[str, Array] = {}
        for tensor in proto.initializer:
            self._define(out, tensor.name, self._reader.dense(tensor, f"initializer {quoted(tensor.name)}"))
        for sparse in proto.sparse_initializer:
            name = sparse.values.name
            value = self._reader.sparse(sparse, f"sparse initializer {quoted(name)}").to_dense()
            self._define(out, name, value)
        return out

    def _define(self, out: dict[str, Array], name: str, value: Array) -> None:
        if not name:
            raise InvalidGraph("an initializer has no name")
        if name in out:
            _LOG.warning("initializer %s is given twice: the last one counts", quoted(name))
        out[name] = value

    def _node(
        self,
        proto: onnx.NodeProto,
        index: int,
        opsets: Mapping[str, int],
        depth: int,
        names: NamePool | None,
    ) -> OnnxNode:
        self._budget.spend_nodes(1)
        name = proto.name or f"{proto.op_type}_{index}"
        if names is not None:
            name = names.fresh(name)
        domain = normal_domain(proto.domain)
        owner = f"node {quoted(name)} ({quoted(proto.op_type)[1:-1]})"
        attributes: dict[str, AttributeValue] = {}
        references: dict[str, str] = {}
        for item in proto.attribute:
            if item.name in attributes or item.name in references:
                raise InvalidGraph(f"{owner} has the attribute {quoted(item.name)} twice")
            if item.ref_attr_name:
                references[item.name] = item.ref_attr_name
            else:
                attributes[item.name] = self._attribute(item, owner, opsets, depth, names)
        return OnnxNode(
            name=name,
            op_type=proto.op_type,
            domain=domain,
            version=self._version(proto, domain, opsets, owner),
            inputs=tuple(value or None for value in proto.input),
            outputs=tuple(value or None for value in proto.output),
            attributes=attributes,
            overload=proto.overload,
            references=references,
        )

    def _version(self, proto: onnx.NodeProto, domain: str, opsets: Mapping[str, int], owner: str) -> int:
        version = opsets.get(domain)
        if version is not None:
            return version
        if (domain, proto.op_type, proto.overload) in self._functions:
            return 0
        raise InvalidGraph(f"{owner}: no operator set is imported for domain {quoted(domain or 'ai.onnx')}")

    def _attribute(
        self,
        proto: onnx.AttributeProto,
        owner: str,
        opsets: Mapping[str, int],
        depth: int,
        names: NamePool | None,
    ) -> AttributeValue:
        field = _field_of(proto, f"{owner}: attribute {quoted(proto.name)}")
        where = f"attribute {quoted(proto.name)} of {owner}"
        if field in _MESSAGES and not proto.HasField(field):
            raise InvalidGraph(f"{where} has no value")
        convert = self._scalar_converter(field, where, opsets, depth, names)
        value = getattr(proto, field)
        return tuple(map(convert, value)) if field in _LISTS else convert(value)

    def _scalar_converter(
        self, field: str, where: str, opsets: Mapping[str, int], depth: int, names: NamePool | None
    ) -> Callable[[Any], Any]:
        match field:
            case "s" | "strings":
                return decode
            case "t" | "tensors":
                return lambda tensor: self._reader.dense(tensor, where)
            case "sparse_tensor" | "sparse_tensors":
                return lambda tensor: self._reader.sparse(tensor, where)
            case "g" | "graphs":
                return lambda graph: self._subgraph(graph, opsets, depth + 1, names)
            case "tp" | "type_protos":
                return lambda proto: _known_type(proto, where)
            case "f" | "floats":
                return float
            case _:
                return int


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
