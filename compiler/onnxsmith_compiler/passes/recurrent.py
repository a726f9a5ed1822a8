"""Gives every recurrent layer the packed weights and the tiling that its kernel wants."""

from __future__ import annotations

from collections.abc import Callable

from onnxsmith_compiler.ir.dim import Dim
from onnxsmith_compiler.ir.dtype import DType
from onnxsmith_compiler.ir.graph import Graph, Node
from onnxsmith_compiler.ops.recurrent import Cell, PackedRecurrence, Recurrence, RecurrenceTiling, pack_recurrent
from onnxsmith_compiler.passes.rewrite import Rewriter

ChooseTiling = Callable[[DType, Cell, Dim], RecurrenceTiling]
"""The tiling for a type, a cell and a number of hidden units."""


def pack_recurrences(graph: Graph, choose: ChooseTiling) -> Graph:
    rewriter = Rewriter(graph)
    for node in graph.nodes:
        rewriter.builder.origin = node.origin
        if type(node.op) is Recurrence:
            _pack(rewriter, node, node.op, choose)
        else:
            rewriter.keep(node)
    return rewriter.finish()


def _pack(rewriter: Rewriter, node: Node, op: Recurrence, choose: ChooseTiling) -> None:
    gates, weights, *rest = (None if value is None else rewriter.new(value) for value in node.inputs)
    assert gates is not None and weights is not None
    tiling = choose(gates.dtype, op.cell, op.hidden)
    panels = [*pack_recurrent(rewriter.builder, weights, op, tiling.columns), None][:2]
    packed = PackedRecurrence(op.cell, op.hidden, op.directions, op.backward_from, op.batch_first, tiling)
    outputs = rewriter.builder.emit_all(packed, gates, *panels, *rest, names=[v.name for v in node.outputs])
    rewriter.replaced.update(zip(node.outputs, outputs, strict=False))
