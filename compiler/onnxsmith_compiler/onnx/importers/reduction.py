"""Reduce* operators, ArgMax and ArgMin."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from onnxsmith_compiler.ir import dim as dims
from onnxsmith_compiler.ir import dtype as dtypes
from onnxsmith_compiler.ir.dim import Dim
from onnxsmith_compiler.ir.graph import Value
from onnxsmith_compiler.onnx.importers.runtime_axes import RuntimeAxes, known_axes, runtime_axes
from onnxsmith_compiler.onnx.node_import import Importer, NodeImport
from onnxsmith_compiler.ops.base import normalize_axis
from onnxsmith_compiler.ops.reduce import ReduceMasked


@dataclass(frozen=True)
class _Axes:
    """The axes to reduce: known (not negative, in order), or such as a run names."""

    known: tuple[int, ...]
    late: RuntimeAxes | None = None

    @property
    def is_empty(self) -> bool:
        return self.late is None and not self.known

    def reduce(self, node: NodeImport, kind: str, x: Value, keepdims: bool) -> Value:
        if self.late is None:
            return node.reduce(kind, x, self.known, keepdims) if self.known else x
        result = node.emit(ReduceMasked(kind, self.late.named(node)), x)
        return result if keepdims else self.late.drop(node, result)

    def drop(self, node: NodeImport, reduced: Value) -> Value:
        """`reduced`, a reduction that kept its axes, without them."""
        return node.squeeze(reduced, self.known) if self.late is None else self.late.drop(node, reduced)

    def count(self, node: NodeImport, x: Value) -> Dim:
        """How many elements of `x` are reduced to one."""
        if self.late is None:
            return dims.product([x.shape[axis] for axis in self.known])
        named = self.late.named(node)
        return dims.product(1 + mask * (size - 1) for mask, size in zip(named, x.shape, strict=True))


def _axes(node: NodeImport) -> _Axes:
    """The axes attribute, or since opset 18 (ReduceSum: 13) the second input; all axes where there are none."""
    rank, late = node.input(0).rank, runtime_axes(node)
    noop = node.flag("noop_with_empty_axes")
    if late is not None:
        return _Axes((), RuntimeAxes.read(node, late, rank, all_if_none=not noop))
    axes = known_axes(node) or []
    if not axes and not noop:
        axes = list(range(rank))
    return _Axes(tuple(sorted({normalize_axis(axis, rank) for axis in axes})))


def _reduced(node: NodeImport, kind: str, x: Value) -> Value:
    return _axes(node).reduce(node, kind, x, node.flag("keepdims", True))


def plain(kind: str) -> Importer:
    return lambda node: _reduced(node, kind, node.input(0))


def mean(node: NodeImport) -> Value:
    x, axes = node.input(0), _axes(node)
    total = axes.reduce(node, "sum", x, node.flag("keepdims", True))
    return total if axes.is_empty else node.div(total, node.count(axes.count(node, x), x.dtype))


def sum_square(node: NodeImport) -> Value:
    x = node.input(0)
    return _reduced(node, "sum", node.mul(x, x))


def l1(node: NodeImport) -> Value:
    return _reduced(node, "sum", node.map("abs", node.input(0)))


def l2(node: NodeImport) -> Value:
    return _in_float(node, _root_of_squares)


def log_sum(node: NodeImport) -> Value:
    return _in_float(node, lambda node, x: node.map("log", _reduced(node, "sum", x)))


def log_sum_exp(node: NodeImport) -> Value:
    return _in_float(node, _log_sum_exp)


def _in_float(node: NodeImport, compute: Callable[[NodeImport, Value], Value]) -> Value:
    """`compute` of the input; integers are computed in float64 and truncated."""
    x = node.input(0)
    if x.dtype.is_float:
        return compute(node, x)
    return node.cast(compute(node, node.cast(x, dtypes.FLOAT64)), x.dtype)


def _root_of_squares(node: NodeImport, x: Value) -> Value:
    return node.map("sqrt", _reduced(node, "sum", node.mul(x, x)))


def _log_sum_exp(node: NodeImport, x: Value) -> Value:
    """log(sum(exp(x - m))) + m with m the maximum, 0 where that is infinite."""
    axes = _axes(node)
    if axes.is_empty:
        return x
    top = axes.reduce(node, "max", x, keepdims=True)
    top = node.select(node.map("isinf", top), 0.0, top)
    total = axes.reduce(node, "sum", node.map("exp", node.sub(x, top)), keepdims=True)
    result = node.add(node.map("log", total), top)
    return result if node.flag("keepdims", True) else axes.drop(node, result)


def arg(kind: str) -> Importer:
    def run(node: NodeImport) -> Value:
        x = node.input(0)
        axis = normalize_axis(node.int("axis", 0), x.rank)
        end = "last" if node.flag("select_last_index") else "first"
        return node.reduce(f"{kind}_{end}", x, [axis], node.flag("keepdims", True))

    return run
