"""Checks that each name is defined once and before its use, sorting nodes where they are not in order."""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace

from onnxsmith_compiler.errors import (
    CyclicGraph,
    DuplicateName,
    InvalidGraph,
    UndefinedName,
    UndefinedOutput,
    quoted,
)
from onnxsmith_compiler.onnx.model import OnnxGraph, OnnxNode
from onnxsmith_compiler.onnx.rename import map_subgraphs, names_read


@dataclass(frozen=True, eq=False)
class _Scope:
    """The names visible at a place: the graph's own so far, and those around it."""

    names: set[str]
    outer: _Scope | None

    def __contains__(self, name: object) -> bool:
        scope: _Scope | None = self
        while scope is not None:
            if name in scope.names:
                return True
            scope = scope.outer
        return False


def checked_graph(graph: OnnxGraph) -> OnnxGraph:
    """The same graph in topological order, subgraphs too.

    Raises DuplicateName, UndefinedName, UndefinedOutput, CyclicGraph, and InvalidGraph for empty names.
    """
    return _checked(graph, None, f"graph {quoted(graph.name)}")


def _checked(graph: OnnxGraph, outer: _Scope | None, where: str) -> OnnxGraph:
    scope = _Scope(set(), outer)
    for info in (*graph.inputs, *graph.overridable):
        _define(scope, info.name, f"an input of {where}")
    scope.names.update(graph.initializers)
    if "" in scope.names:
        raise InvalidGraph(f"{where} has an input without a name")
    producers = _producers(graph.nodes, scope)
    ordered = _sorted(graph.nodes, producers, scope)
    nodes = []
    for node in ordered:
        nodes.append(map_subgraphs(node, _subgraph_check(node, scope)))
        scope.names.update(name for name in node.outputs if name)
    for info in graph.outputs:
        if info.name not in scope:
            raise UndefinedOutput(
                f"{where} returns {_missing(info.name, scope.names)}, which is no input, initializer or node output"
            )
    return replace(graph, nodes=tuple(nodes))


def _subgraph_check(node: OnnxNode, scope: _Scope) -> Callable[[OnnxGraph], OnnxGraph]:
    return lambda graph: _checked(graph, scope, f"graph {quoted(graph.name)} in {node}")


def _define(scope: _Scope, name: str, what: str) -> None:
    if name in scope.names:
        raise DuplicateName(f"{quoted(name)}, {what}, is defined twice")
    scope.names.add(name)


def _producers(nodes: Sequence[OnnxNode], scope: _Scope) -> dict[str, int]:
    """Value name -> index of the node that defines it."""
    producers: dict[str, int] = {}
    for index, node in enumerate(nodes):
        for name in node.outputs:
            if not name:
                continue
            if name in producers:
                other = nodes[producers[name]]
                raise DuplicateName(f"{node} defines {quoted(name)}, which {other} defines already")
            if name in scope.names:
                raise DuplicateName(f"{node} defines {quoted(name)}, which is an input or initializer")
            producers[name] = index
    return producers


def _sorted(nodes: Sequence[OnnxNode], producers: dict[str, int], scope: _Scope) -> Sequence[OnnxNode]:
    """The nodes in topological order: their own order where that is one."""
    needs: list[set[int]] = []
    for node in nodes:
        needs.append({producers[name] for name in names_read(node) if name in producers})
        for name in node.inputs:  # what subgraphs capture is checked with them
            if name and name not in producers and name not in scope:
                missing = _missing(name, {*scope.names, *producers})
                raise UndefinedName(f"{node} reads {missing}, which is no input, initializer or node output")
    if all(needed < index for index, before in enumerate(needs) for needed in before):
        return nodes
    return [nodes[index] for index in _topological_order(nodes, needs)]


def _topological_order(nodes: Sequence[OnnxNode], needs: list[set[int]]) -> list[int]:
    """Kahn's algorithm, the earliest node first among those that are ready."""
    waiting = [len(before) for before in needs]
    users: list[list[int]] = [[] for _ in needs]
    for index, before in enumerate(needs):
        for needed in before:
            users[needed].append(index)
    ready = [index for index, count in enumerate(waiting) if count == 0]
    order: list[int] = []
    while ready:
        index = heapq.heappop(ready)
        order.append(index)
        for user in users[index]:
            waiting[user] -= 1
            if waiting[user] == 0:
                heapq.heappush(ready, user)
    if len(order) < len(needs):
        cycle = " -> ".join(str(nodes[index]) for index in _cycle(needs, set(order)))
        raise CyclicGraph(f"the graph has a cycle: {cycle}")
    return order


def _cycle(needs: list[set[int]], done: set[int]) -> list[int]:
    """Some cycle among the nodes that are not done, each one feeding the next, the first again at the end."""
    index = next(index for index in range(len(needs)) if index not in done)
    path: list[int] = []
    while index not in path:
        path.append(index)
        index = min(needs[index] - done)
    return [index, *reversed(path[path.index(index) :])]


def _missing(name: str, known: Iterable[str]) -> str:
    """The undefined name, with the known one that it may be a misspelling of."""
    from difflib import get_close_matches  # here: few models lack a name

    near = get_close_matches(name[:200], list(known)[:2000], n=1)
    return f"{quoted(name)} (not {quoted(near[0])}?)" if near else quoted(name)
