"""What every operator of the tensor IR offers: type inference, lowering and compile-time evaluation."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, fields, is_dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from onnxsmith_compiler.ir import dim as dims
from onnxsmith_compiler.ir.dim import Dim
from onnxsmith_compiler.ir.graph import Node, Relation, TensorType, Value
from onnxsmith_compiler.ir.polynomial import Poly

if TYPE_CHECKING:
    from onnxsmith_compiler.ops.lowering import Lowering

Types = tuple[TensorType | None, ...]
Shape = tuple[Dim, ...]
SizePair = tuple[Dim, Dim, Relation]


class ShapeError(ValueError):
    """Operand types that do not fit the operator; the message says what would."""


@dataclass(frozen=True)
class Op:
    """One operation with its attributes. It has one meaning: opset differences end in the importer.

    `folds_to_known`: `evaluate` also works on object arrays of Dims, so shapes can be followed through it.
    `changes_first`: the output is the first operand with some elements changed, and may be the same memory.
    `only_moves`: its one output has the elements of its one input, in another order; `evaluate` is always offered.
    """

    folds_to_known: ClassVar[bool] = False
    changes_first: ClassVar[bool] = False
    only_moves: ClassVar[bool] = False

    @property
    def name(self) -> str:
        return type(self).__name__.lower()

    def infer(self, inputs: Types) -> tuple[TensorType, ...]:
        """The outputs' types. Raises ShapeError."""
        raise NotImplementedError(f"{type(self).__name__}.infer")

    def assumes(self, inputs: Types) -> Iterable[SizePair]:
        """Sizes that `infer` takes to be related, as kernels do: they are checked in every run."""
        return ()

    def lower(self, node: Node) -> Lowering:
        """How the node is computed."""
        raise NotImplementedError(f"{type(self).__name__}.lower")

    def evaluate(
        self, inputs: Sequence[np.ndarray | None], types: Sequence[TensorType]
    ) -> tuple[np.ndarray, ...] | None:
        """The outputs for constant inputs, or None where folding is not offered."""
        return None

    def permute_axes(self, order: Sequence[int]) -> Op | None:
        """The same operator for inputs and outputs whose axes all stand in `order`, None where there is none.

        `order` is a permutation as of numpy.transpose, of the rank of the outputs; inputs of another rank are left
        as they are.
        """
        return None


def sizes_in(attribute: object) -> Iterator[Dim]:
    """The Dims that are not constant in an operator, or in an attribute of one: in tuples and dataclasses too."""
    if isinstance(attribute, Poly):
        yield attribute
    elif isinstance(attribute, tuple):
        for element in attribute:
            yield from sizes_in(element)
    elif is_dataclass(attribute) and not isinstance(attribute, type | Value):
        for field in fields(attribute):
            yield from sizes_in(getattr(attribute, field.name))


def required(inputs: Types, position: int) -> TensorType:
    type_ = inputs[position] if position < len(inputs) else None
    if type_ is None:
        raise ShapeError(f"input {position} is missing")
    return type_


def normalize_axis(axis: int, rank: int) -> int:
    if not -rank <= axis < max(rank, 1):
        raise ShapeError(f"axis {axis} is out of range for rank {rank}: expected {-rank} to {rank - 1}")
    return axis + rank if axis < 0 else axis


def broadcast_shapes(shapes: Sequence[Shape]) -> Shape:
    """Numpy's broadcast, of symbolic sizes too."""
    rank = max((len(shape) for shape in shapes), default=0)
    return tuple(_broadcast_sizes(_sizes_at(shapes, rank, axis), shapes) for axis in range(rank))


def broadcast_assumptions(shapes: Sequence[Shape]) -> Iterable[SizePair]:
    """The pairs of sizes whose broadcast only a run can tell to be possible."""
    rank = max((len(shape) for shape in shapes), default=0)
    for axis in range(rank):
        sizes = list(dict.fromkeys(size for size in _sizes_at(shapes, rank, axis) if size != 1))
        for first, second in itertools.combinations(sizes, 2):
            yield first, second, Relation.BROADCAST


def _sizes_at(shapes: Sequence[Shape], rank: int, axis: int) -> list[Dim]:
    return [shape[axis - rank + len(shape)] for shape in shapes if axis - rank + len(shape) >= 0]


def _broadcast_sizes(sizes: list[Dim], shapes: Sequence[Shape]) -> Dim:
    fixed = {size for size in sizes if isinstance(size, int) and size != 1}
    if len(fixed) > 1:
        raise ShapeError(f"shapes {[list(map(str, shape)) for shape in shapes]} cannot be broadcast together")
    if fixed:
        return fixed.pop()
    one: Dim = 1
    return functools.reduce(dims.broadcast, sizes, one)
