"""Attention and RotaryEmbedding, composed of products, masks and a softmax; a pass makes one kernel of them."""

from __future__ import annotations

import math
from dataclasses import dataclass

from onnxsmith_compiler.ir import dim as dims
from onnxsmith_compiler.ir import dtype as dtypes
from onnxsmith_compiler.ir.dim import Dim
from onnxsmith_compiler.ir.graph import Value
from onnxsmith_compiler.onnx.importers.activation import softmax_along
from onnxsmith_compiler.onnx.node_import import NodeImport
from onnxsmith_compiler.ops.contraction import MatMul
from onnxsmith_compiler.ops.gather import Gather
from onnxsmith_compiler.ops.view import Concat, Iota, Pad, Slice

_PRODUCT, _CAPPED, _MASKED, _SOFTMAX = range(4)
"""What `qk_matmul_output_mode` says the fourth output shows."""


def attention(node: NodeImport) -> list[Value | None]:
    """Y, present_key, present_value, qk_matmul_output. Narrow floats are computed in float32."""
    query, key, value = _heads(node, 0, "q_num_heads"), _heads(node, 1, "kv_num_heads"), _heads(node, 2, "kv_num_heads")
    key, value = _with_past(node, key, 4), _with_past(node, value, 5)
    given = node.input(0)
    compute = given.dtype.compute
    batch, heads, rows, depth = query.shape
    groups, columns = key.shape[1], key.shape[2]
    q, k, v = (node.cast(tensor, compute) for tensor in (query, key, value))
    if heads != groups:
        shared = dims.floordiv(heads, groups)
        q = node.reshape(q, (batch, groups, shared, rows, depth))
        k, v = (node.reshape(t, (batch, groups, 1, *t.shape[2:])) for t in (k, v))
    scores = node.emit(MatMul(), _scaled(node, q, depth), node.transpose(k, _last_two_swapped(k.rank)))
    stages = [scores]
    cap = node.float("softcap", 0.0)
    if cap > 0:
        scores = node.mul(node.map("tanh", node.div(scores, cap)), cap)
    stages.append(scores)
    bias = _bias(node, rows, columns, compute)
    empty = None
    if bias is not None:
        added = _grouped(node, bias.tensor, heads, groups)
        scores = node.add(scores, added)
        if bias.may_empty_rows:
            empty = node.map("eq", node.reduce("max", added, [added.rank - 1]), float("-inf"))
    stages.append(scores)
    precision = node.dtype("softmax_precision", compute)
    weights = node.cast(softmax_along(node, node.cast(scores, precision), [scores.rank - 1]), compute)
    stages.append(weights if empty is None else node.select(empty, 0.0, weights))
    result = node.emit(MatMul(), weights, v)
    if empty is not None:
        result = node.select(empty, 0.0, result)
    y = node.reshape(result, (batch, heads, rows, v.shape[-1]))
    if given.rank == 3:
        y = node.reshape(node.transpose(y, [0, 2, 1, 3]), (batch, rows, heads * v.shape[-1]))
    shown = stages[node.int("qk_matmul_output_mode", _PRODUCT)]
    shown = node.reshape(shown, (batch, heads, rows, columns))
    return [node.cast(y, given.dtype), key, value, node.cast(shown, given.dtype)]


def _heads(node: NodeImport, number: int, attribute: str) -> Value:
    """Q, K or V as [batch, heads, sequence, features]."""
    x = node.input(number)
    if x.rank == 4:
        return x
    if x.rank != 3:
        raise node.invalid(f"input {number} has rank {x.rank}: expected 3 or 4")
    heads = node.int(attribute)
    batch, sequence, width = x.shape
    split = node.reshape(x, (batch, sequence, heads, dims.floordiv(width, heads)))
    return node.transpose(split, [0, 2, 1, 3])


def _with_past(node: NodeImport, new: Value, number: int) -> Value:
    past = node.optional(number)
    return new if past is None else node.emit(Concat(2), past, new)


def _last_two_swapped(rank: int) -> list[int]:
    return [*range(rank - 2), rank - 1, rank - 2]


def _scaled(node: NodeImport, q: Value, depth: Dim) -> Value:
    """q times the scale of the scores, 1 / sqrt(depth) unless the node gives one."""
    if node.attribute("scale") is not None:
        return node.mul(q, node.float("scale"))
    if isinstance(depth, int):
        return node.mul(q, 1 / math.sqrt(depth) if depth else 1.0)
    return node.div(q, node.map("sqrt", node.count(depth, q.dtype)))


@dataclass(frozen=True)
class _Bias:
    """What is added to the scores, of rank 2 to 4 and broadcast to them; whether all of a row may be -inf."""

    tensor: Value
    may_empty_rows: bool


def _bias(node: NodeImport, rows: Dim, columns: Dim, compute: dtypes.DType) -> _Bias | None:
    """The mask, the causal limit, the window and the padding of keys, as far as the node has them."""
    conditions = []
    lengths = node.optional(6)
    left, right = node.int("left_window_size", -1), node.int("right_window_size", -1)
    causal = node.flag("is_causal")
    if causal or left >= 0 or right >= 0:
        ahead = _ahead(node, rows, columns, lengths)
        if causal:
            conditions.append(node.map("le", ahead, 0))
        if right >= 0:
            conditions.append(node.map("le", ahead, right))
        if left >= 0:
            conditions.append(node.map("ge", ahead, -left))
    if lengths is not None:
        conditions.append(node.map("lt", _positions(node, columns, 1), _per_sample(node, lengths)))
    mask = node.optional(3)
    always_some = mask is None and lengths is None and left < 0
    if mask is not None and mask.dtype is dtypes.BOOL:
        conditions.append(_mask_of_width(node, mask, columns))
        mask = None
    elif mask is not None:
        mask = _mask_of_width(node, node.cast(mask, compute), columns)
    if conditions:
        allowed = conditions[0]
        for condition in conditions[1:]:
            allowed = node.map("and", allowed, condition)
        limits = node.select(allowed, node.constant(0.0, compute), node.constant(-math.inf, compute))
        mask = limits if mask is None else node.add(mask, limits)
    return None if mask is None else _Bias(mask, not always_some)


def _ahead(node: NodeImport, rows: Dim, columns: Dim, lengths: Value | None) -> Value:
    """How far key j stands behind query i in the sequence: j - i - the number of keys before the first query."""
    difference = node.sub(_positions(node, columns, 1), _positions(node, rows, 0))
    past = node.optional(4)
    if past is not None:
        return node.sub(difference, node.count(past.shape[2], dtypes.INT64))
    if lengths is None:
        return difference
    before = node.sub(_per_sample(node, lengths), node.count(rows, dtypes.INT64))
    return node.sub(difference, before)


def _positions(node: NodeImport, size: Dim, axis: int) -> Value:
    """0, 1, ... along `axis` of two."""
    return node.emit(Iota((size, 1) if axis == 0 else (1, size), axis))


def _per_sample(node: NodeImport, lengths: Value) -> Value:
    return node.reshape(lengths, (lengths.type.size, 1, 1, 1))


def _mask_of_width(node: NodeImport, mask: Value, columns: Dim) -> Value:
    """The mask, filled up with what hides a key where it has fewer columns than there are keys."""
    width = mask.shape[-1]
    if width == columns:
        return mask
    missing = dims.maximum(0, columns - width)
    hidden = False if mask.dtype is dtypes.BOOL else -math.inf
    none = (0,) * mask.rank
    padded = node.emit(Pad(none, (*none[1:], missing)), mask, node.constant(hidden, mask.dtype))
    return node.reshape(padded, (*mask.shape[:-1], columns))


def _grouped(node: NodeImport, bias: Value, heads: Dim, groups: Dim) -> Value:
    """A bias for [batch, heads, rows, columns] as one for scores whose heads are split into groups."""
    if heads == groups or bias.rank < 3:
        return bias
    *batch, own, rows, columns = bias.shape
    if own not in (1, heads):
        bias = node.expand(bias, (*batch, heads, rows, columns))
    split = (1, 1) if own == 1 else (groups, dims.floordiv(heads, groups))
    return node.reshape(bias, (*batch, *split, rows, columns))


def rotary_embedding(node: NodeImport) -> Value:
    """Each pair of features turned by the angle whose cosine and sine the caches hold for its position."""
    given = node.input(0)
    compute = given.dtype.compute
    x = node.cast(given, compute)
    if x.rank == 3:
        heads = node.int("num_heads")
        x = node.reshape(x, (*x.shape[:2], heads, dims.floordiv(x.shape[2], heads)))
    heads_axis = 2 if given.rank == 3 else 1
    turned = node.int("rotary_embedding_dim", 0) or x.shape[3]
    half = dims.floordiv(turned, 2)
    cosine, sine = (_angles(node, number, half, heads_axis) for number in (1, 2))
    if node.flag("interleaved"):
        first, second = _features(node, x, 0, half, 2), _features(node, x, 1, half, 2)
    else:
        first, second = _features(node, x, 0, half), _features(node, x, half, half)
    parts = [
        node.sub(node.mul(cosine, first), node.mul(sine, second)),
        node.add(node.mul(sine, first), node.mul(cosine, second)),
    ]
    if node.flag("interleaved"):
        pairs = node.emit(Concat(4), *(node.unsqueeze(part, [4]) for part in parts))
        parts = [node.reshape(pairs, (*x.shape[:3], turned))]
    if turned != x.shape[3]:
        parts.append(_features(node, x, turned, x.shape[3] - turned))
    result = node.emit(Concat(3), *parts) if len(parts) > 1 else parts[0]
    return node.cast(node.reshape(result, given.shape), given.dtype)


def _features(node: NodeImport, x: Value, start: Dim, count: Dim, step: int = 1) -> Value:
    """`count` features of every head of x, from `start` on."""
    return node.emit(Slice((0, 0, 0, start), (1, 1, 1, step), (*x.shape[:3], count)), x)


def _angles(node: NodeImport, number: int, half: Dim, heads_axis: int) -> Value:
    """A cache's rows at the positions, as [batch, sequence, half] with an axis of size 1 for the heads."""
    cache, positions = node.input(number), node.optional(3)
    node.builder.assume(cache.shape[-1], half)
    if positions is not None:
        cache = node.emit(Gather(0), cache, positions)
    return node.unsqueeze(node.cast(cache, node.input(0).dtype.compute), [heads_axis])
