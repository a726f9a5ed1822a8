"""Operators that move elements and compute none: each is an index map, composed with its neighbours' by fusion."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from onnxsmith_compiler.ir import dim as dims
from onnxsmith_compiler.ir import dtype as dtypes
from onnxsmith_compiler.ir import loop
from onnxsmith_compiler.ir.dim import Dim
from onnxsmith_compiler.ir.graph import Node, Relation, TensorType, Value
from onnxsmith_compiler.ops.arrays import reshaped
from onnxsmith_compiler.ops.base import Op, Shape, ShapeError, SizePair, Types, required
from onnxsmith_compiler.ops.lowering import Pieces


@dataclass(frozen=True)
class Reshape(Op):
    """The same elements in row-major order in another shape; free where the tensor is in memory."""

    folds_to_known: ClassVar[bool] = True
    only_moves: ClassVar[bool] = True
    shape: Shape

    def infer(self, inputs: Types) -> tuple[TensorType, ...]:
        source = required(inputs, 0)
        before, after = source.size, dims.product(self.shape)
        if isinstance(before, int) and isinstance(after, int) and before != after:
            raise ShapeError(f"{before} elements of shape {list(source.shape)} do not fill {list(self.shape)}")
        return (TensorType(source.dtype, self.shape),)

    def assumes(self, inputs: Types) -> Iterable[SizePair]:
        yield required(inputs, 0).size, dims.product(self.shape), Relation.EQUAL

    def lower(self, node: Node) -> loop.Computation:
        (source,) = node.operands()
        axes = loop.axes_for(self.shape)
        index = reshape_index(self.shape, source.shape, loop.index_of(axes))
        return loop.Computation(axes, loop.load(source, index))

    def evaluate(
        self, inputs: Sequence[np.ndarray | None], types: Sequence[TensorType]
    ) -> tuple[np.ndarray, ...] | None:
        assert inputs[0] is not None
        return (reshaped(inputs[0], self.shape),)  # type: ignore[arg-type]


def reshape_index(shape: Shape, source_shape: Shape, index: loop.Index) -> loop.Index:
    """Where element `index` of a tensor of `shape` stands in `source_shape`, both row-major over the same elements.

    Dimensions are matched in groups of equal size from the right, so that only real splits and merges
    cost a division.
    """
    result: list[Dim] = []
    here, there = len(shape), len(source_shape)
    while here or there:
        size: Dim = 1
        source_size: Dim = 1
        end, source_end = here, there
        while True:
            if here and (end == here or not _covers(source_size, size)):
                here -= 1
                size = size * shape[here]
            elif there:
                there -= 1
                source_size = source_size * source_shape[there]
            else:
                break
            if size == source_size and (end > here or here == 0) and (source_end > there or there == 0):
                break
            if not here and not there:
                break
        offset = loop.linear_offset(shape[here:end], index[here:end])
        result[:0] = delinearize(offset, source_shape[there:source_end])
    return tuple(result)


def _covers(small: Dim, large: Dim) -> bool:
    """Whether the group on the left still lacks elements, so that it must take its next dimension."""
    return dims.exact_quotient(large, small) is not None and small != large


def delinearize(offset: Dim, shape: Shape) -> list[Dim]:
    """The row-major index of element `offset` of a tensor of `shape`."""
    index: list[Dim] = []
    for position in range(len(shape) - 1, -1, -1):
        extent = shape[position]
        if extent == 1:
            index.append(0)
        elif position == 0 or all(size == 1 for size in shape[:position]):
            index.append(offset)
            offset = 0
        else:
            index.append(dims.modulo(offset, extent) if extent != 0 else 0)
            offset = dims.floordiv(offset, extent) if extent != 0 else 0
    return index[::-1]


@dataclass(frozen=True)
class Transpose(Op):
    """out[i] has the axes of the input in the order `permutation`, as numpy.transpose."""

    folds_to_known: ClassVar[bool] = True
    only_moves: ClassVar[bool] = True
    permutation: tuple[int, ...]

    def infer(self, inputs: Types) -> tuple[TensorType, ...]:
        source = required(inputs, 0)
        if sorted(self.permutation) != list(range(source.rank)):
            raise ShapeError(f"permutation {list(self.permutation)} does not order the {source.rank} axes")
        return (TensorType(source.dtype, tuple(source.shape[axis] for axis in self.permutation)),)

    def lower(self, node: Node) -> loop.Computation:
        (source,) = node.operands()
        axes = loop.axes_for(node.output.shape)
        index = loop.index_of(axes)
        origin: list[Dim] = [0] * source.rank
        for position, axis in enumerate(self.permutation):
            origin[axis] = index[position]
        return loop.Computation(axes, loop.load(source, tuple(origin)))

    def evaluate(
        self, inputs: Sequence[np.ndarray | None], types: Sequence[TensorType]
    ) -> tuple[np.ndarray, ...] | None:
        assert inputs[0] is not None
        return (inputs[0].transpose(self.permutation),)


@dataclass(frozen=True)
class Expand(Op):
    """Broadcast to `shape`, which must be what numpy's broadcast of both gives.

    A symbolic size that is not the one wanted may be 1 when the model runs.
    """

    folds_to_known: ClassVar[bool] = True
    shape: Shape

    def infer(self, inputs: Types) -> tuple[TensorType, ...]:
        return (TensorType(required(inputs, 0).dtype, self.shape),)

    def assumes(self, inputs: Types) -> Iterable[SizePair]:
        source = required(inputs, 0).shape
        for size, wide in zip(reversed(source), reversed(self.shape), strict=False):
            if size != 1:
                yield size, wide, Relation.BROADCAST

    def lower(self, node: Node) -> loop.Computation:
        (source,) = node.operands()
        axes = loop.axes_for(self.shape)
        tail = loop.index_of(axes)[len(axes) - source.rank :]
        sizes = zip(tail, source.shape, self.shape[len(axes) - source.rank :], strict=True)
        index = tuple(_broadcast_position(position, size, wanted) for position, size, wanted in sizes)
        return loop.Computation(axes, loop.load(source, index))

    def evaluate(
        self, inputs: Sequence[np.ndarray | None], types: Sequence[TensorType]
    ) -> tuple[np.ndarray, ...] | None:
        assert inputs[0] is not None
        sizes = [size for size in self.shape if isinstance(size, int)]
        if len(sizes) < len(self.shape) or int(np.prod(sizes)) > 65536:
            return None
        return (np.broadcast_to(inputs[0], sizes).copy(),)


def _broadcast_position(position: Dim, size: Dim, wanted: Dim) -> Dim:
    """The element of an axis of `size`, either 1 or `wanted`, that stands at `position` of one of `wanted`."""
    if size == 1:
        return 0
    return position if size == wanted else dims.minimum(position, size - 1)


@dataclass(frozen=True)
class Slice(Op):
    """out[i...] = in[start + i * step ...] along every axis; starts are absolute, steps may be negative.

    `sizes` is the output's shape. The importer has clamped all three to the input's shape.
    """

    folds_to_known: ClassVar[bool] = True
    starts: tuple[Dim, ...]
    steps: tuple[Dim, ...]
    sizes: Shape

    def permute_axes(self, order: Sequence[int]) -> Op:
        def pick(values: tuple[Dim, ...]) -> tuple[Dim, ...]:
            return tuple(values[axis] for axis in order)

        return Slice(pick(self.starts), pick(self.steps), pick(self.sizes))

    def infer(self, inputs: Types) -> tuple[TensorType, ...]:
        return (TensorType(required(inputs, 0).dtype, self.sizes),)

    def lower(self, node: Node) -> loop.Computation:
        (source,) = node.operands()
        axes = loop.axes_for(self.sizes)
        index = tuple(
            start + position * step
            for start, step, position in zip(self.starts, self.steps, loop.index_of(axes), strict=True)
        )
        return loop.Computation(axes, loop.load(source, index))

    def evaluate(
        self, inputs: Sequence[np.ndarray | None], types: Sequence[TensorType]
    ) -> tuple[np.ndarray, ...] | None:
        assert inputs[0] is not None
        result = inputs[0]
        for axis, (start, step, size) in enumerate(zip(self.starts, self.steps, self.sizes, strict=True)):
            if not (isinstance(start, int) and isinstance(step, int) and isinstance(size, int)):
                return None
            result = np.take(result, start + step * np.arange(size), axis=axis)
        return (result,)


@dataclass(frozen=True)
class Concat(Op):
    """The inputs one after another along `axis` (not negative); the other sizes agree."""

    folds_to_known: ClassVar[bool] = True
    axis: int

    def permute_axes(self, order: Sequence[int]) -> Op:
        return Concat(order.index(self.axis))

    def infer(self, inputs: Types) -> tuple[TensorType, ...]:
        types = [required(inputs, position) for position in range(len(inputs))]
        first = types[0]
        for type_ in types[1:]:
            if type_.rank != first.rank or type_.dtype is not first.dtype:
                raise ShapeError(f"cannot concatenate {first} and {type_}")
            for axis, (a, b) in enumerate(zip(first.shape, type_.shape, strict=True)):
                if axis != self.axis and isinstance(a, int) and isinstance(b, int) and a != b:
                    raise ShapeError(
                        f"cannot concatenate {first} and {type_} along axis {self.axis}: axis {axis} differs"
                    )
        size: Dim = 0
        for type_ in types:
            size = size + type_.shape[self.axis]
        return (TensorType(first.dtype, (*first.shape[: self.axis], size, *first.shape[self.axis + 1 :])),)

    def assumes(self, inputs: Types) -> Iterable[SizePair]:
        first = required(inputs, 0).shape
        for position in range(1, len(inputs)):
            for axis, (a, b) in enumerate(zip(first, required(inputs, position).shape, strict=True)):
                if axis != self.axis:
                    yield a, b, Relation.EQUAL

    def lower(self, node: Node) -> Pieces:
        pieces = []
        start: Dim = 0
        for value in node.operands():
            axes = loop.axes_for(value.shape)
            index = loop.index_of(axes)
            store = (*index[: self.axis], index[self.axis] + start, *index[self.axis + 1 :])
            pieces.append(loop.Computation(axes, loop.load(value, index), store=store))
            start = start + value.shape[self.axis]
        return Pieces(tuple(pieces))

    def evaluate(
        self, inputs: Sequence[np.ndarray | None], types: Sequence[TensorType]
    ) -> tuple[np.ndarray, ...] | None:
        return (np.concatenate([array for array in inputs if array is not None], axis=self.axis),)


@dataclass(frozen=True)
class Pad(Op):
    """`before` and `after` elements added a side of each axis.

    `mode`: "constant" (input 1 is the 0-d value; negative amounts remove elements), "reflect", "edge" or "wrap", as
    numpy.pad.
    """

    before: tuple[Dim, ...]
    after: tuple[Dim, ...]
    mode: str = "constant"

    def permute_axes(self, order: Sequence[int]) -> Op:
        before = tuple(self.before[axis] for axis in order)
        return Pad(before, tuple(self.after[axis] for axis in order), self.mode)

    def infer(self, inputs: Types) -> tuple[TensorType, ...]:
        source = required(inputs, 0)
        sizes = zip(source.shape, self.before, self.after, strict=True)
        return (TensorType(source.dtype, tuple(size + low + high for size, low, high in sizes)),)

    def assumes(self, inputs: Types) -> Iterable[SizePair]:
        if self.mode == "constant":
            return
        for size, low, high in zip(required(inputs, 0).shape, self.before, self.after, strict=True):
            yield dims.minimum(1, low + high), size, Relation.AT_MOST  # there is something to repeat

    def lower(self, node: Node) -> loop.Computation:
        source = node.inputs[0]
        assert source is not None
        axes = loop.axes_for(node.output.shape)
        index = [position - low for position, low in zip(loop.index_of(axes), self.before, strict=True)]
        if self.mode != "constant":
            return loop.Computation(axes, self._mirrored(source, index))
        fill = node.inputs[1]
        assert fill is not None
        inside = loop.load(source, tuple(index))
        condition = loop.all_in_range(tuple(index), source.shape)
        if condition is None:
            return loop.Computation(axes, inside)
        return loop.Computation(axes, loop.Guarded(inside.dtype, condition, inside, loop.load(fill, (0,) * fill.rank)))

    def _mirrored(self, source: Value, index: Sequence[Dim]) -> loop.Expr:
        """The element of `source` that stands for `index`, which may lie outside it."""
        sides = list(zip(index, source.shape, self.before, self.after, strict=True))
        if self.mode == "edge":
            return loop.load(source, tuple(_nearest(position, extent) for position, extent, *_ in sides))
        if all(self._turns_once(extent, low, high) for _, extent, low, high in sides):
            return loop.load(
                source,
                tuple(
                    position if low == 0 and high == 0 else _outside_once(self.mode, position, extent)
                    for position, extent, low, high in sides
                ),
            )
        mirrored = loop.load(source, tuple(_outside(self.mode, position, extent) for position, extent, *_ in sides))
        inside = loop.all_in_range(tuple(index), source.shape)
        if inside is None:
            return loop.load(source, tuple(index))
        # the divisions are left to the few elements that need them
        nearest = loop.load(source, tuple(_nearest(position, extent) for position, extent, *_ in sides))
        return loop.Guarded(mirrored.dtype, loop.apply("not", inside, dtype=dtypes.BOOL), mirrored, nearest)

    def _turns_once(self, extent: Dim, low: Dim, high: Dim) -> bool:
        """Whether no position lies further outside than the axis is long."""
        if low == 0 and high == 0:
            return True
        if not (isinstance(extent, int) and isinstance(low, int) and isinstance(high, int)):
            return False
        return max(low, high) <= (extent - 1 if self.mode == "reflect" else extent)

    def evaluate(
        self, inputs: Sequence[np.ndarray | None], types: Sequence[TensorType]
    ) -> tuple[np.ndarray, ...] | None:
        data, *rest = inputs
        amounts = list(zip(self.before, self.after, strict=True))
        if data is None or self.mode != "constant" or rest[0] is None:
            return None
        if any(not isinstance(amount, int) or amount < 0 for pair in amounts for amount in pair):
            return None
        return (np.pad(data, amounts, constant_values=rest[0].reshape(())),)  # type: ignore[arg-type]


def _nearest(position: Dim, extent: Dim) -> Dim:
    return dims.maximum(0, dims.minimum(position, extent - 1))


def _outside(mode: str, position: Dim, extent: Dim) -> Dim:
    """The element that stands for `position`, which may lie outside [0, extent)."""
    if mode == "edge":
        return _nearest(position, extent)
    if mode == "wrap":
        return dims.modulo(position, extent) if extent != 0 else 0
    period = dims.maximum(1, 2 * (extent - 1))
    folded = dims.modulo(position, period)
    return dims.minimum(folded, period - folded)


def _outside_once(mode: str, position: Dim, extent: Dim) -> Dim:
    """As `_outside`, for positions that one reflection or turn brings back, which takes no division."""
    if mode == "reflect":
        distance = dims.maximum(position, -position)
        return dims.minimum(distance, 2 * (extent - 1) - distance)
    below = dims.maximum(0, dims.minimum(1, -position))
    above = dims.maximum(0, dims.minimum(1, position - extent + 1))
    return position + extent * (below - above)


@dataclass(frozen=True)
class Iota(Op):
    """The position along `axis`, as int64, at every element of `shape`."""

    shape: Shape
    axis: int

    def infer(self, inputs: Types) -> tuple[TensorType, ...]:
        return (TensorType(dtypes.INT64, self.shape),)

    def lower(self, node: Node) -> loop.Computation:
        axes = loop.axes_for(self.shape)
        return loop.Computation(axes, loop.IndexValue(dtypes.INT64, loop.index_of(axes)[self.axis]))
