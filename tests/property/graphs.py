"""Random valid graphs: what is drawn, node by node, and the model that it makes.

A draft's shapes are made of symbols and constants, so that it is valid for every size of its symbols. Its floats have
no fixed width: `model(np.float64)` is the same graph in double precision, whose results tell how far those in single,
or in half precision, can be trusted.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import numpy as np
import onnx
from hypothesis import strategies as st
from onnx import helper, numpy_helper

Array = np.ndarray[Any, np.dtype[Any]]
Draw: TypeAlias = Callable[[st.SearchStrategy[Any]], Any]
Size: TypeAlias = int | str
Shape: TypeAlias = tuple[Size, ...]
Real: TypeAlias = type[Any]
"""A floating type of numpy, or of ml_dtypes."""

OPSET = 20
REAL = "real"
"""The element type that `Draft.model` chooses."""

_MOVES = frozenset(
    [
        "Abs", "Clip", "Concat", "Expand", "Flatten", "Gather", "Identity", "Max", "MaxPool", "Min", "Neg", "ReduceMax",
        "ReduceMin", "Relu", "Reshape", "Slice", "Transpose", "Unsqueeze", "Where",
    ]
)  # fmt: skip
"""Operators that round in no precision: what they give was among their operands, but for the sign."""

_SPECIAL = (np.nan, np.inf, -np.inf, -0.0, 0.0)


@dataclass(frozen=True)
class Tensor:
    """A value of a draft; `dtype` is REAL or numpy's name. `exact`: no operation that leads to it rounds."""

    name: str
    dtype: str
    shape: Shape
    exact: bool = True

    @property
    def rank(self) -> int:
        return len(self.shape)


@dataclass(frozen=True)
class _Node:
    op_type: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    attributes: Mapping[str, Any]


@dataclass(eq=False)
class Draft:
    """A graph under construction. With `batch`, axis 0 of every value that is not constant is that symbol.

    `ordinary`: it is to be fed finite numbers alone. `narrow`: its floats are to have 16 bits, which hold no sum.
    """

    draw: Draw
    symbols: tuple[str, ...]
    batch: str = ""
    inputs: list[Tensor] = field(default_factory=list)
    values: list[Tensor] = field(default_factory=list)
    constants: dict[str, tuple[Array, str]] = field(default_factory=dict)
    nodes: list[_Node] = field(default_factory=list)
    outputs: list[Tensor] = field(default_factory=list)
    ordinary: bool = False
    narrow: bool = False

    @property
    def first_axis(self) -> int:
        """The first axis along which elements may be mixed."""
        return 1 if self.batch else 0

    def name(self) -> str:
        return f"v{len(self.values) + len(self.constants)}"

    def input(self, dtype: str, shape: Shape) -> Tensor:
        tensor = Tensor(self.name(), dtype, shape)
        self.inputs.append(tensor)
        self.values.append(tensor)
        return tensor

    def constant(self, array: Array, dtype: str) -> str:
        name = self.name()
        self.constants[name] = (array, dtype)
        return name

    def integers(self, *values: int) -> str:
        """A constant vector of int64, as axes and shapes are."""
        return self.constant(np.array(values, np.int64), "int64")

    def weights(self, *shape: int) -> str:
        """A constant of REAL, of short fractions."""
        seed = self.draw(st.integers(0, 1000))
        return self.constant(np.random.default_rng(seed).integers(-8, 9, shape) / 8, REAL)

    def node(
        self, op_type: str, inputs: Sequence[str | Tensor], dtype: str, shape: Shape, exact: bool, **attributes: Any
    ) -> Tensor:
        """Appends a node of one output."""
        if self.narrow and dtype == REAL:
            exact = exact and op_type in _MOVES
        names = tuple(value.name if isinstance(value, Tensor) else value for value in inputs)
        tensor = Tensor(self.name(), dtype, shape, exact)
        self.nodes.append(_Node(op_type, names, (tensor.name,), attributes))
        self.values.append(tensor)
        return tensor

    def pick(self, accept: Callable[[Tensor], bool]) -> Tensor | None:
        """A value that `accept` takes, late ones more likely."""
        found = [value for value in self.values if accept(value)]
        return self.draw(st.sampled_from([*found, *found[-2:]])) if found else None

    def model(self, real: Real) -> onnx.ModelProto:
        graph = helper.make_graph(
            [self._proto(node, real) for node in self.nodes],
            "drawn",
            [_declare(tensor, real) for tensor in self.inputs],
            [onnx.ValueInfoProto(name=tensor.name) for tensor in self.outputs],
            [
                numpy_helper.from_array(array.astype(_numpy(dtype, real)), name)
                for name, (array, dtype) in self.constants.items()
            ],
        )
        return helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=10)

    def _proto(self, node: _Node, real: Real) -> onnx.NodeProto:
        attributes: dict[str, Any] = {
            key: helper.np_dtype_to_tensor_dtype(_numpy(value, real)) if key == "to" else value
            for key, value in node.attributes.items()
        }
        return helper.make_node(node.op_type, node.inputs, node.outputs, None, **attributes)

    def feed(self, sizes: Mapping[str, int], seed: int, special: float) -> dict[str, Array]:
        """Inputs in double precision, of short fractions; a share of `special` of the floats are not ordinary."""
        rng = np.random.default_rng(seed)
        feed: dict[str, Array] = {}
        for tensor in self.inputs:
            shape = concrete(tensor.shape, sizes)
            if tensor.dtype == "bool":
                feed[tensor.name] = rng.random(shape) < 0.5
            elif tensor.dtype == REAL:
                values = np.asarray(rng.integers(-24, 25, shape) / 8)
                unusual = (rng.random(shape) < special) & (not self.ordinary)
                feed[tensor.name] = np.where(unusual, rng.choice(_SPECIAL, shape), values)
            else:
                feed[tensor.name] = np.asarray(rng.integers(-9, 10, shape)).astype(tensor.dtype)
        return feed


def concrete(shape: Shape, sizes: Mapping[str, int]) -> tuple[int, ...]:
    return tuple(sizes[size] if isinstance(size, str) else size for size in shape)


def elements(draft: Draft, sizes: Mapping[str, int]) -> int:
    """The number of elements of the largest value."""
    return max(int(np.prod(concrete(value.shape, sizes))) for value in draft.values)


def rounded(feed: Mapping[str, Array], real: Real) -> dict[str, Array]:
    """`feed` with its doubles as `real`."""
    return {name: value.astype(real) if value.dtype == np.float64 else value for name, value in feed.items()}


def _numpy(dtype: str, real: Real) -> np.dtype[Any]:
    return np.dtype(real if dtype == REAL else dtype)


def _declare(tensor: Tensor, real: Real) -> onnx.ValueInfoProto:
    code = helper.np_dtype_to_tensor_dtype(_numpy(tensor.dtype, real))
    return helper.make_tensor_value_info(tensor.name, code, tensor.shape)
