"""Gives every output of the model a tensor of its own, so that its memory can be the caller's."""

from __future__ import annotations

from dataclasses import replace

from onnxsmith_compiler.ir.graph import Graph, Value
from onnxsmith_compiler.ops.pointwise import Pointwise
from onnxsmith_compiler.passes.rewrite import Rewriter


def separate_outputs(graph: Graph) -> Graph:
    """Copies an output that is an input, a constant, or an output already."""
    rewriter = Rewriter(graph)
    for node in graph.nodes:
        rewriter.keep(node)
    computed = {value for node in graph.nodes for value in node.outputs}
    seen: set[Value] = set()
    outputs = []
    for name, value in graph.outputs:
        if value not in computed or value in seen:
            rewriter.builder.fold = False
            # A constant is copied, because an operator on a known value would fold.
            source = Value(value.name, value.type, value.constant) if value.is_constant else value
            value = rewriter.builder.emit(Pointwise("identity"), source)
        seen.add(value)
        outputs.append((name, value))
    return replace(graph, outputs=tuple(outputs), nodes=tuple(rewriter.builder.nodes))
