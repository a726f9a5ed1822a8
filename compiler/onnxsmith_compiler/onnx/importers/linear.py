"""Matrix products: MatMul and Gemm; determinants."""

from __future__ import annotations

from onnxsmith_compiler.ir import dtype as dtypes
from onnxsmith_compiler.ir.graph import Value
from onnxsmith_compiler.onnx.node_import import NodeImport
from onnxsmith_compiler.ops.contraction import MatMul
from onnxsmith_compiler.ops.determinant import Determinant


def matmul(node: NodeImport) -> Value:
    return product(node, node.input(0), node.input(1))


def product(node: NodeImport, a: Value, b: Value) -> Value:
    """numpy.matmul, vectors included."""
    if a.rank == 0 or b.rank == 0:
        raise node.invalid(f"inputs have ranks {a.rank} and {b.rank}: expected 1 or more")
    left = node.unsqueeze(a, [0]) if a.rank == 1 else a
    right = node.unsqueeze(b, [1]) if b.rank == 1 else b
    result = node.emit(MatMul(), left, right)
    drop = [result.rank - 1] * (b.rank == 1) + [result.rank - 2] * (a.rank == 1)
    return node.squeeze(result, drop) if drop else result


def gemm(node: NodeImport) -> Value:
    """alpha * A' B' + beta * C."""
    a, b, c = node.input(0), node.input(1), node.optional(2)
    if a.rank != 2 or b.rank != 2:
        raise node.invalid(f"A and B have ranks {a.rank} and {b.rank}: expected 2")
    if node.flag("transA"):
        a = node.transpose(a, [1, 0])
    if node.flag("transB"):
        b = node.transpose(b, [1, 0])
    result = _scaled(node, node.emit(MatMul(), a, b), node.float("alpha", 1.0))
    beta = node.float("beta", 1.0)
    if c is None or beta == 0:
        return result
    return node.add(result, _scaled(node, c, beta))


def _scaled(node: NodeImport, value: Value, factor: float) -> Value:
    """Integers are multiplied in float64 and truncated."""
    if factor == 1:
        return value
    if value.dtype.is_float:
        return node.mul(value, factor)
    return node.cast(node.mul(node.cast(value, dtypes.FLOAT64), factor), value.dtype)


def det(node: NodeImport) -> Value:
    x = node.input(0)
    return node.cast(node.emit(Determinant(), node.cast(x, dtypes.FLOAT64)), x.dtype)
