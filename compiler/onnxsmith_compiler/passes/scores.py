"""What stands between the product of queries and keys and its softmax: scale, soft cap, masks, and views of them."""

from __future__ import annotations

from dataclasses import dataclass, replace

from onnxsmith_compiler.ir import loop
from onnxsmith_compiler.ir.dim import Dim
from onnxsmith_compiler.ir.graph import Node, Value
from onnxsmith_compiler.ops.contraction import MatMul
from onnxsmith_compiler.ops.pointwise import Pointwise
from onnxsmith_compiler.ops.reduce import Reduce
from onnxsmith_compiler.ops.view import Reshape
from onnxsmith_compiler.passes.strided import Producers, view_source


@dataclass(frozen=True)
class Scores:
    """cap(scale * product) + masks; `steps`, from the product on, are views of the scores and masks added to them."""

    product: Node
    scale: float = 1.0
    softcap: float | None = None
    steps: tuple[Node | Value, ...] = ()

    @property
    def is_scaled_product(self) -> bool:
        return self.softcap is None and not any(isinstance(step, Value) for step in self.steps)

    def places(self, shape: tuple[Dim, ...], index: loop.Index) -> tuple[loop.Index, list[tuple[Value, loop.Index]]]:
        """The place in the product of the score `index` of softmax's argument, of `shape`, and those in the masks."""
        masks: list[tuple[Value, loop.Index]] = []
        for step in reversed(self.steps):
            if isinstance(step, Value):
                masks.append((step, loop.broadcast_index(step.shape, index, shape)))
                continue
            found = view_source(step, index)
            assert found is not None
            shape, index = found[0].shape, found[1]
        return index, masks[::-1]


@dataclass(frozen=True)
class ScoreFinder:
    """Finds scores behind the weights of an attention. `uses` counts a value's readers, an output's once more."""

    producers: Producers
    uses: dict[Value, int]

    def find(self, weights: Value) -> tuple[Value, Scores] | None:
        """The argument of the softmax that `weights` are, and what it is computed from."""
        argument = self._softmax_argument(weights)
        if argument is None:
            return None
        scores = self._scores(argument, 2)  # softmax reads its argument twice
        return None if scores is None else (argument, scores)

    def _scores(self, value: Value, readers: int) -> Scores | None:
        node = self.producers.get(value)
        if node is None or self.uses.get(value) != readers:
            return None
        match node.op:
            case MatMul():
                return Scores(node)
            case Reshape():
                inner = self._scores(next(node.operands()), 1)
                return inner and replace(inner, steps=(*inner.steps, node))
            case Pointwise("add"):
                return self._masked(node)
            case Pointwise("mul" | "div"):
                return self._scaled_scores(value)
        return None

    def _masked(self, node: Node) -> Scores | None:
        a, b = node.operands()
        for inner, mask in ((a, b), (b, a)):
            # a mask may not widen the scores
            found = self._scores(inner, 1) if inner.shape == node.output.shape else None
            if found is not None:
                return replace(found, steps=(*found.steps, mask))
        return None

    def _scaled_scores(self, value: Value) -> Scores | None:
        inner, factor = self.scaled(value)
        if inner is value:
            return None
        squeezed = self.producers.get(inner)
        capped = squeezed is not None and squeezed.op == Pointwise("tanh") and self.uses.get(inner) == 1
        scores = self._scores(next(squeezed.operands()) if capped else inner, 1)  # type: ignore[union-attr]
        if scores is None or not scores.is_scaled_product or (capped and not factor > 0):
            return None
        return replace(scores, scale=scores.scale * factor, softcap=factor if capped else None)

    def scaled(self, value: Value) -> tuple[Value, float]:
        """(x, s) where `value` is s * x with a constant s of one element, else (value, 1)."""
        node = self.producers.get(value)
        if node is None or node.op not in (Pointwise("mul"), Pointwise("div")):
            return value, 1.0
        a, b = node.operands()
        divides = node.op == Pointwise("div")
        for inner, factor in ((a, b),) if divides else ((a, b), (b, a)):
            if factor.is_constant and factor.type.size == 1 and inner.type == value.type:
                assert factor.data is not None
                number = float(factor.data.reshape(-1)[0])
                return inner, 1 / number if divides else number
        return value, 1.0

    def _division(self, value: Value) -> tuple[Value, Value] | None:
        """(a, b) where `value` is a / b or a * (1 / b), and is read once."""
        node = self.producers.get(value)
        if node is None or self.uses.get(value) != 1:
            return None
        if node.op == Pointwise("div"):
            a, b = node.operands()
            return a, b
        if node.op != Pointwise("mul"):
            return None
        a, b = node.operands()
        factor = self.producers.get(b)
        return (a, next(factor.operands())) if factor is not None and factor.op == Pointwise("reciprocal") else None

    def _softmax_argument(self, value: Value) -> Value | None:
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
        shifted = self.producers.get(next(exponent.operands()))
        if shifted is None or shifted.op != Pointwise("sub") or self.uses.get(shifted.output) != 1:
            return None
        argument, top = shifted.operands()
        largest = self.producers.get(top)
        if largest is None or largest.op != Reduce("max", last) or largest.inputs[0] is not argument:
            return None
        return argument
