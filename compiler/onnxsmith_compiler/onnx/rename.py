"""Copies of nodes and graphs under other value names: the step that inlining a function repeats."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from typing import Any

from onnxsmith_compiler.errors import InvalidGraph, UndefinedName, quoted
from onnxsmith_compiler.onnx.limits import Budget
from onnxsmith_compiler.onnx.model import AttributeValue, OnnxGraph, OnnxNode, ValueInfo
from onnxsmith_compiler.onnx.names import NamePool

Environment = Mapping[str, str | None]
"""Name in a function -> name at the place of the call, None where an optional input is omitted."""


def map_subgraphs(node: OnnxNode, change: Callable[[OnnxGraph], OnnxGraph]) -> OnnxNode:
    """The node with each graph among its attributes changed."""
    if not any(True for _ in node.subgraphs()):
        return node

    def changed(value: Any) -> Any:
        return change(value) if isinstance(value, OnnxGraph) else value

    attributes: dict[str, AttributeValue] = {}
    for name, value in node.attributes.items():
        attributes[name] = tuple(map(changed, value)) if isinstance(value, tuple) else changed(value)
    return replace(node, attributes=attributes)


def captured_names(node: OnnxNode) -> Iterator[str]:
    """The names that the node's subgraphs read and do not define; possibly some of them repeatedly."""
    for _, graph in node.subgraphs():
        yield from free_names(graph)


def free_names(graph: OnnxGraph) -> Iterator[str]:
    """The names that the graph reads and does not define; possibly some of them repeatedly."""
    own = set(defined_names(graph))
    for node in graph.nodes:
        yield from (name for name in names_read(node) if name not in own)
    yield from (info.name for info in graph.outputs if info.name not in own)


def names_read(node: OnnxNode) -> Iterator[str]:
    """All names that the node needs: its inputs, and what its subgraphs capture."""
    yield from (name for name in node.inputs if name)
    yield from captured_names(node)


def defined_names(graph: OnnxGraph) -> Iterator[str]:
    """All names that the graph itself defines, subgraphs not included."""
    yield from (info.name for info in graph.inputs)
    yield from graph.initializers
    yield from outputs_of(graph.nodes)


def outputs_of(nodes: Iterable[OnnxNode]) -> Iterator[str]:
    """All names that the nodes define."""
    return (name for node in nodes for name in node.outputs if name)


def all_names(graph: OnnxGraph) -> Iterator[str]:
    """All names that the graph and its subgraphs define."""
    yield from defined_names(graph)
    for node in graph.nodes:
        for _, subgraph in node.subgraphs():
            yield from all_names(subgraph)


class Instance:
    """One copy of a function's nodes: `attributes` are the values that references in it stand for.

    `free` are names that it may read without defining them, unchanged.
    """

    def __init__(
        self,
        owner: str,
        prefix: str,
        attributes: Mapping[str, AttributeValue],
        value_names: NamePool,
        node_names: NamePool,
        budget: Budget,
        free: frozenset[str] = frozenset(),
    ) -> None:
        self._owner = owner
        self._prefix = prefix
        self._attributes = attributes
        self._value_names = value_names
        self._node_names = node_names
        self._budget = budget
        self._free = free

    def nodes(self, nodes: Iterable[OnnxNode], environment: Environment) -> list[OnnxNode]:
        """The nodes under the environment's names, and under new ones what it does not name yet."""
        nodes = tuple(nodes)
        inner = self._extended(environment, outputs_of(nodes))
        return [self._node(node, inner) for node in nodes]

    def _extended(self, environment: Environment, names: Iterable[str]) -> dict[str, str | None]:
        inner = dict(environment)
        for name in names:
            if name not in inner:
                inner[name] = self._value_names.fresh(f"{self._prefix}/{name}")
        return inner

    def _node(self, node: OnnxNode, environment: Environment) -> OnnxNode:
        self._budget.spend_nodes(1)
        renamed = replace(
            node,
            name=self._node_names.fresh(f"{self._prefix}/{node.name}"),
            inputs=tuple(self._name(name, environment, node) for name in node.inputs),
            outputs=tuple(name and environment[name] for name in node.outputs),
            references={},
        )
        renamed = map_subgraphs(renamed, lambda graph: self._graph(graph, environment, node))
        return replace(renamed, attributes={**renamed.attributes, **self._referenced(node)})

    def _referenced(self, node: OnnxNode) -> dict[str, AttributeValue]:
        """The values that the call gives for references; an attribute without one is absent."""
        referring = replace(
            node,
            attributes={
                name: self._attributes[reference]
                for name, reference in node.references.items()
                if reference in self._attributes
            },
        )
        return dict(map_subgraphs(referring, lambda graph: self._callers_graph(graph, node)).attributes)

    def _callers_graph(self, graph: OnnxGraph, node: OnnxNode) -> OnnxGraph:
        """A copy of a graph that the call gives: what it captures is the caller's and keeps its name."""
        return self._graph(graph, {name: name for name in free_names(graph)}, node)

    def _graph(self, graph: OnnxGraph, environment: Environment, node: OnnxNode) -> OnnxGraph:
        shadowed = set(defined_names(graph))
        outer = {name: value for name, value in environment.items() if name not in shadowed}
        inner = self._extended(outer, defined_names(graph))

        def renamed(value: ValueInfo) -> ValueInfo:
            name = self._name(value.name, inner, node)
            if name is None:
                raise InvalidGraph(f"{self._owner}: a graph in {node} returns an input that the call omits")
            return replace(value, name=name)

        return replace(
            graph,
            nodes=tuple(self.nodes(graph.nodes, inner)),
            inputs=tuple(map(renamed, graph.inputs)),
            outputs=tuple(map(renamed, graph.outputs)),
            initializers={str(inner[name]): value for name, value in graph.initializers.items()},
            value_info={},
        )

    def _name(self, name: str | None, environment: Environment, node: OnnxNode) -> str | None:
        if name is None or name in environment:
            return environment[name] if name else None
        if name in self._free:
            return name
        raise UndefinedName(f"{self._owner}: {node} reads {quoted(name)}, which the function does not define")
