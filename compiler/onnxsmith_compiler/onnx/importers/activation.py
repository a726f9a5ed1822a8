"""Activation functions, spelled in elementary ones."""

from __future__ import annotations

import math

from onnxsmith_compiler.ir.graph import Value
from onnxsmith_compiler.onnx.node_import import NodeImport
from onnxsmith_compiler.ops.base import normalize_axis


def relu(node: NodeImport) -> Value:
    return node.map("max", node.input(0), 0)


def leaky_relu(node: NodeImport) -> Value:
    x = node.input(0)
    return node.select(node.map("lt", x, 0), node.mul(x, node.float("alpha", 0.01)), x)


def prelu(node: NodeImport) -> Value:
    x, slope = node.input(0), node.input(1)
    if node.version < 7 and slope.rank == 1 and x.rank > 1:
        slope = node.reshape(slope, (*slope.shape, *(1 for _ in range(x.rank - 2))))
    return node.select(node.map("lt", x, 0), node.mul(x, slope), x)


def thresholded_relu(node: NodeImport) -> Value:
    x = node.input(0)
    return node.select(node.map("gt", x, node.float("alpha", 1.0)), x, 0.0)


def elu(node: NodeImport) -> Value:
    x = node.input(0)
    return node.select(node.map("lt", x, 0), node.mul(node.map("expm1", x), node.float("alpha", 1.0)), x)


def celu(node: NodeImport) -> Value:
    x, alpha = node.input(0), node.float("alpha", 1.0)
    low = node.mul(node.map("expm1", node.div(node.map("min", x, 0.0), alpha)), alpha)
    return node.add(node.map("max", x, 0.0), low)


def selu(node: NodeImport) -> Value:
    x = node.input(0)
    alpha = node.float("alpha", 1.67326319217681884765625)
    gamma = node.float("gamma", 1.05070102214813232421875)
    low = node.mul(node.map("expm1", x), alpha)
    return node.mul(node.select(node.map("gt", x, 0), x, low), gamma)


def gelu(node: NodeImport) -> Value:
    x = node.input(0)
    if node.string("approximate", "none") == "tanh":
        cubic = node.mul(node.mul(node.mul(x, x), x), 0.044715)
        inner = node.mul(node.add(x, cubic), math.sqrt(2 / math.pi))
        return node.mul(node.mul(x, 0.5), node.add(node.map("tanh", inner), 1.0))
    gate = node.add(node.map("erf", node.mul(x, math.sqrt(0.5))), 1.0)
    return node.mul(node.mul(x, 0.5), gate)


def hard_sigmoid(node: NodeImport) -> Value:
    return _hard_sigmoid(node, node.float("alpha", 0.2), node.float("beta", 0.5))


def _hard_sigmoid(node: NodeImport, alpha: float, beta: float) -> Value:
    linear = node.add(node.mul(node.input(0), alpha), beta)
    return node.map("min", node.map("max", linear, 0.0), 1.0)


def hard_swish(node: NodeImport) -> Value:
    return node.mul(node.input(0), _hard_sigmoid(node, 1 / 6, 0.5))


def swish(node: NodeImport) -> Value:
    x = node.input(0)
    return node.mul(x, node.map("sigmoid", node.mul(x, node.float("alpha", 1.0))))


def mish(node: NodeImport) -> Value:
    x = node.input(0)
    return node.mul(x, node.map("tanh", node.map("softplus", x)))


def softsign(node: NodeImport) -> Value:
    x = node.input(0)
    return node.div(x, node.add(node.map("abs", x), 1))


def shrink(node: NodeImport) -> Value:
    x, bias, edge = node.input(0), node.float("bias", 0.0), node.float("lambd", 0.5)
    high = node.select(node.map("gt", x, edge), node.sub(x, bias), 0)
    return node.select(node.map("lt", x, -edge), node.add(x, bias), high)


def softmax(node: NodeImport) -> Value:
    return _softmax(node, logarithm=False)


def log_softmax(node: NodeImport) -> Value:
    return _softmax(node, logarithm=True)


def _softmax(node: NodeImport, logarithm: bool) -> Value:
    """Along one axis since opset 13; before, over all axes from `axis` (default 1) on, flattened."""
    x = node.input(0)
    axis = normalize_axis(node.int("axis", -1 if node.version >= 13 else 1), x.rank)
    axes = [axis] if node.version >= 13 else list(range(axis, x.rank))
    return softmax_along(node, x, axes, logarithm)


def softmax_along(node: NodeImport, x: Value, axes: list[int], logarithm: bool = False) -> Value:
    shifted = node.sub(x, node.reduce("max", x, axes)) if axes else node.sub(x, x)
    powers = node.map("exp", shifted)
    total = node.reduce("sum", powers, axes) if axes else powers
    if logarithm:
        return node.sub(shifted, node.map("log", total))
    if x.dtype.bits < 32:
        return node.div(powers, total)
    # One division a row: total is at least 1, so that its reciprocal costs half an ulp and no range.
    return node.mul(powers, node.map("reciprocal", total))


def hardmax(node: NodeImport) -> Value:
    """1 at the first maximum along the axis (before opset 13: of the flattened rest), 0 elsewhere."""
    x = node.input(0)
    axis = normalize_axis(node.int("axis", -1 if node.version >= 13 else 1), x.rank)
    if node.version >= 13:
        return _hardmax(node, x, axis)
    rows, columns = x.shape[:axis], x.shape[axis:]
    size = 1
    for extent in columns:
        size = size * extent  # type: ignore[assignment]
    return node.reshape(_hardmax(node, node.reshape(x, (*rows, size)), axis), x.shape)


def _hardmax(node: NodeImport, x: Value, axis: int) -> Value:
    from onnxsmith_compiler.ops.view import Iota

    best = node.reduce("argmax_first", x, [axis])
    shape = tuple(size if number == axis else 1 for number, size in enumerate(x.shape))
    return node.cast(node.map("eq", node.emit(Iota(shape, axis)), best), x.dtype)
