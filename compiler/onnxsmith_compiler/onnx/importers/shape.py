"""Shapes and views: Shape, Size, Reshape, Flatten, Squeeze, Unsqueeze, Transpose, Expand, Slice, Split, Concat, ..."""

from __future__ import annotations

from typing import TypeAlias

import numpy as np

from onnxsmith_compiler.ir import dim as dims
from onnxsmith_compiler.ir import dtype as dtypes
from onnxsmith_compiler.ir.atom import Symbol
from onnxsmith_compiler.ir.bounds import is_nonnegative
from onnxsmith_compiler.ir.dim import Dim
from onnxsmith_compiler.ir.graph import Value
from onnxsmith_compiler.ir.polynomial import all_atoms
from onnxsmith_compiler.onnx.importers.runtime_axes import RuntimeAxes, checked_sizes, known_axes, runtime_axes
from onnxsmith_compiler.onnx.node_import import NodeImport
from onnxsmith_compiler.ops.base import normalize_axis
from onnxsmith_compiler.ops.checked_sizes import ReshapeSizes, SliceBounds, SplitSizes
from onnxsmith_compiler.ops.view import Concat, Slice

Bounds: TypeAlias = tuple[Dim, Dim, Dim]

_FAR = 2**31 - 1
"""Slice positions from here on stand for an end of the axis, whatever its size; no axis is longer than such a step."""


def shape(node: NodeImport) -> Value:
    sizes = node.input(0).shape
    start, end = node.int("start", 0), node.int("end", len(sizes))
    return node.sizes_constant(sizes[slice(start, end)])


def size(node: NodeImport) -> Value:
    return node.sizes_constant([node.input(0).type.size], ())


def reshape(node: NodeImport) -> Value:
    x = node.input(0)
    old = node.version < 5
    wanted = list[Dim](node.ints("shape") or []) if old else node.sizes(node.input(1), "shape")
    if any(_is_signed(size) for size in wanted):
        return _reshape_at_run_time(node, x, wanted)
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
    return node.reshape(x, tuple(wanted))


def _is_signed(size: Dim) -> bool:
    """Whether it is made of elements of a tensor, of which nothing is known."""
    return any(isinstance(atom, Symbol) and atom.signed for atom in all_atoms(size))


def _reshape_at_run_time(node: NodeImport, x: Value, wanted: list[Dim]) -> Value:
    op = ReshapeSizes(node.flag("allowzero"))
    resolved = checked_sizes(node, node.emit(op, node.input(1), node.sizes_constant(x.shape)))
    shape = [
        late if _is_signed(size) or (isinstance(size, int) and size <= 0) else size
        for size, late in zip(wanted, resolved, strict=True)
    ]
    return node.reshape(x, tuple(shape))


def flatten(node: NodeImport) -> Value:
    x = node.input(0)
    axis = node.int("axis", 1)
    axis = axis + x.rank if axis < 0 else axis
    return node.reshape(x, (dims.product(x.shape[:axis]), dims.product(x.shape[axis:])))


def squeeze(node: NodeImport) -> Value:
    x, late = node.input(0), runtime_axes(node)
    if late is not None:
        return RuntimeAxes.read(node, late, x.rank).drop(node, x)
    axes = known_axes(node)
    if axes is None:
        return node.squeeze(x, [axis for axis, size in enumerate(x.shape) if size == 1])
    chosen = [normalize_axis(axis, x.rank) for axis in axes]
    for axis in chosen:
        if isinstance(x.shape[axis], int) and x.shape[axis] != 1:
            raise node.invalid(f"axis {axis} has size {x.shape[axis]} and cannot be squeezed: expected 1")
    return node.squeeze(x, chosen)


def unsqueeze(node: NodeImport) -> Value:
    x, late = node.input(0), runtime_axes(node)
    if late is not None:
        count = late.type.size
        if not isinstance(count, int):
            raise node.unsupported("the number of axes, so the result's rank, is known only when the model runs")
        return RuntimeAxes.read(node, late, x.rank + count).insert(node, x)
    axes = known_axes(node) or []
    chosen = [normalize_axis(axis, x.rank + len(axes)) for axis in axes]
    if len(set(chosen)) < len(chosen):
        raise node.invalid(f"axes {axes} name one axis twice")
    return node.unsqueeze(x, chosen)


def transpose(node: NodeImport) -> Value:
    x = node.input(0)
    return node.transpose(x, node.ints("perm") or list(range(x.rank))[::-1])


def expand(node: NodeImport) -> Value:
    x = node.input(0)
    wanted = node.sizes(node.input(1), "shape")
    rank = max(x.rank, len(wanted))
    have = [1] * (rank - x.rank) + list(x.shape)
    want = [1] * (rank - len(wanted)) + wanted
    for axis, (size, other) in enumerate(zip(have, want, strict=True)):
        if isinstance(size, int) and isinstance(other, int) and size != other and 1 not in (size, other):
            raise node.invalid(f"axis {axis} has size {size} and cannot be expanded to {other}")
    return node.expand(x, tuple(map(dims.broadcast, have, want)))


def concat(node: NodeImport) -> Value:
    values = [value for value in node.inputs if value is not None]
    if len(values) == 1:
        return values[0]
    return node.emit(Concat(normalize_axis(node.int("axis", 1), values[0].rank)), *values)


def slice_(node: NodeImport) -> Value:
    x = node.input(0)
    if node.version < 10:
        starts, ends = list[Dim](node.ints("starts") or []), list[Dim](node.ints("ends") or [])
        axes, steps = node.ints("axes"), None
    else:
        if any(runtime_axes(node, position) is not None for position in (3, 4)):
            return _slice_at_run_time(node)
        starts, ends = node.sizes(node.input(1), "starts"), node.sizes(node.input(2), "ends")
        given, strides = node.optional(3), node.optional(4)
        axes = None if given is None else node.integers(given, "axes")
        steps = None if strides is None else node.integers(strides, "steps")
    axes = list(range(len(starts))) if axes is None else axes
    steps = [1] * len(starts) if steps is None else steps
    if 0 in steps:
        raise node.invalid("a step of 0")
    whole = [slice_bounds(0, extent, 1, extent) for extent in x.shape]
    for axis, start, end, step in zip(axes, starts, ends, steps, strict=True):
        axis = normalize_axis(axis, x.rank)
        whole[axis] = slice_bounds(start, end, step, x.shape[axis])
    return take(node, x, whole)


def _slice_at_run_time(node: NodeImport) -> Value:
    """A slice whose axes or steps only a run knows."""
    x, starts, ends = node.input(0), node.input(1), node.input(2)
    count = starts.type.size
    if not isinstance(count, int):
        raise node.unsupported("the number of axes to slice is known only when the model runs")
    axes, steps = node.optional(3), node.optional(4)
    axes = axes if axes is not None else node.constant(range(count), dtypes.INT64)
    steps = steps if steps is not None else node.constant([1] * count, dtypes.INT64)
    bounds = node.emit(SliceBounds(), starts, ends, axes, steps, node.sizes_constant(x.shape))
    numbers = [
        node.builder.late_symbol(bounds, number, signed=number % 3 == 1)  # a step may be negative
        for number in range(3 * x.rank)
    ]
    return take(node, x, list(zip(numbers[::3], numbers[1::3], numbers[2::3], strict=True)))


def take(node: NodeImport, x: Value, bounds: list[Bounds]) -> Value:
    """x at (start, step, size) along every axis."""
    starts, steps, sizes = (tuple(column) for column in zip(*bounds, strict=True)) if bounds else ((), (), ())
    if sizes == x.shape and all(start == 0 for start in starts) and all(step == 1 for step in steps):
        return x
    return node.emit(Slice(starts, steps, sizes), x)


def slice_bounds(start: Dim, end: Dim, step: int, extent: Dim) -> Bounds:
    """(first position, step, number of positions) of a slice clamped to an axis of `extent`."""
    step = max(-_FAR, min(step, _FAR))
    backwards = int(step < 0)
    first = _clamp(_from_end(start, extent), 0, extent - backwards)
    last = _clamp(_from_end(end, extent), -backwards, extent - backwards)
    return first, step, dims.maximum(0, dims.ceildiv(last - first, step))


def _from_end(position: Dim, extent: Dim) -> Dim:
    if isinstance(position, int):
        return position + extent if -_FAR < position < 0 else position
    if is_nonnegative(position):
        return position
    position = dims.maximum(position, -(1 << 62))  # so that its negation does not overflow
    negative = dims.maximum(0, dims.minimum(1, -position))
    return position + negative * extent


def _clamp(position: Dim, low: Dim, high: Dim) -> Dim:
    """`high` where high < low, which is so for an axis of size 0 that is walked backwards."""
    if isinstance(position, int) and abs(position) >= _FAR:
        return high if position > 0 else dims.minimum(low, high)
    return dims.minimum(dims.maximum(low, position), high)


def split(node: NodeImport) -> list[Value | None]:
    x = node.input(0)
    axis = normalize_axis(node.int("axis", 0), x.rank)
    results: list[Value | None] = []
    start: Dim = 0
    for length in _split_sizes(node, x.shape[axis]):
        bounds: list[Bounds] = [(0, 1, extent) for extent in x.shape]
        bounds[axis] = (start, 1, length)
        results.append(take(node, x, bounds))
        start = start + length
    return results


def _split_sizes(node: NodeImport, extent: Dim) -> list[Dim]:
    given, attribute = node.optional(1), node.ints("split")
    if given is None and not attribute:
        outputs = len(node.node.outputs)
        count = node.int("num_outputs", outputs)
        if count != outputs:
            raise node.invalid(f"num_outputs is {count} and the node has {outputs} outputs: expected the same")
        part = dims.ceildiv(extent, count)
        return [dims.maximum(0, dims.minimum(part, extent - part * number)) for number in range(count)]
    sizes = list[Dim](attribute or []) if given is None else node.sizes(given, "split")
    if given is not None and any(_is_signed(size) for size in sizes):
        return list(checked_sizes(node, node.emit(SplitSizes(extent), given)))
    total: Dim = 0
    for size in sizes:
        total = total + size
    is_wrong = isinstance(total - extent, int) and total != extent
    if is_wrong or any(isinstance(size, int) and size < 0 for size in sizes):
        raise node.invalid(f"the split sizes {sizes} do not add up to the dimension, {extent}")
    node.builder.assume(total, extent)
    return sizes


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
