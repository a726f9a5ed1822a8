"""Checks that a graph is well formed; run after the import and after every pass."""

from __future__ import annotations

from onnxsmith_compiler.ir.graph import Graph, Node, Value


class MalformedGraph(AssertionError):
    """A pass left a graph that breaks the rules; the message names the pass and the node."""


def verify(graph: Graph, after: str, typed: set[Node] | None = None) -> None:
    """Every value is defined once and before its use, and has the type that its operator infers.

    `typed` are nodes whose types were found right before, and never change; it gets the others. Raises MalformedGraph.
    """
    typed = set() if typed is None else typed
    defined: set[Value] = set(graph.inputs)
    for node in graph.nodes:
        for value in node.operands():
            if value not in defined and not value.is_constant:
                raise MalformedGraph(f"after {after}: {_name(node)} reads {value!r}, which nothing before it computes")
        if node not in typed:
            _check_types(node, after)
            typed.add(node)
        for value in node.outputs:
            if value in defined:
                raise MalformedGraph(f"after {after}: {_name(node)} computes {value!r}, which is computed already")
            defined.add(value)
    for name, value in graph.outputs:
        if value not in defined and not value.is_constant:
            raise MalformedGraph(f"after {after}: output '{name}' is {value!r}, which nothing computes")
    for symbol in graph.late_symbols:
        if symbol.source not in defined and not symbol.source.is_constant:
            raise MalformedGraph(
                f"after {after}: symbol {symbol.name} is bound to {symbol.source!r}, which nothing computes"
            )


def _check_types(node: Node, after: str) -> None:
    inferred = node.op.infer(tuple(None if value is None else value.type for value in node.inputs))
    declared = tuple(value.type for value in node.outputs)
    if inferred != declared:
        raise MalformedGraph(f"after {after}: {_name(node)} has outputs {declared}, its operator gives {inferred}")


def _name(node: Node) -> str:
    return f"{node.op.name} (from '{node.origin}')"
