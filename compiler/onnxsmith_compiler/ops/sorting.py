"""The largest elements, distinct elements and running totals along an axis."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from onnxsmith_compiler.ir import dim as dims
from onnxsmith_compiler.ir import dtype as dtypes
from onnxsmith_compiler.ir.dim import Dim
from onnxsmith_compiler.ir.dtype import DType
from onnxsmith_compiler.ir.graph import Node, Relation, TensorType
from onnxsmith_compiler.ops.base import Op, Shape, SizePair, Types, required
from onnxsmith_compiler.ops.lowering import LibraryCall

_CUMULATE_BLOCK = 256


def order_key(dtype: DType) -> str:
    """The kernel function that makes an int64 of the same order of an element."""
    if dtype.is_float:
        return "order_key_f64" if dtype is dtypes.FLOAT64 else "order_key_f32"
    return "order_key_u64" if dtype is dtypes.UINT64 else "int64"


def around(shape: Shape, axis: int) -> tuple[Dim, Dim, Dim]:
    """The numbers of elements before, along and after `axis`."""
    return dims.product(shape[:axis]), shape[axis], dims.product(shape[axis + 1 :])


@dataclass(frozen=True)
class TopK(Op):
    """The `k` largest (or smallest) elements along `axis`, best first, and their int64 positions.

    Of equal elements the first is better; NaN counts as larger than any number.
    """

    k: Dim
    axis: int
    largest: bool

    def infer(self, inputs: Types) -> tuple[TensorType, ...]:
        source = required(inputs, 0)
        shape = (*source.shape[: self.axis], self.k, *source.shape[self.axis + 1 :])
        return TensorType(source.dtype, shape), TensorType(dtypes.INT64, shape)

    def assumes(self, inputs: Types) -> Iterable[SizePair]:
        yield 0, self.k, Relation.AT_MOST
        yield self.k, required(inputs, 0).shape[self.axis], Relation.AT_MOST

    def lower(self, node: Node) -> LibraryCall:
        (source,) = node.operands()
        outer, count, width = around(source.shape, self.axis)
        flip = 0 if self.largest else -1
        return LibraryCall(
            "top_k",
            (source, *node.outputs, count, self.k, width, flip),
            tiles=outer * width,
            cost=count * 2 + 1,
            scratch=self.k * 16,
            variant=(("KEY", order_key(source.dtype)),),
        )


@dataclass(frozen=True)
class UniqueItems(Op):
    """Groups of equal items along `axis`; n is the number of items.

    To int64 [1], the number of groups, and int64 [n] each: the first item of each group, the group of each item,
    the number of items of each group (only as many elements as there are groups are set of the first and last).
    Groups are sorted by value, items being compared as rows, NaN last; or, unless `by_value`, by first occurrence.
    """

    axis: int
    by_value: bool

    def infer(self, inputs: Types) -> tuple[TensorType, ...]:
        items = TensorType(dtypes.INT64, (required(inputs, 0).shape[self.axis],))
        return TensorType(dtypes.INT64, (1,)), items, items, items

    def lower(self, node: Node) -> LibraryCall:
        (source,) = node.operands()
        outer, count, width = around(source.shape, self.axis)
        return LibraryCall(
            "unique_items",
            (source, *node.outputs, outer, count, width, int(self.by_value)),
            tiles=1,
            cost=count * outer * width * 20,
            scratch=count * outer * width * 8 + count * 16,
            variant=(("KEY", order_key(source.dtype)),),
        )


@dataclass(frozen=True)
class Cumulate(Op):
    """Running sums ("add") or products ("mul") along the middle one of three groups of axes of these sizes.

    `exclusive`: without the element itself. `reverse`: from the end.
    """

    kind: str
    parts: tuple[Dim, Dim, Dim]
    exclusive: bool
    reverse: bool

    def infer(self, inputs: Types) -> tuple[TensorType, ...]:
        return (required(inputs, 0),)

    def lower(self, node: Node) -> LibraryCall:
        (source,) = node.operands()
        outer, count, width = self.parts
        total, unit = ("sum_step", "0") if self.kind == "add" else ("prod_step", "1")
        return LibraryCall(
            "cumulate",
            (source, node.output, count, width, int(self.reverse)),
            tiles=outer * dims.ceildiv(width, _CUMULATE_BLOCK),
            cost=count * dims.minimum(width, _CUMULATE_BLOCK) + 1,
            variant=(
                ("TYPE", str(source.dtype.compute)),
                ("TOTAL", total),
                ("UNIT", unit),
                ("EXCLUSIVE", str(self.exclusive)),
            ),
        )
