"""Moves constant factors into constant weights: batch normalisation after a convolution costs nothing then.

    conv(x, W) * s        ->  conv(x, W * s)          where s has one element a channel, or one in all
    matmul(x, W) * s      ->  matmul(x, W * s)
    (product + b) * s     ->  product * s + (b * s)   where product is one of these
    (product + b) + c     ->  product + (b + c)

Each only where the value in between has no other reader, and in float32 and float64, whose range a weight times
a factor does not leave by accident.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from onnxsmith_compiler.ir import dtype as dtypes
from onnxsmith_compiler.ir.graph import Graph, Node, Value
from onnxsmith_compiler.ops.builder import GraphBuilder
from onnxsmith_compiler.ops.contraction import Conv, MatMul
from onnxsmith_compiler.ops.pointwise import Pointwise
from onnxsmith_compiler.ops.view import Reshape
from onnxsmith_compiler.passes.rewrite import Rewriter

_MUL, _ADD = Pointwise("mul"), Pointwise("add")
_PRODUCTS = (Conv, MatMul)
_WIDE = (dtypes.FLOAT32, dtypes.FLOAT64)


def fold_scales(graph: Graph) -> Graph:
    return _FoldScales(graph).run()


@dataclass
class _FoldScales:
    graph: Graph
    uses: dict[Value, int] = field(default_factory=dict)
    producers: dict[Value, Node] = field(default_factory=dict)

    def run(self) -> Graph:
        rewriter = Rewriter(self.graph)
        for value, readers in self.graph.consumers().items():
            self.uses[value] = len(readers)
        for value in self.graph.output_values():
            self.uses[value] = self.uses.get(value, 0) + 1
        for node in self.graph.nodes:
            rewriter.builder.origin = node.origin
            new = None
            if node.op in (_MUL, _ADD):
                value, constant = self._split([rewriter.new(v) for v in node.operands()])
                if constant is not None and value.type == node.output.type and value.dtype in _WIDE:
                    new = self._fold(rewriter.builder, node.op, value, constant)
            if new is None:
                kept = rewriter.keep(node)
                self.producers.update(dict.fromkeys(kept.outputs, kept))
            else:
                rewriter.replaced[node.output] = new
                self.uses[new] = self.uses.get(node.output, 0)
        return rewriter.finish()

    def _split(self, operands: list[Value]) -> tuple[Value, Value | None]:
        """(the computed operand, the constant one), where there is one of each."""
        a, b = operands
        if b.is_constant and not a.is_constant:
            return a, b
        if a.is_constant and not b.is_constant:
            return b, a
        return a, None

    def _emit(self, builder: GraphBuilder, op: object, *inputs: Value) -> Value:
        value = builder.emit(op, *inputs)  # type: ignore[arg-type]
        if not value.is_constant:
            self.producers[value] = builder.nodes[-1]
            self.uses[value] = 1
        return value

    def _fold(self, builder: GraphBuilder, op: Pointwise, value: Value, constant: Value) -> Value | None:
        source = self.producers.get(value)
        if source is None or self.uses.get(value) != 1:
            return None
        if source.op == _ADD:
            inner, shift = self._split(list(source.operands()))
            product = self.producers.get(inner)
            # elsewhere, moving constants past each other could lose what cancels
            if shift is None or inner.type != value.type or product is None or not isinstance(product.op, _PRODUCTS):
                return None
            if op == _ADD:
                return self._emit(builder, _ADD, inner, builder.emit(_ADD, shift, constant))
            scaled = self._fold(builder, _MUL, inner, constant)
            return None if scaled is None else self._emit(builder, _ADD, scaled, builder.emit(_MUL, shift, constant))
        if op == _MUL and isinstance(source.op, _PRODUCTS):
            return self._into_weights(builder, source, constant)
        return None

    def _into_weights(self, builder: GraphBuilder, source: Node, factor: Value) -> Value | None:
        x, weights = source.operands()
        rank = source.output.rank
        channel = 1 if isinstance(source.op, Conv) else rank - 1
        sizes = (*(1 for _ in range(rank - factor.rank)), *factor.shape)
        if not weights.is_constant or any(size != 1 for axis, size in enumerate(sizes) if axis != channel):
            return None
        if isinstance(source.op, Conv):
            shaped = builder.emit(Reshape((sizes[channel], *(1 for _ in range(weights.rank - 1)))), factor)
        else:
            shaped = builder.emit(Reshape((sizes[channel],)), factor)
        return self._emit(builder, source.op, x, builder.emit(_MUL, weights, shaped))
