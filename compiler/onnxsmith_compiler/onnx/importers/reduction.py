"""Reduce* operators, ArgMax and ArgMin."""

from __future__ import annotations

from onnxsmith_compiler.ir.graph import Value
from onnxsmith_compiler.onnx.node_import import Importer, NodeImport
from onnxsmith_compiler.ops.base import normalize_axis


def _axes(node: NodeImport) -> list[int]:
    """The axes attribute, or since opset 18 (ReduceSum: 13) the second input; all axes where there are none."""
    x, given = node.input(0), node.optional(1)
    if given is not None:
        axes = node.integers(given, "axes")
    else:
        axes = node.ints("axes") or []
    if not axes:
        return [] if node.flag("noop_with_empty_axes") else list(range(x.rank))
    return sorted({normalize_axis(axis, x.rank) for axis in axes})


def _reduced(node: NodeImport, kind: str, x: Value, axes: list[int]) -> Value:
    return node.reduce(kind, x, axes, node.flag("keepdims", True)) if axes else x


def plain(kind: str) -> Importer:
    return lambda node: _reduced(node, kind, node.input(0), _axes(node))


def mean(node: NodeImport) -> Value:
    axes = _axes(node)
    return node.mean(node.input(0), axes, node.flag("keepdims", True)) if axes else node.input(0)


def sum_square(node: NodeImport) -> Value:
    x = node.input(0)
    return _reduced(node, "sum", node.mul(x, x), _axes(node))


def l1(node: NodeImport) -> Value:
    return _reduced(node, "sum", node.map("abs", node.input(0)), _axes(node))


def l2(node: NodeImport) -> Value:
    x = node.input(0)
    squares = _reduced(node, "sum", node.mul(x, x), _axes(node))
    if x.dtype.is_float:
        return node.map("sqrt", squares)
    from onnxsmith_compiler.ir import dtype as dtypes

    return node.cast(node.map("sqrt", node.cast(squares, dtypes.FLOAT64)), x.dtype)


def log_sum(node: NodeImport) -> Value:
    return node.map("log", _reduced(node, "sum", node.input(0), _axes(node)))


def log_sum_exp(node: NodeImport) -> Value:
    """log(sum(exp(x - m))) + m with m the maximum, 0 where that is infinite."""
    x, axes = node.input(0), _axes(node)
    if not axes:
        return x
    top = node.reduce("max", x, axes)
    top = node.select(node.map("isinf", top), 0.0, top)
    total = node.map("log", node.reduce("sum", node.map("exp", node.sub(x, top)), axes))
    result = node.add(total, top)
    return result if node.flag("keepdims", True) else node.squeeze(result, axes)


def arg(kind: str) -> Importer:
    def run(node: NodeImport) -> Value:
        x = node.input(0)
        axis = normalize_axis(node.int("axis", 0), x.rank)
        end = "last" if node.flag("select_last_index") else "first"
        return node.reduce(f"{kind}_{end}", x, [axis], node.flag("keepdims", True))

    return run
