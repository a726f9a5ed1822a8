"""Sizes of dimensions as a tensor: where shape arithmetic in the graph is needed at run time after all."""

from __future__ import annotations

from dataclasses import dataclass

from onnxsmith_compiler.ir import dtype as dtypes
from onnxsmith_compiler.ir import loop
from onnxsmith_compiler.ir.dim import Dim
from onnxsmith_compiler.ir.graph import Node, TensorType
from onnxsmith_compiler.ops.base import Op, Types
from onnxsmith_compiler.ops.lowering import LibraryCall


@dataclass(frozen=True)
class Sizes(Op):
    """An int64 tensor of the given elements, row-major."""

    elements: tuple[Dim, ...]
    shape: tuple[int, ...]

    def infer(self, inputs: Types) -> tuple[TensorType, ...]:
        return (TensorType(dtypes.INT64, self.shape),)

    def lower(self, node: Node) -> loop.Computation | LibraryCall:
        if len(self.elements) == 1:
            return loop.Computation(loop.axes_for(self.shape), loop.IndexValue(dtypes.INT64, self.elements[0]))
        return LibraryCall("store_sizes", (node.output, *self.elements))
