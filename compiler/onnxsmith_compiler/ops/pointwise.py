"""Elementwise operators: one scalar function applied to broadcast operands."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from onnxsmith_compiler.ir import dtype as dtypes
from onnxsmith_compiler.ir import loop
from onnxsmith_compiler.ir.graph import Node, TensorType
from onnxsmith_compiler.ops.base import (
    Op,
    ShapeError,
    SizePair,
    Types,
    broadcast_assumptions,
    broadcast_shapes,
    required,
)
from onnxsmith_compiler.ops.scalar import SCALAR_FUNCTIONS

_KNOWN_FUNCTIONS = frozenset(
    [
        "add",
        "sub",
        "mul",
        "div",
        "mod",
        "min",
        "max",
        "eq",
        "ne",
        "lt",
        "le",
        "gt",
        "ge",
        "and",
        "or",
        "not",
        "select",
        "identity",
        "neg",
        "abs",
    ]
)


@dataclass(frozen=True)
class Pointwise(Op):
    """out = function(inputs...), with numpy's broadcasting. Inputs have one dtype (`select`: bool, then two of one)."""

    folds_to_known: ClassVar[bool] = True
    function: str

    @property
    def name(self) -> str:
        return self.function

    def permute_axes(self, order: Sequence[int]) -> Op:
        return self

    def infer(self, inputs: Types) -> tuple[TensorType, ...]:
        spec = SCALAR_FUNCTIONS[self.function]
        types = [required(inputs, position) for position in range(spec.arity)]
        same = types[1:] if self.function == "select" else types
        if len({type_.dtype for type_ in same}) > 1:
            raise ShapeError(
                f"{self.function}: inputs have types {', '.join(str(t.dtype) for t in types)}: expected one"
            )
        shape = broadcast_shapes([type_.shape for type_ in types])
        dtype = {"same": types[0].dtype, "second": types[-1].dtype, "bool": dtypes.BOOL}[spec.result]
        return (TensorType(dtype, shape),)

    def assumes(self, inputs: Types) -> Iterable[SizePair]:
        return broadcast_assumptions([type_.shape for type_ in inputs if type_ is not None])

    def lower(self, node: Node) -> loop.Computation:
        axes = loop.axes_for(node.output.shape)
        index = loop.index_of(axes)
        operands = tuple(
            loop.load(value, loop.broadcast_index(value.shape, index, node.output.shape)) for value in node.operands()
        )
        body = (
            operands[0]
            if self.function == "identity"
            else loop.apply(self.function, *operands, dtype=node.output.dtype)
        )
        return loop.Computation(axes, body)

    def evaluate(
        self, inputs: Sequence[np.ndarray | None], types: Sequence[TensorType]
    ) -> tuple[np.ndarray, ...] | None:
        arrays = [array for array in inputs if array is not None]
        if any(array.dtype == object for array in arrays) and self.function not in _KNOWN_FUNCTIONS:
            return None
        return (np.asarray(SCALAR_FUNCTIONS[self.function].numpy(*arrays)),)
