"""Normalisations: batch, instance, group, layer, RMS, Lp, local response and mean-variance."""

from __future__ import annotations

from collections.abc import Sequence

from onnxsmith_compiler.ir import dim as dims
from onnxsmith_compiler.ir import dtype as dtypes
from onnxsmith_compiler.ir.dtype import DType
from onnxsmith_compiler.ir.graph import Value
from onnxsmith_compiler.onnx.node_import import NodeImport
from onnxsmith_compiler.ops.base import normalize_axis
from onnxsmith_compiler.ops.packed import Window
from onnxsmith_compiler.ops.pooling import PoolLast


def _wide(dtype: DType) -> DType:
    """What statistics are computed in."""
    return dtypes.FLOAT64 if dtype is dtypes.FLOAT64 else dtypes.FLOAT32


def _per_channel(node: NodeImport, value: Value, rank: int, dtype: DType) -> Value:
    """A [C] tensor shaped to broadcast over [N, C, spatial...]."""
    return node.cast(node.reshape(value, (*value.shape, *(1 for _ in range(rank - 2)))), dtype)


def _inverse_deviation(node: NodeImport, variance: Value, epsilon: float) -> Value:
    return node.map("reciprocal", node.map("sqrt", node.add(variance, epsilon)))


def _moments(node: NodeImport, x: Value, axes: Sequence[int]) -> tuple[Value, Value, Value]:
    """(mean, x - mean, variance) over `axes`, which stay with size 1."""
    mean = node.mean(x, axes)
    centred = node.sub(x, mean)
    return mean, centred, node.mean(node.mul(centred, centred), axes)


def batch_normalization(node: NodeImport) -> list[Value | None]:
    x = node.input(0)
    wide = _wide(x.dtype)
    scale, bias, mean, variance = (_per_channel(node, node.input(i), x.rank, wide) for i in range(1, 5))
    training = node.flag("training_mode") or (node.version < 7 and not node.flag("is_test"))
    results: list[Value | None] = []
    if training:
        axes = [axis for axis in range(x.rank) if axis != 1]
        momentum = node.float("momentum", 0.9)
        batch_mean, _, batch_variance = _moments(node, node.cast(x, wide), axes)
        for running, current, position in ((mean, batch_mean, 3), (variance, batch_variance, 4)):
            blend = node.add(node.mul(running, momentum), node.mul(_drop(node, current), 1 - momentum))
            results.append(node.cast(node.reshape(blend, node.input(position).shape), node.input(position).dtype))
        mean, variance = _drop(node, batch_mean), _drop(node, batch_variance)
    factor = node.mul(scale, _inverse_deviation(node, variance, node.float("epsilon", 1e-5)))
    shift = node.sub(bias, node.mul(mean, factor))
    y = node.add(node.mul(node.cast(x, wide), factor), shift)
    return [node.cast(y, x.dtype), *results]


def _drop(node: NodeImport, value: Value) -> Value:
    return node.squeeze(value, [0])


def instance_normalization(node: NodeImport) -> Value:
    x = node.input(0)
    wide = _wide(x.dtype)
    scale, bias = (_per_channel(node, node.input(i), x.rank, wide) for i in (1, 2))
    _, centred, variance = _moments(node, node.cast(x, wide), list(range(2, x.rank)))
    normal = node.mul(centred, _inverse_deviation(node, variance, node.float("epsilon", 1e-5)))
    return node.cast(node.add(node.mul(normal, scale), bias), x.dtype)


def group_normalization(node: NodeImport) -> Value:
    """Scale and bias have an element a group before opset 21, one a channel since."""
    x, groups = node.input(0), node.int("num_groups")
    wide = _stash(node, x.dtype) if node.version >= 21 else _wide(x.dtype)
    batch, channels, *spatial = x.shape
    grouped = node.reshape(node.cast(x, wide), (batch, groups, dims.floordiv(channels, groups), *spatial))
    _, centred, variance = _moments(node, grouped, list(range(2, grouped.rank)))
    normal = node.mul(centred, _inverse_deviation(node, variance, node.float("epsilon", 1e-5)))
    scale, bias = node.input(1), node.input(2)
    if node.version >= 21:
        flat = node.cast(node.reshape(normal, x.shape), x.dtype)
        scale, bias = (_per_channel(node, value, x.rank, x.dtype) for value in (scale, bias))
        return node.add(node.mul(flat, scale), bias)
    scale, bias = (_per_channel(node, value, grouped.rank, wide) for value in (scale, bias))
    return node.cast(node.reshape(node.add(node.mul(normal, scale), bias), x.shape), x.dtype)


def layer_normalization(node: NodeImport) -> list[Value | None]:
    """Outputs: the result, and where asked for the mean and the inverse standard deviation."""
    x, scale, bias = node.input(0), node.input(1), node.optional(2)
    axis = normalize_axis(node.int("axis", -1), x.rank)
    stash = _stash(node, x.dtype)
    mean, centred, variance = _moments(node, node.cast(x, stash), list(range(axis, x.rank)))
    inverse = _inverse_deviation(node, variance, node.float("epsilon", 1e-5))
    y = node.mul(node.cast(node.mul(centred, inverse), x.dtype), node.cast(scale, x.dtype))
    return [y if bias is None else node.add(y, node.cast(bias, x.dtype)), mean, inverse]


def _stash(node: NodeImport, dtype: DType) -> DType:
    """The type of the statistics: at least as wide as the data."""
    given = dtypes.BY_ONNX_CODE[node.int("stash_type", 1)]
    return dtypes.FLOAT64 if dtypes.FLOAT64 in (dtype, given) else given


def rms_normalization(node: NodeImport) -> Value:
    x, scale = node.input(0), node.input(1)
    axis = normalize_axis(node.int("axis", -1), x.rank)
    wide = node.cast(x, _stash(node, x.dtype))
    squares = node.mean(node.mul(wide, wide), list(range(axis, x.rank)))
    normal = node.mul(wide, _inverse_deviation(node, squares, node.float("epsilon", 1e-5)))
    return node.mul(node.cast(normal, x.dtype), node.cast(scale, x.dtype))


def lp_normalization(node: NodeImport) -> Value:
    """x over its p-norm along an axis; 0 where the norm is 0."""
    x = node.input(0)
    axis = normalize_axis(node.int("axis", -1), x.rank)
    if node.int("p", 2) == 1:
        norm = node.reduce("sum", node.map("abs", x), [axis])
    else:
        norm = node.map("sqrt", node.reduce("sum", node.mul(x, x), [axis]))
    return node.select(node.map("eq", norm, 0), 0.0, node.div(x, norm))


def local_response_normalization(node: NodeImport) -> Value:
    """x / (bias + alpha / size * (sum of squares over `size` neighbouring channels)) ^ beta."""
    x, size = node.input(0), node.int("size")
    before = (size - 1) // 2
    batch, channels, *spatial = x.shape
    flat = node.reshape(node.mul(x, x), (batch, channels, dims.product(spatial)))
    window = Window((size,), (1,), (1,), (before,), (size - 1 - before,))
    totals = node.reshape(node.emit(PoolLast("sum", window), flat), x.shape)
    base = node.add(node.mul(totals, node.float("alpha", 1e-4) / size), node.float("bias", 1.0))
    return node.div(x, node.map("pow", base, node.float("beta", 0.75)))


def mean_variance_normalization(node: NodeImport) -> Value:
    x = node.input(0)
    axes = [normalize_axis(axis, x.rank) for axis in node.ints("axes") or [0, 2, 3]]
    _, centred, variance = _moments(node, x, axes)
    return node.div(centred, node.add(node.map("sqrt", variance), 1e-9))
