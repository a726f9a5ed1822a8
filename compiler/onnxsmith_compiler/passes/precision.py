"""Stores weights of float32 products as bfloat16: half the bytes to read, which products of few rows wait for."""

from __future__ import annotations

from onnxsmith_compiler.ir import dtype as dtypes
from onnxsmith_compiler.ir.graph import Graph, Node, Value
from onnxsmith_compiler.ops.packed import PackedConv, PackedMatMul
from onnxsmith_compiler.ops.rounding import narrowed
from onnxsmith_compiler.passes.rewrite import Rewriter, rewrite_nodes


def narrow_weights(graph: Graph) -> Graph:
    """`graph` with the constant float32 weights of packed products as bfloat16, rounded to nearest even.

    Those of exact operators stay, and Winograd's, which are transformed.
    """

    def rewrite(rewriter: Rewriter, node: Node) -> Value | None:
        if not isinstance(node.op, PackedMatMul | PackedConv) or node.op.exact:
            return None
        x, weights = node.operands()
        if weights.data is None or weights.dtype is not dtypes.FLOAT32:
            return None
        narrow = rewriter.builder.constant(narrowed(weights.data, dtypes.BFLOAT16.storage), dtypes.BFLOAT16)
        return rewriter.builder.emit(node.op, x, narrow)

    return rewrite_nodes(graph, rewrite)
