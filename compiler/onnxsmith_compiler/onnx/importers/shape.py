"""Shapes and views: Shape, Size, Reshape, Flatten, Squeeze, Unsqueeze, Transpose, Expand, Slice, Split, Concat, ..."""

from __future__ import annotations

import numpy as np

from onnxsmith_compiler.ir import dim as dims
from onnxsmith_compiler.ir import dtype as dtypes
from onnxsmith_compiler.ir.dim import Dim
from onnxsmith_compiler.ir.graph import Value
from onnxsmith_compiler.onnx.node_import import NodeImport
from onnxsmith_compiler.ops.base import broadcast_shapes, normalize_axis
from onnxsmith_compiler.ops.view import Concat, Slice


def shape(node: NodeImport) -> Value:
    sizes = node.input(0).shape
    start, end = node.int("start", 0), node.int("end", len(sizes))
    return node.sizes_constant(sizes[slice(start, end)])


def size(node: NodeImport) -> Value:
    return node.sizes_constant([node.input(0).type.size], ())


def reshape(node: NodeImport) -> Value:
    x = node.input(0)
    wanted: list[Dim] = list(node.ints("shape") or []) if node.version < 5 else node.sizes(node.input(1), "shape")
    if not node.flag("allowzero"):
        wanted = [x.shape[axis] if size == 0 and axis < x.rank else size for axis, size in enumerate(wanted)]
    if -1 in wanted:
        position = wanted.index(-1)
        others = dims.product(size for size in wanted if not (isinstance(size, int) and size == -1))
        if others == 0:
            wanted[position] = 0
        else:
            exact = dims.exact_quotient(x.type.size, others)
            wanted[position] = exact if exact is not None else dims.floordiv(x.type.size, others)
    elif any(isinstance(size, dims.Poly) and _may_be_negative(size) for size in wanted):
        wanted = _resolve_at_run_time(x, wanted)
    return node.reshape(x, tuple(wanted))


def _may_be_negative(size: Dim) -> bool:
    return any(name.startswith("?late") for name in dims.symbols_of(size))


def _resolve_at_run_time(x: Value, wanted: list[Dim]) -> list[Dim]:
    """Sizes that only a run knows may be -1 (the rest) or 0 (copied); both are arithmetic on the symbols.

    With p the product of the sizes, -1 among them makes it minus the product of the others.
    """
    copied = []
    for axis, size in enumerate(wanted):
        if isinstance(size, int) or axis >= x.rank:
            copied.append(size)
        else:
            is_zero = dims.maximum(0, 1 - dims.maximum(size, -size))
            copied.append(size + is_zero * x.shape[axis])
    whole = dims.product(copied)
    rest = dims.floordiv(x.type.size, dims.maximum(1, -whole))
    return [size if isinstance(size, int) else size + dims.maximum(0, -size) * (rest + 1) for size in copied]


def flatten(node: NodeImport) -> Value:
    x = node.input(0)
    axis = node.int("axis", 1)
    axis = axis + x.rank if axis < 0 else axis
    return node.reshape(x, (dims.product(x.shape[:axis]), dims.product(x.shape[axis:])))


def _axes_argument(node: NodeImport) -> list[int] | None:
    given = node.optional(1)
    return node.ints("axes") if given is None else node.integers(given, "axes")


def squeeze(node: NodeImport) -> Value:
    x, axes = node.input(0), _axes_argument(node)
    if axes is None:
        return node.squeeze(x, [axis for axis, size in enumerate(x.shape) if size == 1])
    return node.squeeze(x, [normalize_axis(axis, x.rank) for axis in axes])


def unsqueeze(node: NodeImport) -> Value:
    x, axes = node.input(0), _axes_argument(node) or []
    return node.unsqueeze(x, [normalize_axis(axis, x.rank + len(axes)) for axis in axes])


def transpose(node: NodeImport) -> Value:
    x = node.input(0)
    return node.transpose(x, node.ints("perm") or list(range(x.rank))[::-1])


def expand(node: NodeImport) -> Value:
    x = node.input(0)
    return node.expand(x, broadcast_shapes([x.shape, tuple(node.sizes(node.input(1), "shape"))]))


def concat(node: NodeImport) -> Value:
    values = [value for value in node.inputs if value is not None]
    if len(values) == 1:
        return values[0]
    return node.emit(Concat(normalize_axis(node.int("axis", 1), values[0].rank)), *values)


def slice_(node: NodeImport) -> Value:
    x = node.input(0)
    starts: list[Dim]
    ends: list[Dim]
    if node.version < 10:
        starts, ends = list(node.ints("starts") or []), list(node.ints("ends") or [])
        axes, steps = node.ints("axes"), None
    else:
        starts, ends = node.sizes(node.input(1), "starts"), node.sizes(node.input(2), "ends")
        given, strides = node.optional(3), node.optional(4)
        axes = None if given is None else node.integers(given, "axes")
        steps = None if strides is None else node.integers(strides, "steps")
    axes = list(range(len(starts))) if axes is None else [normalize_axis(axis, x.rank) for axis in axes]
    steps = [1] * len(starts) if steps is None else steps
    whole = [slice_bounds(0, extent, 1, extent) for extent in x.shape]
    for axis, start, end, step in zip(axes, starts, ends, steps, strict=True):
        if step == 0:
            raise node.invalid("a step of 0")
        whole[axis] = slice_bounds(start, end, step, x.shape[axis])
    return take(node, x, whole)


def take(node: NodeImport, x: Value, bounds: list[tuple[Dim, int, Dim]]) -> Value:
    """x at (start, step, size) along every axis."""
    starts, steps, sizes = (tuple(column) for column in zip(*bounds, strict=True)) if bounds else ((), (), ())
    if sizes == x.shape and all(start == 0 for start in starts) and all(step == 1 for step in steps):
        return x
    return node.emit(Slice(starts, steps, sizes), x)


def slice_bounds(start: Dim, end: Dim, step: int, extent: Dim) -> tuple[Dim, int, Dim]:
    """(first position, step, number of positions) of a slice clamped to an axis of `extent`."""
    start, end = _from_end(start, extent), _from_end(end, extent)
    if step > 0:
        start = _clamp(start, 0, extent)
        end = _clamp(end, 0, extent)
        return start, step, dims.maximum(0, dims.ceildiv(end - start, step))
    start = _clamp(start, -1 if extent == 0 else 0, extent - 1)
    end = _clamp(end, -1, extent - 1)
    return start, step, dims.maximum(0, dims.ceildiv(start - end, -step))


def _from_end(position: Dim, extent: Dim) -> Dim:
    if isinstance(position, int):
        return position + extent if position < 0 else position
    if dims.is_nonnegative(position) and not _may_be_negative(position):
        return position
    negative = dims.maximum(0, dims.minimum(1, -position))
    return position + negative * extent


def _clamp(position: Dim, low: Dim, high: Dim) -> Dim:
    if isinstance(position, int) and position >= 2**31 - 1:
        return high
    return dims.maximum(low, dims.minimum(position, high))


def split(node: NodeImport) -> list[Value | None]:
    x = node.input(0)
    axis = normalize_axis(node.int("axis", 0), x.rank)
    given = node.optional(1)
    sizes: list[Dim]
    if given is not None:
        sizes = node.sizes(given, "split")
    elif node.ints("split"):
        sizes = list(node.ints("split") or [])
    else:
        count = node.int("num_outputs", len(node.node.outputs))
        part = dims.ceildiv(x.shape[axis], count)
        sizes = [part] * (count - 1) + [x.shape[axis] - part * (count - 1)]
    results: list[Value | None] = []
    start: Dim = 0
    for length in sizes:
        bounds: list[tuple[Dim, int, Dim]] = [(0, 1, extent) for extent in x.shape]
        bounds[axis] = (start, 1, length)
        results.append(take(node, x, bounds))
        start = start + length
    return results


def constant(node: NodeImport) -> Value:
    attributes = node.node.attributes
    for name, dtype in (("value_float", dtypes.FLOAT32), ("value_floats", dtypes.FLOAT32),
                        ("value_int", dtypes.INT64), ("value_ints", dtypes.INT64)):  # fmt: skip
        if name in attributes:
            return node.constant(attributes[name], dtype)
    value = attributes.get("value", attributes.get("sparse_value"))
    if isinstance(value, np.ndarray):
        return node.builder.constant(value)
    if value is not None and hasattr(value, "to_dense"):
        return node.builder.constant(value.to_dense())
    raise node.unsupported(f"a constant given as {', '.join(attributes) or 'nothing'}")


def constant_of_shape(node: NodeImport) -> Value:
    value = node.attribute("value")
    fill = np.zeros(1, np.float32) if value is None else np.asarray(value)
    return node.expand(node.builder.constant(fill.reshape(())), tuple(node.sizes(node.input(0), "shape")))
