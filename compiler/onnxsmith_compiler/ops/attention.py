"""Attention as one kernel: softmax(scale * Q K^T + mask) V, without the matrix of scores."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from onnxsmith_compiler.ir import dim as dims
from onnxsmith_compiler.ir import loop
from onnxsmith_compiler.ir.dim import Dim
from onnxsmith_compiler.ir.graph import Node, TensorType, Value
from onnxsmith_compiler.ops.base import Op, Types, required
from onnxsmith_compiler.ops.lowering import Contract


@dataclass(frozen=True)
class Strided:
    """How an operand lies in its tensor: element (i, j, ...) is number offset + i * strides[0] + j * strides[1] ..."""

    offset: Dim
    strides: tuple[Dim, ...]


@dataclass(frozen=True)
class FusedAttention(Op):
    """out[b, i, h] = softmax over j of (scale * q[b, h, i] . k[b, h, j] + mask[b, h, i, j]), times v[b, h, j].

    Inputs: the tensors that hold q, k, v and, unless `mask` is None, the mask; each operand is given by strides
    along (batch, head, row, feature), the mask's along (batch, head, row, column). Features of q, k and v are
    contiguous. Output: [batch, rows, heads, width].
    """

    batch: Dim
    heads: Dim
    rows: Dim
    columns: Dim
    depth: Dim
    width: Dim
    query: Strided
    key: Strided
    value: Strided
    mask: Strided | None
    scale: float

    @property
    def name(self) -> str:
        return "attention"

    def infer(self, inputs: Types) -> tuple[TensorType, ...]:
        dtype = required(inputs, 0).dtype
        return (TensorType(dtype, (self.batch, self.rows, self.heads, self.width)),)

    def lower(self, node: Node) -> Contract:
        return Contract(self, takes_epilogue=False)


def strided_view(value: Value, producers: Mapping[Value, Node], contiguous: bool) -> tuple[Value, Strided]:
    """The tensor in memory that `value` is a view of, and how it lies there; `value` itself where it is no such view.

    With `contiguous` the last axis must have stride 1.
    """
    axes = loop.axes_for(value.shape)
    index = loop.index_of(axes)
    best = (value, _strides(value, index, axes))
    current = value
    while (node := producers.get(current)) is not None:
        lowered = node.op.lower(node) if _may_be_view(node) else None
        if not isinstance(lowered, loop.Computation) or lowered.reduce or not isinstance(lowered.body, loop.Load):
            break
        places = dict(zip(lowered.axes, index, strict=True))
        index = tuple(loop.substitute_dim(position, places) for position in lowered.body.index)
        current = lowered.body.value
        strides = _strides(current, index, axes)
        if strides is not None and (not contiguous or strides.strides[-1] == 1 or value.shape[-1] == 1):
            best = (current, strides)
    assert best[1] is not None
    return best[0], best[1]


def _may_be_view(node: Node) -> bool:
    from onnxsmith_compiler.ops.view import Expand, Reshape, Slice, Transpose

    return isinstance(node.op, Expand | Reshape | Slice | Transpose)


def _strides(value: Value, index: loop.Index, axes: tuple[loop.LoopIndex, ...]) -> Strided | None:
    offset = loop.linear_offset(value.shape, index)
    strides: list[Dim] = []
    for axis in axes:
        stride = 0 if isinstance(offset, int) else dims.coefficient_of(offset, axis)
        if stride is None:
            return None
        strides.append(stride)
        offset = loop.substitute_dim(offset, {axis: 0})
    return Strided(offset, tuple(strides))
