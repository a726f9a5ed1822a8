"""Order and selection along an axis: TopK, Unique, CumSum, CumProd, NonMaxSuppression."""

from __future__ import annotations

from onnxsmith_compiler.ir import dim as dims
from onnxsmith_compiler.ir import dtype as dtypes
from onnxsmith_compiler.ir.dim import Dim
from onnxsmith_compiler.ir.graph import Value
from onnxsmith_compiler.onnx.importers.runtime_axes import checked_sizes, one_size
from onnxsmith_compiler.onnx.node_import import Importer, NodeImport
from onnxsmith_compiler.ops.base import normalize_axis
from onnxsmith_compiler.ops.checked_sizes import AxisSizes
from onnxsmith_compiler.ops.gather import Gather
from onnxsmith_compiler.ops.selection import ListBoxes, SuppressBoxes
from onnxsmith_compiler.ops.sorting import Cumulate, TopK, UniqueItems, around
from onnxsmith_compiler.ops.view import Slice


def top_k(node: NodeImport) -> tuple[Value, ...]:
    """Best first whatever `sorted` says, which then leaves the order open."""
    x = node.input(0)
    k: Dim = node.int("k") if node.version < 10 else one_size(node, node.input(1), "K")
    axis = normalize_axis(node.int("axis", -1), x.rank)
    return node.emit_all(TopK(k, axis, node.flag("largest", True)), x)


def unique(node: NodeImport) -> tuple[Value, ...]:
    x = node.input(0)
    if node.attribute("axis") is None:
        x, axis = node.reshape(x, (x.type.size,)), 0
    else:
        axis = normalize_axis(node.int("axis"), x.rank)
    total, first, inverse, counts = node.emit_all(UniqueItems(axis, node.flag("sorted", True)), x)
    size = node.builder.late_symbol(total, signed=False)
    first, counts = (node.emit(Slice((0,), (1,), (size,)), value) for value in (first, counts))
    return node.emit(Gather(axis), x, first), first, inverse, counts


def cumulative(kind: str) -> Importer:
    def run(node: NodeImport) -> Value:
        x, axis = node.input(0), node.reshape(node.input(1), ())
        if axis.known is not None:
            before, size, after = around(x.shape, normalize_axis(node.integers(axis, "axis")[0], x.rank))
        else:
            before, size, after = checked_sizes(node, node.emit(AxisSizes(), axis, node.sizes_constant(x.shape)))
        parts = (before, size, after)
        return node.emit(Cumulate(kind, parts, node.flag("exclusive"), node.flag("reverse")), x)

    return run


def non_max_suppression(node: NodeImport) -> Value:
    boxes, scores, most = node.input(0), node.input(1), node.optional(2)
    limit: Dim = 0 if most is None else one_size(node, most, "max_output_boxes_per_class")
    overlap = node.optional(3)
    if overlap is None:
        overlap = node.constant(0, dtypes.FLOAT32)
    op = SuppressBoxes(dims.maximum(0, limit), node.flag("center_point_box"))
    total, chosen, counts, starts = node.emit_all(op, boxes, scores, overlap, node.optional(4))
    size = node.builder.late_symbol(total, signed=False)
    return node.emit(ListBoxes(size, scores.shape[1]), chosen, counts, starts)
