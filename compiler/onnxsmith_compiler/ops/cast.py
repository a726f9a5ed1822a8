"""Conversion between element types."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from onnxsmith_compiler.ir import loop
from onnxsmith_compiler.ir.dtype import DType, from_numpy
from onnxsmith_compiler.ir.graph import Node, TensorType
from onnxsmith_compiler.ir.polynomial import Poly
from onnxsmith_compiler.ops.base import Op, Types, required
from onnxsmith_compiler.ops.rounding import narrowed


@dataclass(frozen=True)
class Cast(Op):
    """ONNX Cast. `saturate` matters to float8 targets alone: out of range becomes the largest value, else NaN or inf.

    `rounding` matters to float8e8m0 alone: "up", "down" or "nearest".
    """

    folds_to_known: ClassVar[bool] = True
    to: DType
    saturate: bool = True
    rounding: str = "up"

    def permute_axes(self, order: Sequence[int]) -> Op:
        return self

    def infer(self, inputs: Types) -> tuple[TensorType, ...]:
        return (TensorType(self.to, required(inputs, 0).shape),)

    def lower(self, node: Node) -> loop.Computation:
        (source,) = node.operands()
        axes = loop.axes_for(node.output.shape)
        element = loop.load(source, loop.index_of(axes))
        return loop.Computation(axes, convert(element, source.dtype, self.to, self.saturate, self.rounding))

    def evaluate(
        self, inputs: Sequence[np.ndarray | None], types: Sequence[TensorType]
    ) -> tuple[np.ndarray, ...] | None:
        (array,) = inputs
        assert array is not None
        if array.dtype == object:
            symbolic = any(isinstance(element, Poly) for element in array.flat)
            if self.to.is_integer and (self.to.bits >= 32 or not symbolic):
                return (array,)
            return None if symbolic else (array.astype(self.to.storage).astype(object),)
        if (self.to.bits < 16 and self.to.is_float) or self.to.kind == "string" or array.dtype.kind in "fV":
            return self._evaluate_float(array)
        return (self._stored(array),)

    def _evaluate_float(self, array: np.ndarray) -> tuple[np.ndarray, ...] | None:
        """Only conversions whose numpy meaning is ONNX's; the others are left to the kernel."""
        if array.dtype.kind == "V" and from_numpy(array.dtype).is_float:
            array = array.astype(np.float32)
        if array.dtype.kind == "f" and self.to.is_float and self.to.bits >= 16:
            return (self._stored(array),)
        if array.dtype.kind == "f" and self.to.is_integer and np.all(np.abs(array) < 2.0**31) and self.to.bits >= 32:
            return (array.astype(self.to.storage),)
        return None

    def _stored(self, array: np.ndarray) -> np.ndarray:
        return narrowed(array, self.to.storage) if is_narrow(self.to) else array.astype(self.to.storage)


def is_narrow(dtype: DType) -> bool:
    """Whether it is a float that is only storage: its elements are computed with as float32."""
    return dtype.compute is not dtype


def convert(element: loop.Expr, source: DType, to: DType, saturate: bool = True, rounding: str = "up") -> loop.Expr:
    """`element`, stored as `source`, as the compute value that `to` would hold."""
    if source is to:
        return element
    if element.dtype is not to.compute:
        # float32 is on the way only: rounding to nearest there would be one rounding too many
        is_wide = is_narrow(to) and element.dtype.bits >= 32
        element = loop.apply("cast_to_odd" if is_wide else "cast", element, dtype=to)
    if not to.is_float or to.bits >= 32:
        return element if not (to.is_integer and to.bits < 8) else loop.apply(f"wrap_{to.name}", element, dtype=to)
    suffix = "" if saturate else "_wrap"
    suffix += f"_{rounding}" if to.name == "float8e8m0" else ""
    return loop.apply(f"round_to_{to.name}{suffix}", element, dtype=to)
