"""Removes arithmetic that changes nothing, exactly: x * 1, x / 1, x - 0, of integers x + 0, and the like.

Arguments of erf, which makes no error larger, are multiplied in place of divided by constants.
"""

from __future__ import annotations

import numpy as np

from onnxsmith_compiler.ir import dtype as dtypes
from onnxsmith_compiler.ir.graph import Graph, Node, Value
from onnxsmith_compiler.ops.cast import Cast
from onnxsmith_compiler.ops.pointwise import Pointwise
from onnxsmith_compiler.ops.view import Expand
from onnxsmith_compiler.passes.rewrite import Rewriter, rewrite_nodes

# The constant that leaves the other operand as it is; on the right side alone for the second table.
_EITHER_SIDE = {"mul": 1, "and": True, "or": False, "xor": False, "bitor": 0, "bitxor": 0}
_RIGHT_SIDE = {"div": 1, "sub": 0, "pow": 1, "shl": 0, "shr": 0}


def simplify(graph: Graph) -> Graph:
    readers, outputs = graph.consumers(), graph.kept_values()

    def rewrite(rewriter: Rewriter, node: Node) -> Value | None:
        simpler = _simpler(node)
        if simpler is None and node.op == Pointwise("div"):
            nodes = readers.get(node.output, [])
            if nodes and node.output not in outputs and all(reader.op == Pointwise("erf") for reader in nodes):
                return _times_reciprocal(rewriter, *node.operands())
        return simpler

    return rewrite_nodes(graph, rewrite)


def _times_reciprocal(rewriter: Rewriter, value: Value, divisor: Value) -> Value | None:
    if divisor.data is None or divisor.dtype not in (dtypes.FLOAT32, dtypes.FLOAT64):
        return None
    with np.errstate(divide="ignore", over="ignore"):
        factor = np.reciprocal(divisor.data)
    if not np.isfinite(factor).all():
        return None
    return rewriter.builder.emit(Pointwise("mul"), value, rewriter.builder.constant(factor, divisor.dtype))


def _simpler(node: Node) -> Value | None:
    match node.op:
        case Pointwise(function="identity"):
            return _same_type(next(node.operands()), node)
        case Pointwise(function="select"):
            return _selected(node)
        case Pointwise(function=function) if len(node.inputs) == 2:
            return _neutral(function, node)
        case Cast() | Expand():
            return _same_type(next(node.operands()), node)
    return None


def _same_type(value: Value, node: Node) -> Value | None:
    return value if value.type == node.output.type else None


def _neutral(function: str, node: Node) -> Value | None:
    left, right = node.operands()
    # -0.0 + 0.0 is 0.0: sums of floats are left alone
    either = _EITHER_SIDE.get(function, 0 if function == "add" and left.dtype.is_integer else None)
    if _is(right, _RIGHT_SIDE.get(function, either)):
        return _same_type(left, node)
    return _same_type(right, node) if _is(left, either) else None


def _is(value: Value, number: bool | int | None) -> bool:
    if number is None or not value.is_constant or value.type.size == 0:
        return False
    return bool((value.data == number).all())  # type: ignore[union-attr]


def _selected(node: Node) -> Value | None:
    condition, chosen, other = node.operands()
    data = condition.data
    if data is None or data.size == 0:
        return None
    if data.all():
        return _same_type(chosen, node)
    return None if data.any() else _same_type(other, node)
