"""Finds attention spelled in matrix products and a softmax, and makes one operator of it."""

from __future__ import annotations

from dataclasses import dataclass

from onnxsmith_compiler.ir import dim as dims
from onnxsmith_compiler.ir import dtype as dtypes
from onnxsmith_compiler.ir.graph import Graph, Node, Value
from onnxsmith_compiler.ops.attention import FusedAttention, Strided, strided_view
from onnxsmith_compiler.ops.base import Shape
from onnxsmith_compiler.ops.contraction import MatMul
from onnxsmith_compiler.ops.pointwise import Pointwise
from onnxsmith_compiler.ops.reduce import Reduce
from onnxsmith_compiler.ops.view import Reshape, Transpose
from onnxsmith_compiler.passes.rewrite import Rewriter, rewrite_nodes


def fuse_attention(graph: Graph) -> Graph:
    """softmax(scale * Q K^T + mask) V over the last axis, where nothing else reads what is in between."""
    finder = _Finder(graph.producers(), {v: len(readers) for v, readers in graph.consumers().items()})
    outputs = graph.output_values()

    def rewrite(rewriter: Rewriter, node: Node) -> Value | None:
        if not isinstance(node.op, MatMul) or node.output.dtype is not dtypes.FLOAT32:
            return None
        found = finder.find(node, outputs)
        return None if found is None else _emit(rewriter, finder, found, node)

    return rewrite_nodes(graph, rewrite)


@dataclass(frozen=True)
class _Attention:
    query: Value
    key: Value  # transposed: [..., depth, columns]
    value: Value
    mask: Value | None
    scale: float


@dataclass(frozen=True)
class _Finder:
    producers: dict[Value, Node]
    uses: dict[Value, int]

    def find(self, node: Node, outputs: set[Value]) -> _Attention | None:
        weights, value = node.operands()
        argument = scores = self._softmax_input(weights)
        if scores is None or weights in outputs or self.uses.get(weights) != 1 or weights.rank not in (3, 4):
            return None
        mask: Value | None = None
        product, scale = self._scaled(scores)
        if not self._is(product, MatMul):
            added = self._pointwise(scores, "add", 2)
            if added is None:
                return None
            candidates = [(a, b) for a, b in (added, added[::-1]) if self._is(self._scaled(a)[0], MatMul)]
            if not candidates:
                return None
            widened, (scores, mask) = scores.shape, candidates[0]
            product, scale = self._scaled(scores)
            if widened != product.shape:
                return None
        if self.uses.get(product) != (2 if product is argument else 1):  # softmax reads its argument twice
            return None
        query, key = self.producers[product].operands()
        query, query_scale = self._scaled(query)
        key, key_scale = self._scaled(key)
        if query.shape[:-2] != value.shape[:-2] or key.shape[:-2] != value.shape[:-2]:
            return None
        return _Attention(query, key, value, mask, scale * query_scale * key_scale)

    def _is(self, value: Value, op: type) -> bool:
        node = self.producers.get(value)
        return node is not None and isinstance(node.op, op)

    def _pointwise(self, value: Value, function: str, uses: int) -> tuple[Value, Value] | None:
        """The operands of `value` if it is this binary function and has at most so many readers."""
        node = self.producers.get(value)
        if node is None or node.op != Pointwise(function) or self.uses.get(value, 0) > uses:
            return None
        a, b = node.operands()
        return a, b

    def _division(self, value: Value) -> tuple[Value, Value] | None:
        """(a, b) where `value` is a / b or a * (1 / b), and is read once."""
        product = self._pointwise(value, "mul", 1)
        if product is None:
            return self._pointwise(value, "div", 1)
        factor = self.producers.get(product[1])
        if factor is None or factor.op != Pointwise("reciprocal"):
            return None
        return product[0], next(factor.operands())

    def _softmax_input(self, value: Value) -> Value | None:
        """x where `value` is exp(x - max(x)) / sum(exp(x - max(x))) over the last axis."""
        last = (value.rank - 1,)
        division = self._division(value)
        if division is None:
            return None
        powers, total = division
        summed, exponent = self.producers.get(total), self.producers.get(powers)
        if summed is None or summed.op != Reduce("sum", last) or summed.inputs[0] is not powers:
            return None
        if exponent is None or exponent.op != Pointwise("exp") or self.uses.get(powers) != 2:
            return None
        shifted = self._pointwise(next(exponent.operands()), "sub", 1)
        if shifted is None:
            return None
        scores, top = shifted
        largest = self.producers.get(top)
        if largest is None or largest.op != Reduce("max", last) or largest.inputs[0] is not scores:
            return None
        return scores if self.uses.get(scores) == 2 else None

    def _scaled(self, value: Value) -> tuple[Value, float]:
        """(x, s) where `value` is s * x with a constant s."""
        scale = 1.0
        for function in ("mul", "div"):
            operands = self._pointwise(value, function, 2)
            if operands is None:
                continue
            for inner, factor in (operands, operands[::-1]):
                if factor.is_constant and factor.type.size == 1 and inner.type == value.type:
                    if function == "div" and factor is operands[0]:
                        continue
                    assert factor.data is not None
                    number = float(factor.data.reshape(-1)[0])
                    return inner, scale * number if function == "mul" else scale / number
        return value, scale


def _emit(rewriter: Rewriter, finder: _Finder, found: _Attention, node: Node) -> Value:
    """The operator over the tensors in memory; a third axis of batches is split off for tensors of rank 3."""
    *batches, rows, depth = found.query.shape
    columns, width = found.value.shape[-2:]
    views = _Views(rewriter, finder.producers)
    key = views.emit(Transpose((*range(found.key.rank - 2), found.key.rank - 1, found.key.rank - 2)), found.key)
    operands, (query_view, key_view, value_view) = zip(*map(views.find, (found.query, key, found.value)), strict=True)
    mask_view: Strided | None = None
    if found.mask is not None:
        mask, mask_view = views.find_broadcast(found.mask, (*batches, rows, columns))
        operands = (*operands, mask)
    batch, heads = (1, *batches)[-2:]
    op = FusedAttention(
        batch=batch,
        heads=heads,
        rows=rows,
        columns=columns,
        depth=depth,
        width=width,
        query=query_view,
        key=key_view,
        value=value_view,
        mask=mask_view,
        scale=found.scale,
    )
    result = rewriter.builder.emit(op, *operands)
    result = rewriter.builder.emit(Transpose((0, 2, 1, 3)), result)
    return result if result.shape == node.output.shape else rewriter.builder.emit(Reshape(node.output.shape), result)


@dataclass(frozen=True)
class _Views:
    """Finds the tensors in memory behind operands, and how these lie there along four axes."""

    rewriter: Rewriter
    producers: dict[Value, Node]

    def emit(self, op: Reshape | Transpose, value: Value) -> Value:
        result = self.rewriter.builder.emit(op, value)
        if not result.is_constant:  # else it is a constant, which no node computes
            self.producers[result] = self.rewriter.builder.nodes[-1]
        return result

    def find(self, value: Value, contiguous: bool = True) -> tuple[Value, Strided]:
        source, view = strided_view(value, self.producers, contiguous)
        return self.rewriter.new(source), Strided(view.offset, (*(0 for _ in range(4 - value.rank)), *view.strides))

    def find_broadcast(self, value: Value, shape: Shape) -> tuple[Value, Strided]:
        """As `find`, of a value that is broadcast to `shape`: a size that is not the one there may be 1."""
        wide = (*(1 for _ in range(len(shape) - value.rank)), *value.shape)
        source, view = self.find(value if wide == value.shape else self.emit(Reshape(wide), value), contiguous=False)
        strides = list(view.strides)
        for axis, (size, whole) in enumerate(zip(wide, shape, strict=True), 4 - len(shape)):
            if size != whole and size != 1:
                strides[axis] = strides[axis] * dims.minimum(1, size - 1)
        return source, Strided(view.offset, tuple(strides))
