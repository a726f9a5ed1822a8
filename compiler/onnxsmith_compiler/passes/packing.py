"""Gives every matrix product its packed form: constants are packed now, other operands when the model runs."""

from __future__ import annotations

from onnxsmith_compiler.ir import dtype as dtypes
from onnxsmith_compiler.ir.graph import Graph, Node, Value
from onnxsmith_compiler.ops.base import broadcast_shapes
from onnxsmith_compiler.ops.builder import GraphBuilder
from onnxsmith_compiler.ops.cast import Cast
from onnxsmith_compiler.ops.contraction import MatMul
from onnxsmith_compiler.ops.packed import PackedMatMul, pack_columns, widened
from onnxsmith_compiler.ops.pointwise import Pointwise
from onnxsmith_compiler.ops.reduce import Reduce
from onnxsmith_compiler.ops.view import Expand, Reshape, Transpose
from onnxsmith_compiler.ops.windows import TileColumns
from onnxsmith_compiler.passes.rewrite import Rewriter, rewrite_nodes


def pack_matmuls(graph: Graph, tile_columns: TileColumns) -> Graph:
    def rewrite(rewriter: Rewriter, node: Node) -> Value | None:
        if not isinstance(node.op, MatMul):
            return None
        a, b = node.operands()
        return multiply(rewriter.builder, a, b, tile_columns, node.op.exact)

    return rewrite_nodes(graph, rewrite)


def multiply(builder: GraphBuilder, a: Value, b: Value, tile_columns: TileColumns, exact: bool = False) -> Value:
    """numpy.matmul of tensors of rank 2 and up. Narrow floats are multiplied in float32, integers by plain loops."""
    dtype = a.dtype
    if not dtype.is_float:
        return _multiply_integers(builder, a, b)
    if dtype.compute is not dtype:
        wide_a = builder.emit(Cast(dtypes.FLOAT32), a)
        wide = multiply(builder, wide_a, widened(builder, b), tile_columns, exact or dtype is dtypes.FLOAT16)
        return builder.emit(Cast(dtype), wide)
    if b.rank > 2 and all(size == 1 for size in b.shape[:-2]) and a.rank >= b.rank:
        b = builder.emit(Reshape(b.shape[-2:]), b)
    a, b = _few_batch_axes(builder, a, b)
    columns = tile_columns(dtype, b.shape[-1])
    packed = pack_columns(builder, b, columns)
    return builder.emit(PackedMatMul(b.shape[-1], columns, exact), a, packed)


_MAX_BATCH_AXES = 3


def _few_batch_axes(builder: GraphBuilder, a: Value, b: Value) -> tuple[Value, Value]:
    """The kernel takes up to three batch axes: broadcasts written out, and joined, where there are more."""
    if max(a.rank, b.rank) - 2 <= _MAX_BATCH_AXES or b.rank == 2:
        return a, b
    batch = broadcast_shapes([a.shape[:-2], b.shape[:-2]])
    a = builder.emit(Expand((*batch, *a.shape[-2:])), a)
    b = builder.emit(Expand((*batch, *b.shape[-2:])), b)
    return a, b


def _multiply_integers(builder: GraphBuilder, a: Value, b: Value) -> Value:
    """sum over k of a[..., m, 1, k] * b[..., 1, n, k]."""
    rank_a, rank_b = a.rank, b.rank
    left = builder.emit(Reshape((*a.shape[:-1], 1, a.shape[-1])), a)
    turned = builder.emit(Transpose((*range(rank_b - 2), rank_b - 1, rank_b - 2)), b)
    right = builder.emit(Reshape((*turned.shape[:-2], 1, *turned.shape[-2:])), turned)
    products = builder.emit(Pointwise("mul"), left, right)
    total = builder.emit(Reduce("sum", (max(rank_a, rank_b),)), products)
    return builder.emit(Reshape(total.shape[:-1]), total)
