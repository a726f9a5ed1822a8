"""Diagonals: several axes walked by one index."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from onnxsmith_compiler.ir import loop
from onnxsmith_compiler.ir.graph import Node, Relation, TensorType
from onnxsmith_compiler.ops.base import Op, ShapeError, SizePair, Types, required


@dataclass(frozen=True)
class Diagonal(Op):
    """out[i, j, ...] = in[...] where axis a of the input stands at output index number axes[a].

    Axes of the input that share an index have the same size. Every output axis has at least one.
    """

    axes: tuple[int, ...]

    def infer(self, inputs: Types) -> tuple[TensorType, ...]:
        source = required(inputs, 0)
        if len(self.axes) != source.rank:
            raise ShapeError(f"{len(self.axes)} axes are placed, the tensor has {source.rank}")
        shape = [source.shape[self.axes.index(place)] for place in range(max(self.axes, default=-1) + 1)]
        return (TensorType(source.dtype, tuple(shape)),)

    def assumes(self, inputs: Types) -> Iterable[SizePair]:
        shape = required(inputs, 0).shape
        for axis, place in enumerate(self.axes):
            yield shape[axis], shape[self.axes.index(place)], Relation.EQUAL

    def lower(self, node: Node) -> loop.Computation:
        (source,) = node.operands()
        axes = loop.axes_for(node.output.shape)
        index = loop.index_of(axes)
        return loop.Computation(axes, loop.load(source, tuple(index[place] for place in self.axes)))

    def evaluate(
        self, inputs: Sequence[np.ndarray | None], types: Sequence[TensorType]
    ) -> tuple[np.ndarray, ...] | None:
        (array,) = inputs
        assert array is not None
        shape = tuple(int(size) for size in types[0].shape)  # type: ignore[arg-type]
        grid = np.indices(shape, sparse=True)
        return (array[tuple(grid[place] for place in self.axes)],)
