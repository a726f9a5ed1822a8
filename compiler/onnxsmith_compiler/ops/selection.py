"""Results whose size the data decides: positions of nonzero elements, boxes that survive suppression.

Each comes in two steps: one operator counts into a tensor, from which a symbol is bound, the other one fills a tensor
of that size.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from onnxsmith_compiler.ir import dim as dims
from onnxsmith_compiler.ir import dtype as dtypes
from onnxsmith_compiler.ir import loop
from onnxsmith_compiler.ir.dim import Dim
from onnxsmith_compiler.ir.graph import Node, Relation, TensorType, Value
from onnxsmith_compiler.ops.base import Op, Shape, SizePair, Types, required
from onnxsmith_compiler.ops.lowering import Calls, LibraryCall, Pieces

_FIND_BLOCK = 4096


@dataclass(frozen=True)
class CountNonzero(Op):
    """To int64 [1], the number of nonzero elements, and int64 [blocks], how many come before each block of 4096."""

    def infer(self, inputs: Types) -> tuple[TensorType, ...]:
        blocks = dims.ceildiv(required(inputs, 0).size, _FIND_BLOCK)
        return TensorType(dtypes.INT64, (1,)), TensorType(dtypes.INT64, (blocks,))

    def lower(self, node: Node) -> Calls:
        (source,) = node.operands()
        total, starts = node.outputs
        counts = Value(f"{total.name}_counts", starts.type)
        (blocks,) = starts.shape
        count = LibraryCall("count_nonzero", (source, counts, source.type.size), blocks, _FIND_BLOCK // 4)
        add = LibraryCall("exclusive_sums", (counts, starts, total, blocks), 1, blocks)
        return Calls((count, add), (counts,))


@dataclass(frozen=True)
class FindNonzero(Op):
    """The row-major offsets of the nonzero elements, int64 [count]: inputs are the tensor and CountNonzero's starts."""

    count: Dim

    def infer(self, inputs: Types) -> tuple[TensorType, ...]:
        return (TensorType(dtypes.INT64, (self.count,)),)

    def lower(self, node: Node) -> LibraryCall:
        source, starts = node.operands()
        arguments = (source, starts, node.output, source.type.size)
        return LibraryCall("find_nonzero", arguments, starts.type.size, _FIND_BLOCK // 2)


@dataclass(frozen=True)
class Unravel(Op):
    """numpy.unravel_index: offsets [n] in a tensor of `shape` to their indices along every axis, [rank, n]."""

    shape: Shape

    def infer(self, inputs: Types) -> tuple[TensorType, ...]:
        return (TensorType(dtypes.INT64, (len(self.shape), *required(inputs, 0).shape)),)

    def lower(self, node: Node) -> Pieces:
        (offsets,) = node.operands()
        axes = loop.axes_for(offsets.shape)
        index = loop.index_of(axes)
        offset = loop.computed(loop.load(offsets, index))
        pieces = []
        for axis, size in enumerate(self.shape):
            stride = dims.maximum(1, dims.product(self.shape[axis + 1 :]))
            place = dims.floordiv(offset, stride)
            if axis > 0:
                place = dims.modulo(place, dims.maximum(1, size))
            pieces.append(loop.Computation(axes, loop.IndexValue(dtypes.INT64, place), store=(axis, *index)))
        return Pieces(tuple(pieces))


@dataclass(frozen=True)
class SuppressBoxes(Op):
    """Greedy non-maximum suppression of boxes [batches, n, 4] by scores [batches, classes, n], both float32.

    Further inputs are the IoU threshold and, or None, the least score, float32 of one element. `most` boxes are
    chosen of a batch and class. `centered`: boxes are (x, y, width, height) of their centers, else two corners.

    To int64 [1], the number of boxes; [batches * classes, min(most, n)], the boxes chosen; [batches * classes]
    each, how many those are, and how many come before.
    """

    most: Dim
    centered: bool

    def infer(self, inputs: Types) -> tuple[TensorType, ...]:
        scores = required(inputs, 1)
        groups = scores.shape[0] * scores.shape[1]
        each = TensorType(dtypes.INT64, (groups,))
        chosen = TensorType(dtypes.INT64, (groups, dims.minimum(self.most, scores.shape[2])))
        return TensorType(dtypes.INT64, (1,)), chosen, each, each

    def assumes(self, inputs: Types) -> Iterable[SizePair]:
        boxes, scores = required(inputs, 0).shape, required(inputs, 1).shape
        yield boxes[0], scores[0], Relation.EQUAL
        yield boxes[1], scores[2], Relation.EQUAL
        yield boxes[2], 4, Relation.EQUAL

    def lower(self, node: Node) -> Calls:
        boxes, scores, overlap, score = node.inputs
        assert boxes is not None and scores is not None and overlap is not None
        total, chosen, counts, starts = node.outputs
        groups, most = chosen.shape
        classes, count = scores.shape[1:]
        options = (int(score is not None), int(self.centered))
        suppress = LibraryCall(
            "suppress_boxes",
            (boxes, scores, overlap, score or overlap, chosen, counts, classes, count, most, *options),
            tiles=groups,
            cost=count * 10,
            scratch=count * 16 + most * 20,
        )
        add = LibraryCall("exclusive_sums", (counts, starts, total, groups), 1, groups)
        return Calls((suppress, add))


@dataclass(frozen=True)
class ListBoxes(Op):
    """ONNX NonMaxSuppression's result, int64 [count, 3] of (batch, class, box).

    Inputs are the last three outputs of SuppressBoxes for that many `classes`.
    """

    count: Dim
    classes: Dim

    def infer(self, inputs: Types) -> tuple[TensorType, ...]:
        return (TensorType(dtypes.INT64, (self.count, 3)),)

    def lower(self, node: Node) -> LibraryCall:
        chosen, counts, starts = node.operands()
        groups, most = chosen.shape
        return LibraryCall("list_boxes", (chosen, counts, starts, node.output, self.classes, most), groups, most + 1)
