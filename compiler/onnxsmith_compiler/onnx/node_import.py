"""What an importer works with: one ONNX node, its operands as tensor-IR values, and shorthands to emit operators."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np

from onnxsmith_compiler.errors import InvalidGraph, UnsupportedFeature
from onnxsmith_compiler.ir import dim as dims
from onnxsmith_compiler.ir import dtype as dtypes
from onnxsmith_compiler.ir.dim import Dim
from onnxsmith_compiler.ir.dtype import DType
from onnxsmith_compiler.ir.graph import Value
from onnxsmith_compiler.onnx.model import AttributeValue, OnnxNode
from onnxsmith_compiler.ops.base import Op, Shape, ShapeError, normalize_axis
from onnxsmith_compiler.ops.builder import GraphBuilder
from onnxsmith_compiler.ops.cast import Cast
from onnxsmith_compiler.ops.pointwise import Pointwise
from onnxsmith_compiler.ops.reduce import Reduce
from onnxsmith_compiler.ops.view import Expand, Reshape, Transpose

# NodeImport has methods `int` and `float`, which hide these types from its annotations.
Int: TypeAlias = int
Float: TypeAlias = float
Results: TypeAlias = Value | Sequence[Value | None]


@dataclass(frozen=True, eq=False)
class NodeImport:
    """One node on its way in. `inputs` has None where an optional input was left out."""

    node: OnnxNode
    inputs: tuple[Value | None, ...]
    builder: GraphBuilder

    @property
    def version(self) -> Int:
        """The opset version in force."""
        return self.node.version

    # operands

    def optional(self, position: Int) -> Value | None:
        return self.inputs[position] if position < len(self.inputs) else None

    def input(self, position: Int) -> Value:
        value = self.optional(position)
        if value is None:
            raise InvalidGraph(f"{self.node}: input {position} is missing")
        return value

    def has_output(self, position: Int) -> bool:
        return position < len(self.node.outputs) and self.node.outputs[position] is not None

    def sizes(self, value: Value, what: str = "value") -> list[Dim]:
        """The elements of a small integer tensor as Dims: known now, or read from the tensor when it runs."""
        if value.known is not None:
            return [int(e) if isinstance(e, Int | np.integer | np.bool_) else e for e in value.known.flat]
        count = value.type.size
        if not isinstance(count, Int):
            raise self.unsupported(f"the number of elements of {what} is known only when the model runs")
        return [self.builder.late_symbol(value, number) for number in range(count)]

    def integers(self, value: Value, what: str) -> list[Int]:
        """The elements of an integer tensor that must be known when the model is compiled."""
        if value.known is None or not all(isinstance(element, Int) for element in value.known.flat):
            raise self.unsupported(f"{what} must be known when the model is compiled")
        return [int(element) for element in value.known.flat]

    # attributes

    def attribute(self, name: str) -> AttributeValue | None:
        return self.node.attributes.get(name)

    def int(self, name: str, default: Int | None = None) -> Int:
        return int(self.node.attribute(name, Int, default))

    def flag(self, name: str, default: bool = False) -> bool:
        return bool(self.int(name, int(default)))

    def float(self, name: str, default: Float | None = None) -> Float:
        value = self.node.attributes.get(name, default)
        if value is None:
            raise InvalidGraph(f"{self.node}: attribute '{name}' is missing")
        return float(value)  # type: ignore[arg-type]

    def string(self, name: str, default: str | None = None) -> str:
        return self.node.attribute(name, str, default)

    def ints(self, name: str) -> list[Int] | None:
        value = self.node.attributes.get(name)
        return None if value is None else [int(element) for element in value]  # type: ignore[arg-type, union-attr]

    def floats(self, name: str) -> list[Float] | None:
        value = self.node.attributes.get(name)
        return None if value is None else [float(element) for element in value]  # type: ignore[arg-type, union-attr]

    def strings(self, name: str) -> list[str] | None:
        value = self.node.attributes.get(name)
        return None if value is None else [element if isinstance(element, str) else repr(element) for element in value]  # type: ignore[union-attr]

    def axis(self, name: str, default: Int | None, rank: Int) -> Int:
        return normalize_axis(self.int(name, default), rank)

    def dtype(self, name: str, default: DType | None = None) -> DType:
        """An attribute that holds a TensorProto.DataType."""
        code = self.node.attributes.get(name)
        if code is None:
            if default is None:
                raise InvalidGraph(f"{self.node}: attribute '{name}' is missing")
            return default
        if not isinstance(code, Int) or code not in dtypes.BY_ONNX_CODE:
            raise InvalidGraph(f"{self.node}: attribute '{name}' is {code!r}, which is no element type")
        return dtypes.BY_ONNX_CODE[code]

    # emission

    def emit(self, op: Op, *inputs: Value | None) -> Value:
        return self.builder.emit(op, *inputs)

    def emit_all(self, op: Op, *inputs: Value | None) -> tuple[Value, ...]:
        return self.builder.emit_all(op, *inputs)

    def constant(self, data: object, dtype: DType) -> Value:
        return self.builder.constant(np.asarray(data, dtype=dtype.storage), dtype)

    def sizes_constant(self, values: Sequence[Dim], shape: tuple[Int, ...] | None = None) -> Value:
        return self.builder.dims_constant(values, shape)

    def map(self, function: str, *operands: Value | Float) -> Value:
        """A pointwise function; plain numbers become 0-d constants of the first tensor's type."""
        tensors = [operand for operand in operands if isinstance(operand, Value)]
        dtype = tensors[-1].dtype if function == "select" else tensors[0].dtype
        values = [o if isinstance(o, Value) else self.constant(o, dtype) for o in operands]
        return self.emit(Pointwise(function), *values)

    def add(self, a: Value | Float, b: Value | Float) -> Value:
        return self.map("add", a, b)

    def sub(self, a: Value | Float, b: Value | Float) -> Value:
        return self.map("sub", a, b)

    def mul(self, a: Value | Float, b: Value | Float) -> Value:
        return self.map("mul", a, b)

    def div(self, a: Value | Float, b: Value | Float) -> Value:
        return self.map("div", a, b)

    def select(self, condition: Value, a: Value | Float, b: Value | Float) -> Value:
        return self.map("select", condition, a, b)

    def cast(self, value: Value, to: DType) -> Value:
        return value if value.dtype is to else self.emit(Cast(to), value)

    def reshape(self, value: Value, shape: Shape) -> Value:
        return value if value.shape == shape else self.emit(Reshape(shape), value)

    def transpose(self, value: Value, permutation: Sequence[Int]) -> Value:
        if list(permutation) == list(range(value.rank)):
            return value
        return self.emit(Transpose(tuple(permutation)), value)

    def expand(self, value: Value, shape: Shape) -> Value:
        return value if value.shape == shape else self.emit(Expand(shape), value)

    def unsqueeze(self, value: Value, axes: Sequence[Int]) -> Value:
        """`axes` count in the result and are not negative."""
        shape = list(value.shape)
        for axis in sorted(axes):
            shape.insert(axis, 1)
        return self.reshape(value, tuple(shape))

    def squeeze(self, value: Value, axes: Sequence[Int]) -> Value:
        return self.reshape(value, tuple(size for axis, size in enumerate(value.shape) if axis not in axes))

    def reduce(self, kind: str, value: Value, axes: Sequence[Int], keepdims: bool = True) -> Value:
        result = self.emit(Reduce(kind, tuple(sorted(axes))), value)
        return result if keepdims else self.squeeze(result, axes)

    def mean(self, value: Value, axes: Sequence[Int], keepdims: bool = True) -> Value:
        """The mean along axes, computed as a sum times the reciprocal of the count."""
        count = dims.product([value.shape[axis] for axis in axes])
        total = self.reduce("sum", value, axes, keepdims)
        return self.div(total, self.count(count, value.dtype))

    def count(self, size: Dim, dtype: DType) -> Value:
        """A 0-d tensor that holds a size."""
        if isinstance(size, Int):
            return self.constant(size, dtype)
        return self.cast(self.sizes_constant([size], ()), dtype)

    def unsupported(self, why: str) -> UnsupportedFeature:
        return UnsupportedFeature(f"{self.node}: {why}")

    def invalid(self, why: str) -> InvalidGraph:
        return InvalidGraph(f"{self.node}: {why}")


Importer: TypeAlias = Callable[[NodeImport], Results]

__all__ = ["Importer", "NodeImport", "Results", "ShapeError"]
