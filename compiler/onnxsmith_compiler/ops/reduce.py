"""Reductions over axes."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from onnxsmith_compiler.ir import dtype as dtypes
from onnxsmith_compiler.ir import loop
from onnxsmith_compiler.ir.atom import LoopIndex
from onnxsmith_compiler.ir.dim import Dim
from onnxsmith_compiler.ir.graph import Node, TensorType
from onnxsmith_compiler.ops.base import Op, Types, required

_NUMPY: Mapping[str, Callable[..., np.ndarray]] = {"sum": np.sum, "prod": np.prod, "max": np.max, "min": np.min}


@dataclass(frozen=True)
class Reduce(Op):
    """Combines the elements along `axes` (not negative), which stay with size 1.

    `kind`: "sum" and "prod" (0 and 1 over nothing), "max", "min" (the type's least and greatest value over
    nothing; NaN wins), "argmax_first", "argmax_last", "argmin_first", "argmin_last" (int64, one axis).
    """

    folds_to_known: ClassVar[bool] = True
    kind: str
    axes: tuple[int, ...]

    @property
    def name(self) -> str:
        return f"reduce_{self.kind}"

    def permute_axes(self, order: Sequence[int]) -> Op | None:
        if self.kind.startswith("arg") and len(self.axes) > 1:
            return None
        return Reduce(self.kind, tuple(sorted(order.index(axis) for axis in self.axes)))

    def infer(self, inputs: Types) -> tuple[TensorType, ...]:
        source = required(inputs, 0)
        shape = tuple(1 if axis in self.axes else size for axis, size in enumerate(source.shape))
        return (TensorType(dtypes.INT64 if self.kind.startswith("arg") else source.dtype, shape),)

    def lower(self, node: Node) -> loop.Computation:
        (source,) = node.operands()
        axes = loop.axes_for(node.output.shape)
        outer = loop.index_of(axes)
        inner = {axis: LoopIndex(f"r{axis}", source.shape[axis]) for axis in self.axes}
        inner_index = dict(zip(inner, loop.index_of(tuple(inner.values())), strict=True))
        origin: list[Dim] = [inner_index.get(axis, outer[axis]) for axis in range(source.rank)]
        return loop.Computation(axes, loop.load(source, tuple(origin)), tuple(inner.values()), self.kind)

    def evaluate(
        self, inputs: Sequence[np.ndarray | None], types: Sequence[TensorType]
    ) -> tuple[np.ndarray, ...] | None:
        (array,) = inputs
        assert array is not None
        if array.dtype == object:
            if self.kind not in ("sum", "prod"):
                return None
        elif self.kind not in _NUMPY or array.size == 0 or array.dtype.kind not in "iufb":
            return None
        result = _NUMPY[self.kind](array, axis=self.axes, keepdims=True)
        return (np.asarray(result),)


@dataclass(frozen=True)
class ReduceMasked(Op):
    """As `Reduce`, along the axes whose element of `mask` is 1 (it is 0 for the others) when the model runs."""

    kind: str
    mask: tuple[Dim, ...]

    def infer(self, inputs: Types) -> tuple[TensorType, ...]:
        source = required(inputs, 0)
        sizes = zip(self.mask, source.shape, strict=True)
        return (TensorType(source.dtype, tuple(size + named * (1 - size) for named, size in sizes)),)

    def lower(self, node: Node) -> loop.Computation:
        (source,) = node.operands()
        axes = loop.axes_for(node.output.shape)
        inner = tuple(
            LoopIndex(f"r{axis}", 1 + named * (size - 1))
            for axis, (named, size) in enumerate(zip(self.mask, source.shape, strict=True))
        )
        # an axis is walked by its outer index or by its inner one; the other one is always 0
        index = tuple(a + b for a, b in zip(loop.index_of(axes), loop.index_of(inner), strict=True))
        return loop.Computation(axes, loop.load(source, index), inner, self.kind)
