"""Stores weights of float32 products as bfloat16: half the bytes to read, which products of few rows wait for."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from onnxsmith_compiler.ir import dtype as dtypes
from onnxsmith_compiler.ir.graph import Blocks, Graph, Node, TensorType, Value
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
        if not weights.is_constant or weights.dtype is not dtypes.FLOAT32:
            return None

        def rounded() -> Iterator[np.ndarray]:
            return (narrowed(block, dtypes.BFLOAT16.storage) for block in weights.blocks())

        narrow = rewriter.builder.computed_constant(TensorType(dtypes.BFLOAT16, weights.shape), Blocks(rounded))
        return rewriter.builder.emit(node.op, x, narrow)

    return rewrite_nodes(graph, rewrite)
