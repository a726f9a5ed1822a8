"""Rounds operands of float32 products to bfloat16: half the bytes to read, and more products an instruction.

Weights alone are widened where they are read, and multiplied in float32; they halve what products of few rows wait
for. A CPU that multiplies pairs of bfloat16 gets left operands of bfloat16 too.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from onnxsmith_compiler.ir import dtype as dtypes
from onnxsmith_compiler.ir.graph import Blocks, Graph, Node, TensorType, Value
from onnxsmith_compiler.ops.builder import GraphBuilder
from onnxsmith_compiler.ops.cast import Cast
from onnxsmith_compiler.ops.packed import PackedConv, PackedMatMul, in_pairs
from onnxsmith_compiler.ops.rounding import narrowed
from onnxsmith_compiler.ops.view import Pad
from onnxsmith_compiler.passes.rewrite import Rewriter, rewrite_nodes

_FLOATS = (dtypes.FLOAT32, dtypes.BFLOAT16)


def narrow_operands(graph: Graph, pairs: bool) -> Graph:
    """`graph` with the constant float32 weights of packed products as bfloat16, rounded to nearest even.

    With `pairs` the left operands are rounded too, but for those of windows over an odd number of channels. Exact
    operators stay as they are, and Winograd's, whose weights are transformed.
    """
    widened = {
        node.output: source
        for node in graph.nodes
        for source in node.operands()
        if isinstance(node.op, Cast) and node.op.to is dtypes.FLOAT32 and source.dtype is dtypes.BFLOAT16
    }

    def rewrite(rewriter: Rewriter, node: Node) -> Value | None:
        op = node.op
        if not isinstance(op, PackedMatMul | PackedConv) or op.exact:
            return None
        x, weights = node.operands()
        if not weights.is_constant or weights.dtype not in _FLOATS or x.dtype is not dtypes.FLOAT32:
            return None
        builder, depth = rewriter.builder, _depth(op, weights)
        if not pairs or (depth % 2 and isinstance(op, PackedConv)):
            return None if weights.dtype is dtypes.BFLOAT16 else builder.emit(op, x, _rounded(builder, weights))
        if depth % 2:
            left = builder.emit(Cast(dtypes.BFLOAT16), _with_a_zero(builder, x))
        elif x in widened:
            left = rewriter.new(widened[x])
        else:
            left = builder.emit(Cast(dtypes.BFLOAT16), x)
        return builder.emit(replace(op, pairs=True), left, _rounded_pairs(builder, weights))

    return rewrite_nodes(graph, rewrite)


def _depth(op: PackedMatMul | PackedConv, weights: Value) -> int:
    """The terms of a sum in one tap."""
    depth = weights.shape[-2]
    assert isinstance(depth, int)
    return depth // op.window.taps if isinstance(op, PackedConv) else depth


def _rounded(builder: GraphBuilder, weights: Value) -> Value:
    """Constant panels as bfloat16."""

    def blocks() -> Iterator[np.ndarray]:
        return (narrowed(block, dtypes.BFLOAT16.storage) for block in weights.blocks())

    return builder.computed_constant(TensorType(dtypes.BFLOAT16, weights.shape), Blocks(blocks))


def _rounded_pairs(builder: GraphBuilder, weights: Value) -> Value:
    """Constant panels as bfloat16 in pairs, with a row of zeros at the end where there is an odd number."""
    *outer, depth, columns = weights.shape
    assert isinstance(depth, int)

    def compute() -> np.ndarray:
        assert weights.data is not None
        narrow = narrowed(weights.data, dtypes.BFLOAT16.storage)
        if depth % 2:
            narrow = np.concatenate([narrow, np.zeros_like(narrow[..., :1, :])], axis=-2)
        return in_pairs(narrow)

    return builder.computed_constant(TensorType(dtypes.BFLOAT16, (*outer, depth + depth % 2, columns)), compute)


def _with_a_zero(builder: GraphBuilder, x: Value) -> Value:
    """`x` with a zero at the end of every row."""
    before = (0,) * x.rank
    return builder.emit(Pad(before, (*before[1:], 1)), x, builder.constant(np.float32(0)))
