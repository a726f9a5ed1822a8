"""Removes nodes whose results nothing reads."""

from __future__ import annotations

from dataclasses import replace

from onnxsmith_compiler.ir.graph import Graph, Node


def remove_dead_nodes(graph: Graph) -> Graph:
    needed = graph.kept_values()
    kept: list[Node] = []
    for node in reversed(graph.nodes):
        if any(output in needed for output in node.outputs):
            kept.append(node)
            needed.update(node.operands())
    return replace(graph, nodes=tuple(reversed(kept)))
