"""Arithmetic, comparison, logic, rounding and elementary functions."""

from __future__ import annotations

import math

import numpy as np

from onnxsmith_compiler.ir import dtype as dtypes
from onnxsmith_compiler.ir.graph import Value
from onnxsmith_compiler.onnx.node_import import Importer, NodeImport
from onnxsmith_compiler.ops.base import normalize_axis
from onnxsmith_compiler.ops.cast import Cast


def unary(function: str) -> Importer:
    return lambda node: node.map(function, node.input(0))


def binary(function: str) -> Importer:
    return lambda node: node.map(function, node.input(0), node.input(1))


def legacy_binary(function: str) -> Importer:
    """Opset 1 to 6: `broadcast` and `axis` attributes in place of numpy's rule."""

    def run(node: NodeImport) -> Value:
        left, right = node.input(0), node.input(1)
        if node.flag("broadcast") and node.attribute("axis") is not None:
            axis = normalize_axis(node.int("axis"), left.rank)
            right = node.reshape(right, (*right.shape, *(1 for _ in range(left.rank - axis - right.rank))))
        return node.map(function, left, right)

    return run


def variadic(function: str) -> Importer:
    def run(node: NodeImport) -> Value:
        result = node.input(0)
        for position in range(1, len(node.inputs)):
            result = node.map(function, result, node.input(position))
        return result

    return run


def mean(node: NodeImport) -> Value:
    total = variadic("add")(node)
    assert isinstance(total, Value)
    return node.div(total, float(len(node.inputs)))


def identity(node: NodeImport) -> Value:
    return node.input(0)


def mod(node: NodeImport) -> Value:
    return node.map("fmod" if node.flag("fmod") else "mod", node.input(0), node.input(1))


def power(node: NodeImport) -> Value:
    """The exponent may have another type; the result has the base's."""
    base, exponent = node.input(0), node.input(1)
    if exponent.data is not None and exponent.data.size == 1 and base.dtype.is_float:
        simple = _simple_power(node, base, float(exponent.data.reshape(-1)[0]))
        if simple is not None and exponent.rank <= base.rank:
            return simple
    if base.dtype.is_integer and exponent.dtype.is_float:
        wide = node.map("pow", node.cast(base, dtypes.FLOAT64), node.cast(exponent, dtypes.FLOAT64))
        return node.cast(wide, base.dtype)
    return node.map("pow", base, node.cast(exponent, base.dtype))


def _simple_power(node: NodeImport, base: Value, exponent: float) -> Value | None:
    if exponent == 1:
        return base
    if exponent == 2:
        return node.mul(base, base)
    if exponent == 3:
        return node.mul(node.mul(base, base), base)
    return None


def bit_shift(node: NodeImport) -> Value:
    return node.map("shl" if node.string("direction") == "LEFT" else "shr", node.input(0), node.input(1))


def is_inf(node: NodeImport) -> Value:
    x = node.input(0)
    result = node.map("isinf", x)
    if not node.flag("detect_positive", True):
        result = node.map("and", result, node.map("lt", x, 0.0))
    if not node.flag("detect_negative", True):
        result = node.map("and", result, node.map("gt", x, 0.0))
    return result


def cast(node: NodeImport) -> Value:
    to = node.dtype("to")
    source = node.input(0)
    if dtypes.STRING in (to, source.dtype) and to is not source.dtype:
        raise node.unsupported("conversion to and from strings")
    if to is source.dtype:
        return source
    return node.emit(Cast(to, node.flag("saturate", True), node.string("round_mode", "up")), source)


def cast_like(node: NodeImport) -> Value:
    to = node.input(1).dtype
    if to is node.input(0).dtype:
        return node.input(0)
    return node.emit(Cast(to, node.flag("saturate", True), node.string("round_mode", "up")), node.input(0))


def clip(node: NodeImport) -> Value:
    """min and max are attributes before opset 11, optional 0-d inputs since. NaN stays NaN."""
    x = node.input(0)
    low: Value | float | None
    high: Value | float | None
    if node.version < 11:
        least, greatest = node.float("min", -math.inf), node.float("max", math.inf)
        limits = np.finfo(np.float32)
        low = None if least <= float(limits.min) else least
        high = None if greatest >= float(limits.max) else greatest
    else:
        low, high = (_scalar(node, node.optional(position)) for position in (1, 2))
    if low is not None:
        x = node.map("max", x, low)
    if high is not None:
        x = node.map("min", x, high)
    return x


def _scalar(node: NodeImport, value: Value | None) -> Value | None:
    return None if value is None else node.reshape(value, ())


def where(node: NodeImport) -> Value:
    return node.map("select", node.input(0), node.input(1), node.input(2))


def dropout(node: NodeImport) -> list[Value | None]:
    """Inference: the identity, and a mask of all true."""
    training = node.optional(2)
    if training is not None and (training.known is None or bool(training.known.flat[0])):
        raise node.unsupported("training mode")
    x = node.input(0)
    if not node.has_output(1):
        return [x]
    # before opset 10 the mask has the data's type
    mask = node.expand(node.constant(True, dtypes.BOOL), x.shape)
    return [x, mask if node.version >= 10 else node.cast(mask, x.dtype)]
