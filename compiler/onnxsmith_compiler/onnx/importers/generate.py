"""Tensors made of positions: Range, EyeLike, Trilu, OneHot."""

from __future__ import annotations

import numpy as np

from onnxsmith_compiler.ir import dim as dims
from onnxsmith_compiler.ir import dtype as dtypes
from onnxsmith_compiler.ir.dim import Dim
from onnxsmith_compiler.ir.graph import Value
from onnxsmith_compiler.onnx.importers.runtime_axes import one_size
from onnxsmith_compiler.onnx.importers.shape import take
from onnxsmith_compiler.onnx.node_import import NodeImport
from onnxsmith_compiler.ops.builder import KNOWN_LIMIT
from onnxsmith_compiler.ops.view import Iota


def range_(node: NodeImport) -> Value:
    """numpy.arange(start, limit, delta); an element is start + number * delta."""
    start, limit, delta = (node.reshape(node.input(position), ()) for position in range(3))
    count = _count(node, start, limit, delta)
    if isinstance(count, int) and count <= KNOWN_LIMIT and all(v.data is not None for v in (start, delta)):
        assert start.data is not None and delta.data is not None
        return node.constant(start.data + np.arange(count) * delta.data, start.dtype)
    number = node.cast(node.emit(Iota((count,), 0)), start.dtype)
    return node.add(node.mul(number, delta), start)


def _count(node: NodeImport, start: Value, limit: Value, delta: Value) -> Dim:
    """max(0, ceil((limit - start) / delta))"""
    if start.dtype.is_integer:
        first, last, step = (one_size(node, value, "a limit") for value in (start, limit, delta))
        if step == 0:
            raise node.invalid("a delta of 0")
        forwards = not (isinstance(step, int) and step < 0)
        distance = last - first if forwards else first - last
        return dims.maximum(0, dims.ceildiv(distance, step if forwards else -step))
    wide = node.cast(node.sub(limit, start), dtypes.FLOAT64)
    steps = node.map("ceil", node.div(wide, node.cast(delta, dtypes.FLOAT64)))
    count = node.cast(node.map("max", steps, 0.0), dtypes.INT64)
    if count.data is not None:
        return int(count.data)
    return node.builder.late_symbol(count, signed=False)


def eye_like(node: NodeImport) -> Value:
    """1 where column - row is k, else 0, in the shape of the input."""
    shape = node.input(0).shape
    if len(shape) != 2:
        raise node.invalid(f"the input has {len(shape)} axes: expected 2")
    dtype = node.dtype("dtype", node.input(0).dtype)
    return node.cast(node.map("eq", _column_less_row(node, *shape), node.int("k", 0)), dtype)


def _column_less_row(node: NodeImport, rows: Dim, columns: Dim) -> Value:
    return node.sub(node.emit(Iota((1, columns), 1)), node.emit(Iota((rows, 1), 0)))


def trilu(node: NodeImport) -> Value:
    """The elements on and above (or, with upper = 0, below) diagonal k, zeros elsewhere."""
    x, k = node.input(0), node.optional(1)
    if x.rank < 2:
        raise node.invalid(f"the input has {x.rank} axes: expected at least 2")
    diagonal = node.constant(0, dtypes.INT64) if k is None else node.reshape(k, ())
    inside = "ge" if node.flag("upper", True) else "le"
    mask = node.map(inside, _column_less_row(node, *x.shape[-2:]), diagonal)
    return node.select(mask, x, node.constant(0, x.dtype))


def one_hot(node: NodeImport) -> Value:
    """values[1] where the position along a new axis is the index, which may count from the end, else values[0]."""
    indices, values = node.input(0), node.input(2)
    axis = node.int("axis", -1)
    axis += indices.rank + 1 if axis < 0 else 0
    depth = node.reshape(node.cast(node.input(1), dtypes.INT64), ())
    size = one_size(node, depth, "depth")
    positions = node.cast(indices, dtypes.INT64)
    positions = node.select(node.map("lt", positions, 0), node.add(positions, depth), positions)
    numbers = node.emit(Iota((size, *(1 for _ in indices.shape[axis:])), 0))
    hot = node.map("eq", node.unsqueeze(positions, [axis]), numbers)
    off, on = (node.reshape(take(node, values, [(number, 1, 1)]), ()) for number in range(2))
    return node.select(hot, on, off)
