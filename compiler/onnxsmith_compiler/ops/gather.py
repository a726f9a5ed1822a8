"""Reading elements at positions that a tensor gives. Positions are checked; negative ones count from the end."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from onnxsmith_compiler.ir import dtype as dtypes
from onnxsmith_compiler.ir import loop
from onnxsmith_compiler.ir.dim import Dim
from onnxsmith_compiler.ir.graph import Node, Relation, TensorType, Value
from onnxsmith_compiler.ops.base import Op, ShapeError, SizePair, Types, required
from onnxsmith_compiler.ops.cast import convert


def checked_position(indices: Value, index: loop.Index, limit: Dim) -> Dim:
    """Element `index` of the integer tensor `indices` as a position in [0, limit)."""
    position = convert(loop.load(indices, index), indices.dtype, dtypes.INT64)
    return loop.computed(loop.Checked(dtypes.INT64, position, limit))


@dataclass(frozen=True)
class Gather(Op):
    """ONNX Gather: numpy.take(data, indices, axis)."""

    folds_to_known: ClassVar[bool] = True
    axis: int

    def infer(self, inputs: Types) -> tuple[TensorType, ...]:
        data, indices = required(inputs, 0), required(inputs, 1)
        if self.axis >= data.rank:
            raise ShapeError(f"axis {self.axis} is out of range for data of rank {data.rank}")
        shape = (*data.shape[: self.axis], *indices.shape, *data.shape[self.axis + 1 :])
        return (TensorType(data.dtype, shape),)

    def lower(self, node: Node) -> loop.Computation:
        data, indices = node.operands()
        axes = loop.axes_for(node.output.shape)
        index = loop.index_of(axes)
        split = self.axis + indices.rank
        position = checked_position(indices, index[self.axis : split], data.shape[self.axis])
        return loop.Computation(axes, loop.load(data, (*index[: self.axis], position, *index[split:])))

    def evaluate(
        self, inputs: Sequence[np.ndarray | None], types: Sequence[TensorType]
    ) -> tuple[np.ndarray, ...] | None:
        data, indices = inputs
        assert data is not None and indices is not None
        positions = indices.astype(np.int64)
        size = data.shape[self.axis]
        if np.any(positions >= size) or np.any(positions < -size):
            return None
        return (np.asarray(np.take(data, positions, axis=self.axis)),)


@dataclass(frozen=True)
class GatherElements(Op):
    """ONNX GatherElements: numpy.take_along_axis(data, indices, axis)."""

    axis: int

    def infer(self, inputs: Types) -> tuple[TensorType, ...]:
        data, indices = required(inputs, 0), required(inputs, 1)
        if data.rank != indices.rank:
            raise ShapeError(f"data has rank {data.rank} and indices have rank {indices.rank}: expected the same")
        return (TensorType(data.dtype, indices.shape),)

    def assumes(self, inputs: Types) -> Iterable[SizePair]:
        data, indices = required(inputs, 0).shape, required(inputs, 1).shape
        for axis, (size, count) in enumerate(zip(data, indices, strict=True)):
            if axis != self.axis:
                yield count, size, Relation.AT_MOST

    def lower(self, node: Node) -> loop.Computation:
        data, indices = node.operands()
        axes = loop.axes_for(node.output.shape)
        index = loop.index_of(axes)
        position = checked_position(indices, index, data.shape[self.axis])
        return loop.Computation(axes, loop.load(data, (*index[: self.axis], position, *index[self.axis + 1 :])))


@dataclass(frozen=True)
class GatherND(Op):
    """ONNX GatherND: the last axis of `indices` holds positions in the axes of data after `batch_dims`."""

    batch_dims: int = 0

    def infer(self, inputs: Types) -> tuple[TensorType, ...]:
        data, indices = required(inputs, 0), required(inputs, 1)
        depth = indices.shape[-1] if indices.rank else 0
        if not isinstance(depth, int) or not 1 <= depth <= data.rank - self.batch_dims:
            raise ShapeError(f"the last dimension of indices is {depth}: expected 1 to {data.rank - self.batch_dims}")
        return (TensorType(data.dtype, (*indices.shape[:-1], *data.shape[self.batch_dims + depth :])),)

    def assumes(self, inputs: Types) -> Iterable[SizePair]:
        data, indices = required(inputs, 0).shape, required(inputs, 1).shape
        for axis in range(self.batch_dims):
            yield indices[axis], data[axis], Relation.AT_MOST

    def lower(self, node: Node) -> loop.Computation:
        data, indices = node.operands()
        depth = indices.shape[-1]
        assert isinstance(depth, int)
        axes = loop.axes_for(node.output.shape)
        index = loop.index_of(axes)
        outer = index[: indices.rank - 1]
        positions = tuple(
            checked_position(indices, (*outer, number), data.shape[self.batch_dims + number]) for number in range(depth)
        )
        origin = (*outer[: self.batch_dims], *positions, *index[indices.rank - 1 :])
        return loop.Computation(axes, loop.load(data, origin))


@dataclass(frozen=True)
class ReverseSequence(Op):
    """Data with the first lengths[b] elements along `time_axis` in reverse order, b counting along `batch_axis`."""

    time_axis: int
    batch_axis: int

    def infer(self, inputs: Types) -> tuple[TensorType, ...]:
        data, lengths = required(inputs, 0), required(inputs, 1)
        if lengths.rank != 1 or self.time_axis == self.batch_axis:
            raise ShapeError(
                f"lengths {lengths}, axes {self.time_axis} and {self.batch_axis}: expected a vector and two axes"
            )
        return (data,)

    def assumes(self, inputs: Types) -> Iterable[SizePair]:
        yield required(inputs, 0).shape[self.batch_axis], required(inputs, 1).shape[0], Relation.EQUAL

    def lower(self, node: Node) -> loop.Computation:
        data, lengths = node.operands()
        axes = loop.axes_for(data.shape)
        index = loop.index_of(axes)
        time = loop.IndexValue(dtypes.INT64, index[self.time_axis])
        length = convert(loop.load(lengths, (index[self.batch_axis],)), lengths.dtype, dtypes.INT64)
        one = loop.const(1, dtypes.INT64)
        turned = loop.apply("sub", loop.apply("sub", length, one), time)
        is_within = loop.apply("lt", time, length, dtype=dtypes.BOOL)
        place = loop.apply("select", is_within, turned, time, dtype=dtypes.INT64)
        origin = list(index)
        origin[self.time_axis] = loop.computed(loop.Checked(dtypes.INT64, place, data.shape[self.time_axis]))
        return loop.Computation(axes, loop.load(data, tuple(origin)))
