"""Attention as one kernel: softmax(scale * Q K^T + mask) V, without the matrix of scores."""

from __future__ import annotations

from dataclasses import dataclass

from onnxsmith_compiler.ir.dim import Dim
from onnxsmith_compiler.ir.graph import Node, TensorType
from onnxsmith_compiler.ops.base import Op, ShapeError, Types, required
from onnxsmith_compiler.ops.lowering import Contract


@dataclass(frozen=True)
class Strided:
    """How an operand lies in its tensor: element (i, j, ...) is number offset + i * strides[0] + j * strides[1] ..."""

    offset: Dim
    strides: tuple[Dim, ...]


@dataclass(frozen=True)
class FusedAttention(Op):
    """out[o, i] = softmax over j of score[o, i, j], times v[o, j], for every index o over the axes `outer`.

    score[o, i, j] = cap(scale * q[o, i] . k[o, j]) + the sum of masks[o, i, j], where cap(x) is
    softcap * tanh(x / softcap), or x where `softcap` is None. Where `past` is given, query i sees the keys up to
    i + past alone, and gives zeros if there are none.

    Inputs: the tensors that hold q, k, v and the masks; each operand is given by strides along (*outer, row, feature),
    the masks' along (*outer, row, column). An axis along which an operand is shared has stride 0. Features of q, k
    and v are contiguous. Output: [*outer, width] with the axis of the rows as number `rows_axis`.
    """

    outer: tuple[Dim, ...]
    rows_axis: int
    rows: Dim
    columns: Dim
    depth: Dim
    width: Dim
    query: Strided
    key: Strided
    value: Strided
    masks: tuple[Strided, ...]
    scale: float
    softcap: float | None = None
    past: Dim | None = None

    @property
    def name(self) -> str:
        return "attention"

    def infer(self, inputs: Types) -> tuple[TensorType, ...]:
        if len(inputs) != 3 + len(self.masks):
            raise ShapeError(f"attention has {len(inputs)} inputs: expected {3 + len(self.masks)}")
        before, after = self.outer[: self.rows_axis], self.outer[self.rows_axis :]
        return (TensorType(required(inputs, 0).dtype, (*before, self.rows, *after, self.width)),)

    def lower(self, node: Node) -> Contract:
        return Contract(self, takes_epilogue=False)
