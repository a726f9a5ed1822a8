"""Matrix products: MatMul, Gemm, Einsum."""

from __future__ import annotations

from onnxsmith_compiler.ir.graph import Value
from onnxsmith_compiler.onnx.node_import import NodeImport
from onnxsmith_compiler.ops.contraction import MatMul


def matmul(node: NodeImport) -> Value:
    return product(node, node.input(0), node.input(1))


def product(node: NodeImport, a: Value, b: Value) -> Value:
    """numpy.matmul, vectors included."""
    left = node.unsqueeze(a, [0]) if a.rank == 1 else a
    right = node.unsqueeze(b, [1]) if b.rank == 1 else b
    result = node.emit(MatMul(), left, right)
    drop = [result.rank - 1] * (b.rank == 1) + [result.rank - 2] * (a.rank == 1)
    return node.squeeze(result, drop) if drop else result


def gemm(node: NodeImport) -> Value:
    """alpha * A' B' + beta * C."""
    a, b, c = node.input(0), node.input(1), node.optional(2)
    if node.flag("transA"):
        a = node.transpose(a, [1, 0])
    if node.flag("transB"):
        b = node.transpose(b, [1, 0])
    result = node.emit(MatMul(), a, b)
    alpha, beta = node.float("alpha", 1.0), node.float("beta", 1.0)
    if alpha != 1:
        result = _scaled(node, result, alpha)
    if c is None:
        return result
    if beta != 1:
        c = _scaled(node, c, beta)
    return node.add(result, c)


def _scaled(node: NodeImport, value: Value, factor: float) -> Value:
    from onnxsmith_compiler.ir import dtype as dtypes

    if value.dtype.is_float:
        return node.mul(value, factor)
    return node.cast(node.mul(node.cast(value, dtypes.FLOAT64), factor), value.dtype)
