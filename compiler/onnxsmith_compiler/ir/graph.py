"""The tensor IR: a graph of typed values. Values are compared by identity, everything is frozen."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import IntEnum
from typing import TYPE_CHECKING

import numpy as np

from onnxsmith_compiler.ir import dim as dims
from onnxsmith_compiler.ir.dim import Dim
from onnxsmith_compiler.ir.dtype import DType

if TYPE_CHECKING:
    from onnxsmith_compiler.ops.base import Op  # noqa: TID251 (a name for types: a graph calls nothing of it)


@dataclass(frozen=True)
class TensorType:
    """Element type and shape; () is a 0-d tensor."""

    dtype: DType
    shape: tuple[Dim, ...]

    @property
    def rank(self) -> int:
        return len(self.shape)

    @property
    def size(self) -> Dim:
        """Number of elements."""
        return dims.product(self.shape)

    def __str__(self) -> str:
        return f"{self.dtype}[{', '.join(map(str, self.shape))}]"


@dataclass(frozen=True, eq=False)
class Blocks:
    """The elements of a constant in row-major order, in arrays of any shape; each call of `make` computes them anew.

    Weights that are written block by block stay in the caches, and never take memory as a whole.
    """

    make: Callable[[], Iterator[np.ndarray]]


@dataclass(frozen=True, eq=False)
class Value:
    """One tensor of the graph.

    `constant` holds a constant's elements, or computes them, whole or in blocks: large weights take their final
    form one by one, when the program is written. `known` holds, for a small integer tensor computed from shapes, its
    elements as Dims in an object array: known at compile time but for the symbols.
    """

    name: str
    type: TensorType
    constant: np.ndarray | Callable[[], np.ndarray] | Blocks | None = None
    known: np.ndarray | None = None

    @property
    def data(self) -> np.ndarray | None:
        """A constant's elements, computed by each call where they are not held; None for other values."""
        if isinstance(self.constant, Blocks):
            return self._assembled(self.constant.make())
        return self.constant() if callable(self.constant) else self.constant

    def blocks(self) -> Iterator[np.ndarray]:
        """A constant's elements in row-major order, in one array or several."""
        if isinstance(self.constant, Blocks):
            yield from self.constant.make()
        elif (data := self.data) is not None:
            yield data

    def _assembled(self, blocks: Iterator[np.ndarray]) -> np.ndarray:
        shape = [size for size in self.type.shape if isinstance(size, int)]
        flat, start = np.empty(math.prod(shape), self.type.dtype.storage), 0
        for block in blocks:
            flat[start : start + block.size] = block.reshape(-1)
            start += block.size
        return flat.reshape(shape)

    @property
    def dtype(self) -> DType:
        return self.type.dtype

    @property
    def shape(self) -> tuple[Dim, ...]:
        return self.type.shape

    @property
    def rank(self) -> int:
        return len(self.type.shape)

    @property
    def is_constant(self) -> bool:
        return self.constant is not None

    def __str__(self) -> str:
        return f"%{self.name}"

    def __repr__(self) -> str:
        return f"%{self.name}: {self.type}"


@dataclass(frozen=True, eq=False)
class Node:
    """One operation. `origin` is the ONNX node it comes from, for messages and profiles."""

    op: Op
    inputs: tuple[Value | None, ...]
    outputs: tuple[Value, ...]
    origin: str = ""

    @property
    def output(self) -> Value:
        return self.outputs[0]

    def operands(self) -> Iterator[Value]:
        """The inputs that are there (an optional one that was left out is None)."""
        return (value for value in self.inputs if value is not None)


@dataclass(frozen=True)
class LateSymbol:
    """A symbol bound in mid-run: element number `element` of `source`; it may be negative where it is `signed`."""

    name: str
    source: Value
    element: int
    signed: bool = True

    @property
    def size(self) -> Dim:
        return dims.symbol(self.name, self.signed)


class Relation(IntEnum):
    """How inference takes two sizes to be related."""

    EQUAL = 0
    BROADCAST = 1  # equal, or one of them 1
    AT_MOST = 2  # the left one not larger than the right one


@dataclass(frozen=True)
class Assumption:
    """Two sizes that inference took to be related; checked in every run. `origin` is the ONNX node that needs it."""

    left: Dim
    right: Dim
    relation: Relation
    origin: str = ""


@dataclass(frozen=True, eq=False)
class Graph:
    """A whole model. `nodes` are in an order in which every value is computed before it is used."""

    inputs: tuple[Value, ...]
    outputs: tuple[tuple[str, Value], ...]
    nodes: tuple[Node, ...]
    late_symbols: tuple[LateSymbol, ...] = ()
    assumptions: tuple[Assumption, ...] = ()

    def producers(self) -> dict[Value, Node]:
        return {output: node for node in self.nodes for output in node.outputs}

    def consumers(self) -> dict[Value, list[Node]]:
        """For every value the nodes that read it (once for each time they do)."""
        result: dict[Value, list[Node]] = {}
        for node in self.nodes:
            for value in node.operands():
                result.setdefault(value, []).append(node)
        return result

    def output_values(self) -> set[Value]:
        return {value for _, value in self.outputs}

    def kept_values(self) -> set[Value]:
        """The values that have to be in memory whoever reads them: outputs, and what late symbols are bound to."""
        return self.output_values() | {symbol.source for symbol in self.late_symbols}
