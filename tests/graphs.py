"""Small tensor-IR graphs built by hand, and their outputs compared with numpy's, uncompiled."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from onnxsmith_compiler.ir import dim as dims
from onnxsmith_compiler.ir import dtype as dtypes
from onnxsmith_compiler.ir.dim import Dim
from onnxsmith_compiler.ir.dtype import DType
from onnxsmith_compiler.ir.graph import Graph, TensorType, Value
from onnxsmith_compiler.ops.base import Op
from onnxsmith_compiler.ops.builder import GraphBuilder
from onnxsmith_compiler.ops.cast import Cast
from onnxsmith_compiler.ops.contraction import MatMul
from onnxsmith_compiler.ops.pointwise import Pointwise
from onnxsmith_compiler.ops.reduce import Reduce
from onnxsmith_compiler.ops.view import Concat, Expand, Reshape, Slice, Transpose
from onnxsmith_compiler.options import CompileOptions
from tests.interpreter import run_kernels, run_operators

Array = np.ndarray[Any, np.dtype[Any]]
Size = Dim | str


class Sketch:
    """A graph under construction. Sizes given as a string are symbols; `feeds` holds an array for every input."""

    def __init__(self, fold: bool = True) -> None:
        self.builder = GraphBuilder(fold=fold)
        self.inputs: list[Value] = []
        self.outputs: list[tuple[str, Value]] = []
        self.feeds: dict[str, Array] = {}

    def input(self, shape: Sequence[Size], array: Array | None = None, dtype: DType = dtypes.FLOAT32) -> Value:
        if array is not None:
            dtype = dtypes.from_numpy(array.dtype)
        sizes = tuple(dims.symbol(size) if isinstance(size, str) else size for size in shape)
        value = Value(f"x{len(self.inputs)}", TensorType(dtype, sizes))
        self.inputs.append(value)
        if array is not None:
            self.feeds[value.name] = array
        return value

    def fed(self, array: Array, *symbols: str) -> Value:
        """An input that is fed `array`; its first sizes are `symbols`, the others as they are."""
        return self.input([*symbols, *array.shape[len(symbols) :]], array)

    def constant(self, data: object, dtype: DType = dtypes.FLOAT32) -> Value:
        return self.builder.constant(np.asarray(data, dtype.storage), dtype)

    def emit(self, op: Op, *operands: Value) -> Value:
        return self.builder.emit(op, *operands)

    def map(self, function: str, *operands: Value | float) -> Value:
        """A pointwise function; plain numbers become 0-d constants of the last tensor's type."""
        dtype = [operand for operand in operands if isinstance(operand, Value)][-1].dtype
        return self.emit(
            Pointwise(function), *(o if isinstance(o, Value) else self.constant(o, dtype) for o in operands)
        )

    def reduce(self, kind: str, x: Value, *axes: int) -> Value:
        return self.emit(Reduce(kind, tuple(axis % x.rank for axis in axes)), x)

    def softmax(self, x: Value, axis: int = -1) -> Value:
        powers = self.map("exp", self.map("sub", x, self.reduce("max", x, axis)))
        return self.map("div", powers, self.reduce("sum", powers, axis))

    def reshape(self, x: Value, *shape: Size) -> Value:
        return self.emit(Reshape(tuple(dims.symbol(s) if isinstance(s, str) else s for s in shape)), x)

    def transpose(self, x: Value, *order: int) -> Value:
        return self.emit(Transpose(order), x)

    def expand(self, x: Value, *shape: Size) -> Value:
        return self.emit(Expand(tuple(dims.symbol(s) if isinstance(s, str) else s for s in shape)), x)

    def slice(self, x: Value, *axes: tuple[Dim, Dim, Dim]) -> Value:
        """(start, step, size) for every axis."""
        starts, steps, sizes = zip(*axes, strict=True)
        return self.emit(Slice(starts, steps, sizes), x)

    def concat(self, axis: int, *values: Value) -> Value:
        return self.emit(Concat(axis), *values)

    def matmul(self, a: Value, b: Value) -> Value:
        return self.emit(MatMul(), a, b)

    def cast(self, x: Value, to: DType) -> Value:
        return self.emit(Cast(to), x)

    def output(self, *values: Value) -> None:
        for value in values:
            self.outputs.append((f"y{len(self.outputs)}", value))

    def graph(self) -> Graph:
        return Graph(
            tuple(self.inputs),
            tuple(self.outputs),
            tuple(self.builder.nodes),
            tuple(self.builder.late_symbols),
            tuple(self.builder.assumptions.values()),
        )

    def check(self, *expected: object, level: int = 99, tolerance: float = 1e-5) -> None:
        """Printed kernels give what is expected: unless it is said, what the operators give one by one."""
        graph = self.graph()
        wanted = list(expected) or run_operators(graph, self.feeds)
        found = run_kernels(graph, self.feeds, CompileOptions(optimization_level=level))
        for (name, value), array, want in zip(graph.outputs, found, wanted, strict=True):
            assert array.dtype == value.dtype.storage, name
            want = np.asarray(want)
            if value.dtype.is_float:
                wide = array.astype(np.float64), want.astype(np.float64)
                np.testing.assert_allclose(*wide, tolerance, tolerance, err_msg=name, strict=True)
            else:
                assert array.shape == want.shape, name
                np.testing.assert_array_equal(array, want, err_msg=name)


def normal(*shape: int, seed: int = 0) -> Array:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)
