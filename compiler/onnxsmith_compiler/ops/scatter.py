"""Writing updates into a copy of a tensor, at positions that a tensor gives.

Updates take effect in their row-major order, whatever the number of threads: where several meet at one
position, the last one stays, or all are combined one after another.
"""

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
from onnxsmith_compiler.ops.base import Op, Shape, ShapeError, SizePair, Types, required
from onnxsmith_compiler.ops.cast import convert
from onnxsmith_compiler.ops.gather import checked_position
from onnxsmith_compiler.ops.lowering import Calls, LibraryCall

REDUCTIONS = ("none", "add", "mul", "min", "max")

_COPY_BLOCK = 16384
_SCATTER_BLOCK = 4096
_COMBINED = {"none": "maximum", "add": "sum_step", "mul": "prod_step", "min": "minimum", "max": "maximum"}
_COMBINED_BOOL = {"none": "bit_or", "add": "bit_or", "mul": "bit_and", "min": "bit_and", "max": "bit_or"}
_NUMPY = {"add": np.add, "mul": np.multiply, "min": np.minimum, "max": np.maximum}


@dataclass(frozen=True)
class ElementPositions(Op):
    """Row-major offsets in a tensor of `shape` of the elements that ScatterElements' indices name along `axis`."""

    folds_to_known: ClassVar[bool] = True
    axis: int
    shape: Shape

    def infer(self, inputs: Types) -> tuple[TensorType, ...]:
        indices = required(inputs, 0)
        if indices.rank != len(self.shape):
            raise ShapeError(f"data has rank {len(self.shape)} and indices have rank {indices.rank}: expected the same")
        return (TensorType(dtypes.INT64, indices.shape),)

    def assumes(self, inputs: Types) -> Iterable[SizePair]:
        for axis, (count, size) in enumerate(zip(required(inputs, 0).shape, self.shape, strict=True)):
            if axis != self.axis:
                yield count, size, Relation.AT_MOST

    def lower(self, node: Node) -> loop.Computation:
        (indices,) = node.operands()
        axes = loop.axes_for(indices.shape)
        index = loop.index_of(axes)
        position = checked_position(indices, index, self.shape[self.axis])
        place = (*index[: self.axis], position, *index[self.axis + 1 :])
        return loop.Computation(axes, loop.IndexValue(dtypes.INT64, loop.linear_offset(self.shape, place)))

    def evaluate(
        self, inputs: Sequence[np.ndarray | None], types: Sequence[TensorType]
    ) -> tuple[np.ndarray, ...] | None:
        (indices,) = inputs
        assert indices is not None
        places = _normalized(indices, self.shape[self.axis])
        sizes = [size for size in self.shape if isinstance(size, int)]
        if places is None or len(sizes) < len(self.shape):
            return None
        index = np.indices(indices.shape)
        index[self.axis] = places
        return (np.asarray(np.ravel_multi_index(tuple(index), tuple(sizes))),)


@dataclass(frozen=True)
class SlicePositions(Op):
    """Row-major offsets, in a tensor of `shape`, of the slices that ONNX ScatterND's indices name."""

    folds_to_known: ClassVar[bool] = True
    shape: Shape

    def infer(self, inputs: Types) -> tuple[TensorType, ...]:
        indices = required(inputs, 0)
        depth = indices.shape[-1] if indices.rank else 0
        if not isinstance(depth, int) or depth > len(self.shape):
            raise ShapeError(f"the last dimension of indices is {depth}: expected at most {len(self.shape)}")
        return (TensorType(dtypes.INT64, indices.shape[:-1]),)

    def lower(self, node: Node) -> loop.Computation:
        (indices,) = node.operands()
        axes = loop.axes_for(indices.shape[:-1])
        index = loop.index_of(axes)
        depth = indices.shape[-1]
        assert isinstance(depth, int)
        named = [checked_position(indices, (*index, number), self.shape[number]) for number in range(depth)]
        place = (*named, *(0 for _ in self.shape[depth:]))
        return loop.Computation(axes, loop.IndexValue(dtypes.INT64, loop.linear_offset(self.shape, place)))

    def evaluate(
        self, inputs: Sequence[np.ndarray | None], types: Sequence[TensorType]
    ) -> tuple[np.ndarray, ...] | None:
        (indices,) = inputs
        assert indices is not None
        sizes = [size for size in self.shape if isinstance(size, int)]
        if len(sizes) < len(self.shape):
            return None
        total = np.zeros(indices.shape[:-1], np.int64)
        for number in range(indices.shape[-1]):
            places = _normalized(indices[..., number], sizes[number])
            if places is None:
                return None
            total += places * int(np.prod(sizes[number + 1 :]))
        return (total,)


def _normalized(indices: np.ndarray, size: dims.Dim) -> np.ndarray | None:
    """Positions counted from the front, None where one is out of range or not known."""
    if not isinstance(size, int):
        return None
    places = indices.astype(np.int64)
    if np.any(places < -size) or np.any(places >= size):
        return None
    return np.where(places < 0, places + size, places)


@dataclass(frozen=True)
class CachePositions(Op):
    """Row-major offsets, in a cache of `shape`, of the slices that ONNX TensorScatter puts in along `axis`.

    The input is the first position of each batch, [batch]; the output is [batch, ..., count], for the axes up to
    `axis`. `circular`: positions past the end continue at the beginning; otherwise they are faults.
    """

    axis: int
    circular: bool
    shape: Shape
    count: Dim

    def infer(self, inputs: Types) -> tuple[TensorType, ...]:
        if self.axis == 0:
            raise ShapeError("an update cannot be put in along axis 0, which counts the batches: expected 1 or more")
        return (TensorType(dtypes.INT64, (*self.shape[: self.axis], self.count)),)

    def assumes(self, inputs: Types) -> Iterable[SizePair]:
        yield required(inputs, 0).shape[0], self.shape[0], Relation.EQUAL
        yield self.count, self.shape[self.axis], Relation.AT_MOST

    def lower(self, node: Node) -> loop.Computation:
        (starts,) = node.operands()
        axes = loop.axes_for(node.output.shape)
        index = loop.index_of(axes)
        length = self.shape[self.axis]
        start = convert(loop.load(starts, (index[0],)), starts.dtype, dtypes.INT64)
        if self.circular:
            place = dims.modulo(index[self.axis] + loop.computed(start), length)
        else:
            # a negative position is out of range too, though a checked index may count from the end
            is_negative = loop.apply("lt", start, loop.const(0, dtypes.INT64), dtype=dtypes.BOOL)
            beyond = loop.const(np.iinfo(np.int64).max, dtypes.INT64)
            start = loop.apply("select", is_negative, beyond, start, dtype=dtypes.INT64)
            place = index[self.axis] + loop.computed(loop.Checked(dtypes.INT64, start, length - self.count + 1))
        whole = (*index[: self.axis], place, *(0 for _ in self.shape[self.axis + 1 :]))
        return loop.Computation(axes, loop.IndexValue(dtypes.INT64, loop.linear_offset(self.shape, whole)))


@dataclass(frozen=True)
class ScatterElements(Op):
    """Data with each update put at its offset: inputs are data, and offsets and updates of one shape.

    Offsets must come from `ElementPositions` with the same `axis`: those with different indices along the
    other axes differ.
    """

    folds_to_known: ClassVar[bool] = True
    changes_first: ClassVar[bool] = True
    axis: int
    reduction: str

    def infer(self, inputs: Types) -> tuple[TensorType, ...]:
        data, updates = required(inputs, 0), required(inputs, 2)
        _check(data, updates, self.reduction)
        return (data,)

    def assumes(self, inputs: Types) -> Iterable[SizePair]:
        positions, updates = required(inputs, 1), required(inputs, 2)
        if positions.rank != updates.rank:
            raise ShapeError(f"indices have rank {positions.rank} and updates {updates.rank}: expected the same")
        for given, wanted in zip(updates.shape, positions.shape, strict=True):
            yield given, wanted, Relation.EQUAL

    def lower(self, node: Node) -> Calls:
        data, positions, updates = node.operands()
        shape = positions.shape
        count, width = shape[self.axis], dims.product(shape[self.axis + 1 :])
        blocks = dims.ceildiv(width, _SCATTER_BLOCK)
        write = LibraryCall(
            "scatter_elements",
            (node.output, positions, updates, count, width),
            tiles=dims.product(shape[: self.axis]) * blocks,
            cost=count * dims.minimum(width, _SCATTER_BLOCK) + 1,
            variant=_variant(data, self.reduction),
        )
        return Calls((_copy(node), write))

    def evaluate(
        self, inputs: Sequence[np.ndarray | None], types: Sequence[TensorType]
    ) -> tuple[np.ndarray, ...] | None:
        data, positions, updates = inputs
        assert data is not None and positions is not None and updates is not None
        return _scattered(data, positions.reshape(-1), updates.reshape(-1), self.reduction)


@dataclass(frozen=True)
class ScatterSlices(Op):
    """Data with each slice put at its offset: inputs are data, offsets [n...] and updates [n..., slice...]."""

    folds_to_known: ClassVar[bool] = True
    changes_first: ClassVar[bool] = True
    reduction: str

    def infer(self, inputs: Types) -> tuple[TensorType, ...]:
        data, updates = required(inputs, 0), required(inputs, 2)
        _check(data, updates, self.reduction)
        return (data,)

    def assumes(self, inputs: Types) -> Iterable[SizePair]:
        data, positions, updates = (required(inputs, number) for number in range(3))
        rest = updates.rank - positions.rank
        if not 0 <= rest <= data.rank:
            raise ShapeError(f"updates {updates} do not fit indices for {positions.rank} axes of slices of {data}")
        wanted = (*positions.shape, *data.shape[data.rank - rest :])
        for given, size in zip(updates.shape, wanted, strict=True):
            yield given, size, Relation.EQUAL

    def lower(self, node: Node) -> Calls:
        data, positions, updates = node.operands()
        count, width = positions.type.size, dims.product(updates.shape[positions.rank :])
        write = LibraryCall(
            "scatter_slices",
            (node.output, positions, updates, count, width),
            tiles=dims.ceildiv(width, _SCATTER_BLOCK),
            cost=count * dims.minimum(width, _SCATTER_BLOCK) + 1,
            variant=_variant(data, self.reduction),
        )
        return Calls((_copy(node), write))

    def evaluate(
        self, inputs: Sequence[np.ndarray | None], types: Sequence[TensorType]
    ) -> tuple[np.ndarray, ...] | None:
        data, positions, updates = inputs
        assert data is not None and positions is not None and updates is not None
        width = int(np.prod(updates.shape[positions.ndim :]))
        places = positions.astype(np.int64).reshape(-1, 1) + np.arange(width)
        return _scattered(data, places.reshape(-1), updates.reshape(-1), self.reduction)


def _check(data: TensorType, updates: TensorType, reduction: str) -> None:
    if data.dtype is not updates.dtype:
        raise ShapeError(f"data has type {data.dtype} and updates {updates.dtype}: expected the same")
    if reduction not in REDUCTIONS:
        raise ShapeError(f"reduction '{reduction}' is unknown: expected one of {', '.join(REDUCTIONS)}")


def _variant(data: Value, reduction: str) -> tuple[tuple[str, str], ...]:
    names = _COMBINED_BOOL if data.dtype is dtypes.BOOL else _COMBINED
    return ("REPLACES", str(reduction == "none")), ("COMBINED", names[reduction])


def _copy(node: Node) -> LibraryCall:
    data = next(node.operands())
    size = data.type.size
    return LibraryCall(
        "copy_elements",
        (data, node.output, size),
        tiles=dims.ceildiv(size, _COPY_BLOCK),
        cost=dims.minimum(size, _COPY_BLOCK) * data.dtype.itemsize // 16 + 1,
    )


def _scattered(
    data: np.ndarray, places: np.ndarray, updates: np.ndarray, reduction: str
) -> tuple[np.ndarray, ...] | None:
    if data.dtype == object and reduction != "none":
        return None
    result = data.reshape(-1).copy()
    for place, update in zip(places.tolist(), updates, strict=True):
        result[place] = update if reduction == "none" else _NUMPY[reduction](result[place], update)
    return (result.reshape(data.shape),)
