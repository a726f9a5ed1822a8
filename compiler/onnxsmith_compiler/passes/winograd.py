"""Computes convolutions by Winograd's algorithm where that is faster.

Transformed weights are float32 whatever the model's or the precision asked for: the transforms would magnify rounding.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np

from onnxsmith_compiler.ir import dtype as dtypes
from onnxsmith_compiler.ir.dim import Dim
from onnxsmith_compiler.ir.graph import Graph, Node, Value
from onnxsmith_compiler.ops.packed import PackedConv
from onnxsmith_compiler.ops.winograd import WinogradConv, transformed_weights
from onnxsmith_compiler.passes.rewrite import Rewriter, rewrite_nodes

ChooseBlock = Callable[[int, int, int | None, int | None, int], int]
"""The extent of output blocks for (input channels, output channels, height and width of an output, bytes of an element
of the direct convolution's weights), 0 for none.

Sizes that only a run can tell are None. The number of images is not among them: results must not depend on it.
"""


def use_winograd(graph: Graph, choose_block: ChooseBlock, matrices: Mapping[int, np.ndarray]) -> Graph:
    """`graph` with WinogradConv where `choose_block` says so; `matrices[block]` transforms weights."""

    def rewrite(rewriter: Rewriter, node: Node) -> Value | None:
        op = node.op
        if not isinstance(op, PackedConv) or not _is_eligible(op, node):
            return None
        x, weights = node.operands()
        assert isinstance(op.outputs, int) and isinstance(weights.shape[-2], int)
        channels = weights.shape[-2] // 9
        height, width = map(_known, op.window.output(x.shape[1:-1]))
        block = choose_block(channels, op.outputs, height, width, weights.dtype.itemsize)
        if block == 0:
            return None
        transformed = transformed_weights(rewriter.builder, weights, matrices[block])
        new = WinogradConv(op.window, block, op.outputs, op.columns)
        return rewriter.builder.emit(new, x, transformed)

    return rewrite_nodes(graph, rewrite)


def _is_eligible(op: PackedConv, node: Node) -> bool:
    """Whether it is a 3 by 3 window moved by one over images of float32, with constant weights."""
    x, weights = node.operands()
    window = op.window
    return (
        (window.size, window.strides, window.dilations, op.groups) == ((3, 3), (1, 1), (1, 1), 1)
        and weights.is_constant
        and isinstance(op.outputs, int)
        and x.dtype is dtypes.FLOAT32
    )


def _known(size: Dim) -> int | None:
    return size if isinstance(size, int) else None
