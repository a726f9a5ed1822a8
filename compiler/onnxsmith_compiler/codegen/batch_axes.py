"""The axes over which a matrix product is one of many, with strides for both operands."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from onnxsmith_compiler.ir import dim as dims
from onnxsmith_compiler.ir.dim import Dim


@dataclass(frozen=True)
class BatchAxis:
    """An axis of products; the strides count matrices of A and of B, 0 where one is used for all."""

    size: Dim
    a_stride: Dim
    b_stride: Dim


def batch_axes(a: Sequence[Dim], b: Sequence[Dim]) -> list[BatchAxis]:
    """The axes over which B varies too, neighbours joined where they can be; none where B has no batch."""
    rank = max(len(a), len(b))
    wide_a = (*(1 for _ in range(rank - len(a))), *a)
    wide_b = (*(1 for _ in range(rank - len(b))), *b)
    if all(size == 1 for size in wide_b):
        return []
    axes: list[BatchAxis] = []
    a_stride: Dim = 1
    b_stride: Dim = 1
    for size_a, size_b in zip(reversed(wide_a), reversed(wide_b), strict=True):
        size = dims.broadcast(size_a, size_b)
        axis = BatchAxis(size, a_stride * _varies(size_a, size), b_stride * _varies(size_b, size))
        a_stride, b_stride = a_stride * size_a, b_stride * size_b
        if size == 1:
            continue
        inner = axes[0] if axes else None
        if (
            inner is not None
            and axis.a_stride == inner.a_stride * inner.size
            and axis.b_stride == inner.b_stride * inner.size
        ):
            axes[0] = BatchAxis(inner.size * size, inner.a_stride, inner.b_stride)
        else:
            axes.insert(0, axis)
    return axes or [BatchAxis(1, 0, 0)]


def _varies(size: Dim, wide: Dim) -> Dim:
    """0 where an axis of `size` is used for all of an axis of `wide`, else 1."""
    if size == 1:
        return 0
    return 1 if size == wide else dims.minimum(1, size - 1)  # whether it is 1 shows when it runs
