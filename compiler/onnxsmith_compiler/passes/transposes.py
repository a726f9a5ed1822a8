"""Joins and removes transposes and reshapes that follow each other."""

from __future__ import annotations

from onnxsmith_compiler.ir.graph import Graph, Node, Value
from onnxsmith_compiler.ops.view import Reshape, Transpose
from onnxsmith_compiler.passes.rewrite import Rewriter


def join_views(graph: Graph) -> Graph:
    """Transpose of transpose is one transpose, reshape of reshape one reshape; what changes nothing goes."""
    rewriter = Rewriter(graph)
    producers: dict[Value, Node] = {}
    for node in graph.nodes:
        rewriter.builder.origin = node.origin
        new = _joined(rewriter, node, producers)
        if new is not None:
            rewriter.replaced[node.output] = new
            if rewriter.builder.nodes and rewriter.builder.nodes[-1].output is new:
                producers[new] = rewriter.builder.nodes[-1]
            continue
        kept = rewriter.keep(node)
        producers.update(dict.fromkeys(kept.outputs, kept))
    return rewriter.finish()


def _joined(rewriter: Rewriter, node: Node, producers: dict[Value, Node]) -> Value | None:
    if not isinstance(node.op, Transpose | Reshape):
        return None
    source = rewriter.new(next(node.operands()))
    before = producers.get(source)
    if isinstance(node.op, Transpose):
        order = node.op.permutation
        if before is not None and isinstance(before.op, Transpose):
            source = rewriter.new(next(before.operands()))
            inner = before.op.permutation
            order = tuple(inner[axis] for axis in order)
        if order == tuple(range(len(order))):
            return source
        long = [axis for axis in order if source.shape[axis] != 1]
        if long == sorted(long):
            return rewriter.builder.emit(Reshape(tuple(source.shape[axis] for axis in order)), source)
        return None if order == node.op.permutation else rewriter.builder.emit(Transpose(order), source)
    if before is not None and isinstance(before.op, Reshape):
        source = rewriter.new(next(before.operands()))
    if source.shape == node.output.shape:
        return source
    if source is rewriter.new(next(node.operands())):
        return None
    return rewriter.builder.emit(node.op, source)
