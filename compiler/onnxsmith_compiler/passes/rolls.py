"""Finds rolled axes, which are exported as two slices put together the other way round, and makes views of them."""

from __future__ import annotations

from collections.abc import Mapping

from onnxsmith_compiler.ir.graph import Graph, Node, Value
from onnxsmith_compiler.ops.view import Concat, Pad, Slice
from onnxsmith_compiler.passes.rewrite import Rewriter, rewrite_nodes


def view_rolls(graph: Graph) -> Graph:
    """concat(x[s:], x[:s]) along any axis but the last, whose elements are read one after another, as one index map."""
    producers = graph.producers()

    def rewrite(rewriter: Rewriter, node: Node) -> Value | None:
        if not isinstance(node.op, Concat) or len(node.inputs) != 2 or node.op.axis == node.output.rank - 1:
            return None
        axis = node.op.axis
        parts = [_part(value, axis, producers) for value in node.operands()]
        if None in parts:
            return None
        (source, start, size), (other, first, rest) = parts  # type: ignore[misc]
        whole = source.shape[axis]
        if source is not other or first != 0 or rest != start or start + size != whole or not isinstance(whole, int):
            return None
        # element i is x[i - size], or where that lies before the first element, one turn further on
        none = (0,) * source.rank
        before = (*none[:axis], size, *none[axis + 1 :])
        turned = rewriter.builder.emit(Pad(before, none, "wrap"), rewriter.new(source))
        return rewriter.builder.emit(Slice(none, (1,) * source.rank, source.shape), turned)

    return rewrite_nodes(graph, rewrite)


def _part(value: Value, axis: int, producers: Mapping[Value, Node]) -> tuple[Value, int, int] | None:
    """(x, start, size) where `value` is x[start : start + size] along `axis`, and all of x along the others."""
    node = producers.get(value)
    if node is None or not isinstance(node.op, Slice):
        return None
    source, op = next(node.operands()), node.op
    for number, (start, step, size, extent) in enumerate(zip(op.starts, op.steps, op.sizes, source.shape, strict=True)):
        if step != 1 or (number != axis and (start != 0 or size != extent)):
            return None
    start, size = op.starts[axis], op.sizes[axis]
    return (source, start, size) if isinstance(start, int) and isinstance(size, int) else None
