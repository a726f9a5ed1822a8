"""Finds attention spelled in matrix products and a softmax, and makes one operator of it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain

from onnxsmith_compiler.ir import dim as dims
from onnxsmith_compiler.ir import dtype as dtypes
from onnxsmith_compiler.ir import loop
from onnxsmith_compiler.ir.atom import LoopIndex
from onnxsmith_compiler.ir.dim import Dim
from onnxsmith_compiler.ir.graph import Graph, Node, Value
from onnxsmith_compiler.ops.attention import FusedAttention, Strided
from onnxsmith_compiler.ops.contraction import MatMul
from onnxsmith_compiler.ops.view import Reshape, Transpose
from onnxsmith_compiler.passes.causal import causal_past, constant_past
from onnxsmith_compiler.passes.rewrite import Rewriter, rewrite_nodes
from onnxsmith_compiler.passes.scores import ScoreFinder, Scores
from onnxsmith_compiler.passes.strided import Producers, divided_axis, sources, strided_view

_MOST_OUTER = 5
"""Axes over which products run: each has its strides in the kernel's parameters."""


def fuse_attention(graph: Graph) -> Graph:
    """softmax(cap(scale * Q K^T) + masks) V over the last axis, where nothing else reads what is in between."""
    readers = graph.consumers()
    uses = {value: len(nodes) for value, nodes in readers.items()}
    for value in graph.output_values():
        uses[value] = uses.get(value, 0) + 1
    producers = graph.producers()
    finder = ScoreFinder(producers, uses)

    def rewrite(rewriter: Rewriter, node: Node) -> Value | None:
        if not isinstance(node.op, MatMul) or node.output.dtype is not dtypes.FLOAT32:
            return None
        found = _find(finder, node)
        if found is None:
            return None
        return _emit(rewriter, producers, found, _is_transposed(node.output, readers))

    return rewrite_nodes(graph, rewrite)


def _is_transposed(value: Value, readers: Mapping[Value, Sequence[Node]]) -> bool:
    """Whether a transpose reads `value`, through reshapes or not."""
    return any(
        isinstance(node.op, Transpose) or (isinstance(node.op, Reshape) and _is_transposed(node.output, readers))
        for node in readers.get(value, ())
    )


@dataclass(frozen=True)
class _Attention:
    """Operands with their own shapes: `key` is [..., depth, columns]; `weights` is softmax's argument."""

    query: Value
    key: Value
    value: Value
    weights: Value
    scores: Scores
    scale: float
    result: Value

    @property
    def rows(self) -> Dim:
        return self.result.shape[-2]

    @property
    def columns(self) -> Dim:
        return self.weights.shape[-1]


def _find(finder: ScoreFinder, node: Node) -> _Attention | None:
    weights, value = node.operands()
    if weights.rank < 3 or weights.shape[:-1] != node.output.shape[:-1]:
        return None
    found = finder.find(weights)
    if found is None:
        return None
    argument, scores = found
    query, key = scores.product.operands()
    if min(query.rank, key.rank, value.rank) < 2:
        return None
    query, query_scale = finder.scaled(query)
    key, key_scale = finder.scaled(key)
    return _Attention(query, key, value, argument, scores, scores.scale * query_scale * key_scale, node.output)


@dataclass(frozen=True)
class _Operand:
    """A tensor, the place in it of the element at (outer axes, row, feature), and the two last axes themselves."""

    value: Value
    index: loop.Index
    inner: tuple[LoopIndex, LoopIndex]
    contiguous: bool


@dataclass(frozen=True)
class _Outer:
    """The axes over which products run. `leading` says where along the result's own axes before the rows they stand."""

    axes: tuple[LoopIndex, ...]
    leading: loop.Index

    @staticmethod
    def of(shape: Sequence[Dim]) -> _Outer:
        axes = loop.axes_for(tuple(shape), "o")
        return _Outer(axes, loop.index_of(axes))

    def split(self, axis: LoopIndex, inner: Dim) -> _Outer:
        """With `axis` as two: the second, of size `inner`, moves faster."""
        outer = dims.exact_quotient(axis.extent, inner)
        assert outer is not None
        parts = (LoopIndex(f"{axis.name}a", outer), LoopIndex(f"{axis.name}b", inner))
        slow, fast = loop.index_of(parts)
        place = {axis: slow * inner + fast}
        number = self.axes.index(axis)
        axes = (*self.axes[:number], *parts, *self.axes[number + 1 :])
        return _Outer(axes, tuple(loop.substitute_dim(position, place) for position in self.leading))

    def shared_with(self, position: Dim) -> int:
        """How many of the axes, from the first on, stand in `position`, one of `leading`."""
        inside = loop.loop_indices(position)
        return max((number for number, axis in enumerate(self.axes, 1) if axis in inside), default=0)


@dataclass(frozen=True)
class _Operands:
    query: _Operand
    key: _Operand
    value: _Operand
    masks: tuple[_Operand, ...]

    def __iter__(self) -> Iterator[_Operand]:
        return chain((self.query, self.key, self.value), self.masks)


def _operands(found: _Attention, key: Value, outer: _Outer) -> _Operands | None:
    """The operands' places; `key` is [..., columns, depth]. None where a view takes rows or columns apart."""
    row, column = LoopIndex("row", found.rows), LoopIndex("column", found.columns)
    depth, width = LoopIndex("depth", key.shape[-1]), LoopIndex("width", found.value.shape[-1])
    at = {axis: loop.index_of((axis,))[0] for axis in (row, column, depth, width)}
    score = (*outer.leading, at[row], at[column])
    product, masks = found.scores.places(found.weights.shape, score)
    if product[-2:] != score[-2:]:
        return None
    leading, sizes = product[:-2], found.scores.product.output.shape[:-2]

    def operand(value: Value, outer: loop.Index, sizes: Sequence[Dim], inner: tuple[LoopIndex, LoopIndex]) -> _Operand:
        target = (*sizes, *value.shape[-2:])
        index = loop.broadcast_index(value.shape, (*outer, *(at[axis] for axis in inner)), target)
        return _Operand(value, index, inner, True)

    return _Operands(
        operand(found.query, leading, sizes, (row, depth)),
        operand(key, leading, sizes, (column, depth)),
        operand(found.value, outer.leading, found.result.shape[:-2], (column, width)),
        tuple(_Operand(mask, index, (row, column), False) for mask, index in masks),
    )


def _divided(operands: _Operands, outer: _Outer, producers: Producers) -> tuple[LoopIndex, Dim] | None:
    for operand in operands:
        for _, index in sources(operand.value, operand.index, producers):
            found = divided_axis(index, outer.axes)
            if found is not None:
                return found
    return None


def _emit(rewriter: Rewriter, producers: dict[Value, Node], found: _Attention, rows_before_heads: bool) -> Value | None:
    """The operator over the tensors in memory; axes are split where operands lie along a part of them."""
    key = _turned_key(rewriter, producers, found.key)
    *batches, rows, width = found.result.shape
    outer = _Outer.of(batches)
    operands = _operands(found, key, outer)
    while (
        operands is not None
        and len(outer.axes) < _MOST_OUTER
        and (divided := _divided(operands, outer, producers)) is not None
    ):
        outer = outer.split(*divided)
        operands = _operands(found, key, outer)
    if operands is None:
        return None
    views = []
    for operand in operands:
        view = strided_view(operand.value, operand.index, (*outer.axes, *operand.inner), producers, operand.contiguous)
        if view is None:
            return None
        views.append(view)
    (query, query_view), (key, key_view), (value, value_view), *masks = views
    past, masks = _without_causal(operands, masks, producers, found)
    sizes = tuple(axis.extent for axis in outer.axes)
    rows_axis = len(sizes)
    if rows_before_heads:
        rows_axis = outer.shared_with(outer.leading[0]) if len(batches) > 1 else 0
    op = FusedAttention(
        outer=sizes,
        rows_axis=rows_axis,
        rows=rows,
        columns=found.columns,
        depth=found.query.shape[-1],
        width=width,
        query=query_view,
        key=key_view,
        value=value_view,
        masks=tuple(view for _, view in masks),
        scale=found.scale,
        softcap=found.scores.softcap,
        past=past,
    )
    tensors = (query, key, value, *(mask for mask, _ in masks))
    result = rewriter.builder.emit(op, *map(rewriter.new, tensors))
    return _as_product(rewriter, result, sizes[:rows_axis], sizes[rows_axis:], found.result)


def _turned_key(rewriter: Rewriter, producers: dict[Value, Node], key: Value) -> Value:
    turned = rewriter.builder.emit(Transpose((*range(key.rank - 2), key.rank - 1, key.rank - 2)), key)
    if not turned.is_constant:  # else it is a constant, which no node computes
        producers[turned] = rewriter.builder.nodes[-1]
    return turned


def _without_causal(
    operands: _Operands, masks: list[tuple[Value, Strided]], producers: Producers, found: _Attention
) -> tuple[Dim | None, list[tuple[Value, Strided]]]:
    """The `past` of the first mask that is causal, and the other masks."""
    for number, operand in enumerate(operands.masks):
        past = causal_past(operand.value, operand.index, *operand.inner, producers)
        if past is None:
            past = constant_past(*masks[number], found.rows, found.columns)
        if past is not None:
            return past, [*masks[:number], *masks[number + 1 :]]
    return None, masks


def _as_product(
    rewriter: Rewriter, result: Value, before: Sequence[Dim], after: Sequence[Dim], product: Value
) -> Value:
    """[before, rows, after, width] in the shape [before, after, rows, width] of the product."""
    rows, width = product.shape[-2:]
    emit = rewriter.builder.emit
    merged = emit(Reshape((dims.product(before), rows, dims.product(after), width)), result)
    turned = emit(Transpose((0, 2, 1, 3)), merged)
    return emit(Reshape(product.shape), turned)
