"""Axes, lengths and shapes that only a run knows: checked before sizes of tensors are made of them.

Each takes a small integer tensor and gives an int64 one whose elements can be relied on.
"""

from __future__ import annotations

from dataclasses import dataclass

from onnxsmith_compiler.ir import dtype as dtypes
from onnxsmith_compiler.ir.dim import Dim
from onnxsmith_compiler.ir.graph import Node, TensorType
from onnxsmith_compiler.ops.base import Op, ShapeError, Types, required
from onnxsmith_compiler.ops.lowering import LibraryCall


@dataclass(frozen=True)
class AxisMask(Op):
    """[count] axes to [rank]: 1 for every axis that is named, else 0. A fault where one is out of range or twice.

    Where no axis is named and `all_if_none`, all are.
    """

    rank: int
    all_if_none: bool = False

    def infer(self, inputs: Types) -> tuple[TensorType, ...]:
        _vector(required(inputs, 0), "axes")
        return (TensorType(dtypes.INT64, (self.rank,)),)

    def lower(self, node: Node) -> LibraryCall:
        (axes,) = node.operands()
        return LibraryCall("axis_mask", (axes, node.output, axes.type.size, self.rank, int(self.all_if_none)))


@dataclass(frozen=True)
class KeptSizes(Op):
    """The `count` sizes of the axes whose mask is 0: inputs are the mask and all sizes, both int64 [rank]."""

    count: int

    def infer(self, inputs: Types) -> tuple[TensorType, ...]:
        return (TensorType(dtypes.INT64, (self.count,)),)

    def lower(self, node: Node) -> LibraryCall:
        mask, sizes = node.operands()
        return LibraryCall("kept_sizes", (mask, sizes, node.output, mask.type.size, self.count))


@dataclass(frozen=True)
class WidenedSizes(Op):
    """1 where the mask, int64 [rank], is 1, and the second input's sizes in order where it is 0."""

    def infer(self, inputs: Types) -> tuple[TensorType, ...]:
        return (required(inputs, 0),)

    def lower(self, node: Node) -> LibraryCall:
        mask, sizes = node.operands()
        return LibraryCall("widened_sizes", (mask, sizes, node.output, mask.type.size))


@dataclass(frozen=True)
class SliceBounds(Op):
    """ONNX Slice's starts, ends, axes, steps (integer vectors of one length) and the int64 sizes of the tensor.

    To int64 [rank, 3]: first position, step and number of positions along every axis.
    A fault where an axis is out of range or a step is 0.
    """

    def infer(self, inputs: Types) -> tuple[TensorType, ...]:
        lengths = {_vector(required(inputs, number), "a slice's input").size for number in range(4)}
        if len(lengths) > 1:
            raise ShapeError(f"starts, ends, axes and steps have {lengths} elements: expected as many of each")
        return (TensorType(dtypes.INT64, (required(inputs, 4).size, 3)),)

    def lower(self, node: Node) -> LibraryCall:
        starts, *_, sizes = node.operands()
        counts = (starts.type.size, sizes.type.size)
        return LibraryCall("slice_bounds", (*node.operands(), node.output, *counts))


@dataclass(frozen=True)
class AxisSizes(Op):
    """The numbers of elements before, along and after an axis, int64 [3].

    Inputs are the axis, an integer tensor of one element, and the int64 sizes. A fault where it is out of range.
    """

    def infer(self, inputs: Types) -> tuple[TensorType, ...]:
        return (TensorType(dtypes.INT64, (3,)),)

    def lower(self, node: Node) -> LibraryCall:
        axis, sizes = node.operands()
        return LibraryCall("axis_sizes", (axis, sizes, node.output, sizes.type.size))


@dataclass(frozen=True)
class PadAmounts(Op):
    """ONNX Pad's pads [2 * count] of some axes [count] as those of all, int64 [2 * rank].

    A fault where an axis is out of range or named twice.
    """

    rank: int

    def infer(self, inputs: Types) -> tuple[TensorType, ...]:
        pads, axes = _vector(required(inputs, 0), "pads"), _vector(required(inputs, 1), "axes")
        if pads.size != 2 * axes.size:
            raise ShapeError(f"there are {pads.size} pads for {axes.size} axes: expected two for each")
        return (TensorType(dtypes.INT64, (2 * self.rank,)),)

    def lower(self, node: Node) -> LibraryCall:
        pads, axes = node.operands()
        arguments = (pads, axes, node.output, axes.type.size, self.rank)
        return LibraryCall("pad_amounts", arguments, scratch=self.rank * 8)


@dataclass(frozen=True)
class SplitSizes(Op):
    """[count] lengths as int64; a fault where one is negative or they do not add up to `extent`."""

    extent: Dim

    def infer(self, inputs: Types) -> tuple[TensorType, ...]:
        return (TensorType(dtypes.INT64, _vector(required(inputs, 0), "split").shape),)

    def lower(self, node: Node) -> LibraryCall:
        (sizes,) = node.operands()
        return LibraryCall("split_sizes", (sizes, node.output, sizes.type.size, self.extent))


@dataclass(frozen=True)
class ReshapeSizes(Op):
    """The shape that a Reshape gives, of the one wanted (with 0 and -1) and the sizes before, both int64 tensors.

    A fault where the numbers of elements differ. `allow_zero`: a 0 is a size, not a copy of the size before.
    """

    allow_zero: bool

    def infer(self, inputs: Types) -> tuple[TensorType, ...]:
        _vector(required(inputs, 1), "sizes")
        return (TensorType(dtypes.INT64, _vector(required(inputs, 0), "shape").shape),)

    def lower(self, node: Node) -> LibraryCall:
        wanted, before = node.operands()
        sizes = (wanted.type.size, before.type.size, int(self.allow_zero))
        return LibraryCall("reshape_sizes", (wanted, before, node.output, *sizes))


def _vector(type_: TensorType, what: str) -> TensorType:
    if not type_.dtype.is_integer or type_.rank > 1:
        raise ShapeError(f"{what} is {type_}: expected a vector of integers")
    return type_
