"""Reading and writing elements by position: Gather*, Scatter*, TensorScatter, NonZero, Compress."""

from __future__ import annotations

import numpy as np

from onnxsmith_compiler.ir import dim as dims
from onnxsmith_compiler.ir import dtype as dtypes
from onnxsmith_compiler.ir.graph import Value
from onnxsmith_compiler.onnx.node_import import NodeImport
from onnxsmith_compiler.ops.base import normalize_axis
from onnxsmith_compiler.ops.gather import Gather, GatherElements, GatherND
from onnxsmith_compiler.ops.scatter import (
    CachePositions,
    ElementPositions,
    ScatterElements,
    ScatterSlices,
    SlicePositions,
)
from onnxsmith_compiler.ops.selection import CountNonzero, FindNonzero, Unravel
from onnxsmith_compiler.ops.view import Slice


def gather(node: NodeImport) -> Value:
    data = node.input(0)
    return node.emit(Gather(normalize_axis(node.int("axis", 0), data.rank)), data, node.input(1))


def gather_elements(node: NodeImport) -> Value:
    data = node.input(0)
    return node.emit(GatherElements(normalize_axis(node.int("axis", 0), data.rank)), data, node.input(1))


def gather_nd(node: NodeImport) -> Value:
    return node.emit(GatherND(node.int("batch_dims", 0)), node.input(0), node.input(1))


def scatter_elements(node: NodeImport) -> Value:
    data, indices, updates = (node.input(position) for position in range(3))
    axis = normalize_axis(node.int("axis", 0), data.rank)
    places = node.emit(ElementPositions(axis, data.shape), indices)
    return node.emit(ScatterElements(axis, node.string("reduction", "none")), data, places, updates)


def scatter_nd(node: NodeImport) -> Value:
    data, indices, updates = (node.input(position) for position in range(3))
    places = node.emit(SlicePositions(data.shape), indices)
    return node.emit(ScatterSlices(node.string("reduction", "none")), data, places, updates)


def tensor_scatter(node: NodeImport) -> Value:
    """Without positions, updates begin at 0."""
    cache, update, starts = node.input(0), node.input(1), node.optional(2)
    axis, mode = normalize_axis(node.int("axis", -2), cache.rank), node.string("mode", "linear")
    if mode not in ("linear", "circular"):
        raise node.invalid(f"mode '{mode}' is unknown: expected linear or circular")
    if starts is None:
        starts = node.expand(node.constant(0, dtypes.INT64), (cache.shape[0],))
    if cache.dtype is not update.dtype or cache.rank != update.rank:
        raise node.invalid(f"the cache is {cache.type}, the update {update.type}: expected one type and rank")
    places = node.emit(CachePositions(axis, mode == "circular", cache.shape, update.shape[axis]), starts)
    return node.emit(ScatterSlices("none"), cache, places, update)


def nonzero(node: NodeImport) -> Value:
    """The indices of the nonzero elements, [rank, count]; of a 0-d tensor, [0, count]."""
    x = node.input(0)
    found = find_nonzero(node, x)
    if not x.shape:
        return node.expand(node.constant(np.zeros((0, 1)), dtypes.INT64), (0, *found.shape))
    return node.emit(Unravel(x.shape), found)


def find_nonzero(node: NodeImport, x: Value) -> Value:
    """The row-major offsets of the nonzero elements of `x`, [count]."""
    total, starts = node.emit_all(CountNonzero(), x)
    return node.emit(FindNonzero(node.builder.late_symbol(total, signed=False)), x, starts)


def compress(node: NodeImport) -> Value:
    """The slices of data along `axis`, without one its elements, where the condition is true; it may be shorter."""
    data, condition = node.input(0), node.input(1)
    axis = 0
    if node.attribute("axis") is None:
        data = node.reshape(data, (data.type.size,))
    else:
        axis = normalize_axis(node.int("axis"), data.rank)
    (length,) = condition.shape
    size = dims.minimum(length, data.shape[axis])
    if size != length:
        condition = node.emit(Slice((0,), (1,), (size,)), condition)
    return node.emit(Gather(axis), data, find_nonzero(node, condition))
