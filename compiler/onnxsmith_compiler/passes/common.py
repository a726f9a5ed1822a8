"""Computes equal things once: nodes with the same operator and inputs become one."""

from __future__ import annotations

from onnxsmith_compiler.ir.graph import Graph, Node, Value
from onnxsmith_compiler.passes.rewrite import Rewriter

_SMALL = 64


def merge_common(graph: Graph) -> Graph:
    rewriter = Rewriter(graph)
    seen: dict[object, Node] = {}
    for node in graph.nodes:
        inputs = tuple(None if value is None else _key(rewriter.new(value)) for value in node.inputs)
        key = (node.op, inputs)
        if key in seen:
            rewriter.replaced.update(zip(node.outputs, seen[key].outputs, strict=True))
        else:
            seen[key] = node
            rewriter.keep(node)
    return rewriter.finish()


def _key(value: Value) -> object:
    """A small constant is known by its elements, anything else by itself."""
    if not value.is_constant or not isinstance(value.type.size, int) or value.type.size > _SMALL:
        return value
    assert value.data is not None
    return (value.type, value.data.tobytes())
