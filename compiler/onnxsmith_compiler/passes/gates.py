"""Moves factors that are the same for all rows of a matrix from the matrix into the weights it is multiplied by.

    (x * gate) @ W  ->  x @ (gate * W)      where gate has one element a column of x, or one for each column and image

This is the end of squeeze and excite: the gate comes from a mean of x, so that x is in memory before the gate is known,
and multiplying it is a pass over the whole map. The weights of the 1 by 1 convolution that follows are often far fewer.
The sizes of one image decide, never the batch, so that an image's bits do not depend on what it is run with.
"""

from __future__ import annotations

from collections.abc import Sequence

from onnxsmith_compiler.ir import dim as dims
from onnxsmith_compiler.ir.dim import Dim
from onnxsmith_compiler.ir.graph import Graph, Node, Value
from onnxsmith_compiler.ops.builder import GraphBuilder
from onnxsmith_compiler.ops.packed import PackedMatMul
from onnxsmith_compiler.ops.pointwise import Pointwise
from onnxsmith_compiler.ops.view import Reshape
from onnxsmith_compiler.passes.rewrite import Rewriter, rewrite_nodes

_LEAST_GAIN = 4
"""How many times as many rows as columns of weights there must be: below, packed weights cost as much as the map."""


def move_gates(graph: Graph) -> Graph:
    """`graph`, in which products are packed, with gates in weights where that saves most of a pass over a map."""
    producers, consumers, kept = graph.producers(), graph.consumers(), graph.kept_values()

    def rewrite(rewriter: Rewriter, node: Node) -> Value | None:
        if not isinstance(node.op, PackedMatMul):
            return None
        a, panels = node.operands()
        source = producers.get(a)
        if source is None or source.op != Pointwise("mul") or len(consumers[a]) != 1 or a in kept:
            return None
        if panels.dtype is not a.dtype or panels.rank != 3:
            return None
        left, right = source.operands()
        for x, gate in ((left, right), (right, left)):
            axes = _image_axes(x, gate) if x.type == a.type else None
            # what nothing else reads is multiplied where it is made
            if axes is not None and len(consumers[x]) > 1 and _gains(x.shape[axes:-1], panels):
                return _multiply(rewriter.builder, node.op, rewriter.new(x), rewriter.new(gate), panels, axes)
        return None

    return rewrite_nodes(graph, rewrite)


def _image_axes(x: Value, gate: Value) -> int | None:
    """How many outer axes of `x` `gate` varies along, if along no other but the last; None where it is no gate."""
    shape = (*(1 for _ in range(x.rank - gate.rank)), *gate.shape)
    if gate.is_constant or shape[-1] != x.shape[-1]:
        return None
    axes = max((axis + 1 for axis in range(x.rank - 1) if shape[axis] != 1), default=0)
    return axes if shape[:axes] == x.shape[:axes] and axes < x.rank - 1 else None


def _gains(rows: Sequence[Dim], panels: Value) -> bool:
    count, columns = dims.product(rows), panels.shape[0] * panels.shape[2]
    return isinstance(count, int) and isinstance(columns, int) and count >= _LEAST_GAIN * columns


def _multiply(builder: GraphBuilder, op: PackedMatMul, x: Value, gate: Value, panels: Value, axes: int) -> Value:
    """`x` times the panels of each image, a batch of products over the first `axes` axes."""
    images, depth = x.shape[:axes], x.shape[-1]
    factors = builder.emit(Reshape((*images, 1, depth, 1)), gate)
    scaled = builder.emit(Pointwise("mul"), panels, factors)
    if not axes:
        return builder.emit(op, x, builder.emit(Reshape(panels.shape), scaled))
    rows = builder.emit(Reshape((*images, dims.product(x.shape[axes:-1]), depth)), x)
    return builder.emit(Reshape((*x.shape[:-1], op.n)), builder.emit(op, rows, scaled))
