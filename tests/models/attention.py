"""Transformers for images and text, in the nodes that torch's exporter writes for them."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import onnx
from numpy.typing import NDArray

from tests.models.builder import Net, Shape, Value, concat

# Adds one number to all the scores of a query, which softmax does not see: it cannot change an output.
KEY_BIAS = "key_bias"


def attend(query: Value, key: Value, value: Value, bias: Value | None = None) -> Value:
    """softmax(q k^T / sqrt(width) + bias) v over the last two of four axes."""
    scores = (query @ key.transpose(0, 1, 3, 2)) * (1 / math.sqrt(query.size(-1)))
    return (scores if bias is None else scores + bias).softmax() @ value


def vit(
    width: int = 32,
    depth: int = 2,
    heads: int = 4,
    size: int = 32,
    patch: int = 8,
    batch: int = 1,
    classes: int = 10,
) -> onnx.ModelProto:
    """Dosovitskiy et al. 2020. ViT-S/16: width 384, depth 12, heads 6, size 224, patch 16."""
    net = Net("vit")
    patches = net.input("image", (batch, 3, size, size)).conv(width, patch, patch, 0, bias=True)
    tokens = patches.reshape(batch, width, -1).transpose(0, 2, 1)
    first = net.matrix(batch, 1, width, fan_in=1)
    x = concat([first, tokens], axis=1)
    x = x + net.matrix(1, x.size(1), width, fan_in=1)
    for _ in range(depth):
        x = x + fused_attention(x.layer_norm(), heads)
        x = x + x.layer_norm().linear(4 * width).gelu().linear(width)
    token = x.layer_norm().gather(net.constant(0, np.int64), axis=1)
    net.output("logits", token.gemm(classes))
    return net.model()


def fused_attention(x: Value, heads: int, bias: Value | None = None) -> Value:
    """Attention of [n, tokens, width] with one matrix for all three; bias [n or 1, h, t, t]."""
    batch, tokens, width = (x.size(axis) for axis in range(3))
    joined = x.linear(3 * width).reshape(batch, tokens, 3, heads, width // heads).transpose(2, 0, 3, 1, 4)
    query, key, value = (part.squeeze(0) for part in joined.split(3, axis=0))
    mixed = attend(query, key, value, bias)
    return mixed.transpose(0, 2, 1, 3).reshape(batch, tokens, width).linear(width)


def swin(
    width: int = 16, depths: Sequence[int] = (2, 2), heads: Sequence[int] = (2, 4), size: int = 32,
    window: int = 4, classes: int = 10,
) -> onnx.ModelProto:  # fmt: skip
    """Liu et al. 2021. Swin-T: width 96, depths (2, 2, 6, 2), heads (3, 6, 12, 24), size 224, window 7.

    Maps are [1, h, w, width]; every second block rolls its map by half a window, and masks the scores of
    tokens that were not neighbours before.
    """
    net = Net("swin")
    x = net.input("image", (1, 3, size, size)).conv(width, 4, 4, 0, bias=True).transpose(0, 2, 3, 1).layer_norm()
    for stage, (depth, count) in enumerate(zip(depths, heads, strict=True)):
        if stage:
            x = merge_patches(x)
        for index in range(depth):
            shift = window // 2 if index % 2 and x.size(1) > window else 0
            x = x + window_attention(x.layer_norm(), count, window, shift)
            x = x + x.layer_norm().linear(4 * x.size(-1)).gelu().linear(x.size(-1))
    net.output("logits", x.layer_norm().mean((1, 2), keepdims=False).gemm(classes))
    return net.model()


def merge_patches(x: Value) -> Value:
    """[1, h, w, c] to [1, h / 2, w / 2, 2 c]."""
    height, width, channels = (x.size(axis) for axis in (1, 2, 3))
    x = x.reshape(1, height // 2, 2, width // 2, 2, channels).transpose(0, 1, 3, 4, 2, 5)
    merged = x.reshape(1, height // 2, width // 2, 4 * channels).layer_norm()
    return merged @ x.net.matrix(4 * channels, 2 * channels, fan_in=4 * channels)


def window_attention(x: Value, heads: int, window: int, shift: int) -> Value:
    """Attention within windows of the map [1, h, w, width] rolled by `shift`, biased by relative position."""
    net, (height, width, channels) = x.net, (x.size(axis) for axis in (1, 2, 3))
    rows, columns, tokens = height // window, width // window, window * window
    if shift:
        x = x.roll(1, -shift).roll(2, -shift)
    windows = x.reshape(1, rows, window, columns, window, channels).transpose(0, 1, 3, 2, 4, 5)
    windows = windows.reshape(rows * columns, tokens, channels)

    table = net.matrix((2 * window - 1) ** 2, heads, fan_in=1)
    places = net.constant(relative_places(window).ravel(), np.int64)
    bias = table.gather(places).reshape(tokens, tokens, heads).transpose(2, 0, 1).unsqueeze(0)
    if shift:
        bias = bias + net.weight(shift_mask(height, width, window, shift))
    mixed = fused_attention(windows, heads, bias)

    x = mixed.reshape(1, rows, columns, window, window, channels).transpose(0, 1, 3, 2, 4, 5)
    x = x.reshape(1, height, width, channels)
    return x.roll(1, shift).roll(2, shift) if shift else x


def relative_places(window: int) -> NDArray[np.int64]:
    """[tokens, tokens] row of the bias table for each pair of tokens of a window."""
    grid: NDArray[np.int64] = np.stack(np.meshgrid(range(window), range(window), indexing="ij")).reshape(2, -1)
    distance = grid[:, :, None] - grid[:, None, :] + window - 1
    rows, columns = distance
    return np.asarray(rows * (2 * window - 1) + columns, np.int64)


def shift_mask(height: int, width: int, window: int, shift: int) -> NDArray[np.float32]:
    """[windows, 1, tokens, tokens] float32: 0 between tokens of one region of the rolled map, else -100."""
    regions = np.zeros((height, width), np.int64)
    bounds = (slice(0, -window), slice(-window, -shift), slice(-shift, None))
    for number, (rows, columns) in enumerate((r, c) for r in bounds for c in bounds):
        regions[rows, columns] = number
    blocks = regions.reshape(height // window, window, width // window, window)
    tiles = blocks.swapaxes(1, 2).reshape(-1, window * window)
    different = tiles[:, None, :] != tiles[:, :, None]
    return np.where(different, -100, 0).astype(np.float32)[:, None]


def bert(
    width: int = 32, depth: int = 2, heads: int = 4, vocabulary: int = 100, length: int = 64,
    batch: int | str = "batch", tokens: int | str = "sequence",
) -> onnx.ModelProto:  # fmt: skip
    """Devlin et al. 2018 with batch and tokens symbolic, shapes computed at run time as torch exports them.

    BERT-base: width 768, depth 12, heads 12, vocabulary 30522, length 512.
    """
    net = Net("bert")
    ids = net.input("input_ids", (batch, tokens), np.int64)
    mask = net.input("attention_mask", (batch, tokens), np.int64)
    kinds = net.input("token_type_ids", (batch, tokens), np.int64)

    x = net.matrix(vocabulary, width, fan_in=1).gather(ids)
    x = x + net.matrix(2, width, fan_in=1).gather(kinds)
    numbers = net.weight(np.arange(length)[None])
    bounds = [net.ints(0), ids.extent(1), net.ints(1)]
    positions = net.node("Slice", [numbers, *bounds], (1, tokens))
    x = (x + net.matrix(length, width, fan_in=1).gather(positions)).layer_norm()

    absent = net.scalar(1.0) - mask.unsqueeze(1, 2).cast(np.float32)
    bias = absent * float(np.finfo(np.float32).min)
    for _ in range(depth):
        x = (x + symbolic_attention(x, heads, bias)).layer_norm()
        x = (x + x.linear(4 * width).gelu().linear(width, gain=0.5)).layer_norm()
    net.output("last_hidden_state", x)
    net.output("pooler_output", x.gather(net.constant(0, np.int64), axis=1).gemm(width).tanh())
    return net.model()


def symbolic_attention(x: Value, heads: int, bias: Value) -> Value:
    """Attention of [batch, tokens, width] whose first two extents only a run can tell."""
    batch, tokens = x.shape[:2]
    width = x.size(2)
    query = split_heads(x.linear(width, gain=1.5), heads)
    key = split_heads(x.linear(width, gain=1.5, bias_label=KEY_BIAS), heads)
    value = split_heads(x.linear(width), heads)
    mixed = attend(query, key, value, bias).transpose(0, 2, 1, 3)
    joined: Shape = (batch, tokens, width)
    return mixed.reshape_to(concat([x.extent(0), x.extent(1), x.net.ints(width)], 0), joined).linear(width, 0.5)


def split_heads(x: Value, heads: int) -> Value:
    """[batch, tokens, width] to [batch, heads, tokens, width / heads]."""
    batch, tokens = x.shape[:2]
    share = x.size(2) // heads
    shape = concat([x.extent(0), x.extent(1), x.net.ints(heads), x.net.ints(share)], 0)
    return x.reshape_to(shape, (batch, tokens, heads, share)).transpose(0, 2, 1, 3)


def gpt2(
    width: int = 32,
    depth: int = 2,
    heads: int = 4,
    vocabulary: int = 100,
    length: int = 64,
    tokens: int | str = "tokens",
) -> onnx.ModelProto:
    """Radford et al. 2019, batch 1, a causal mask cut to length at run time, logits by the token embedding.

    The smallest of the paper: width 768, depth 12, heads 12, vocabulary 50257, length 1024.
    """
    net = Net("gpt2")
    ids = net.input("input_ids", (1, tokens), np.int64)
    embedding = net.matrix(vocabulary, width, fan_in=1)
    count = ids.extent(1)
    zero = net.constant(0, np.int64)
    steps = net.node("Range", [zero, count.squeeze(0), net.constant(1, np.int64)], (tokens,))
    x = embedding.gather(ids) + net.matrix(length, width, fan_in=1).gather(steps)
    for _ in range(depth):
        x = x + causal_attention(x.layer_norm(), heads, count, length)
        x = x + x.layer_norm().linear(4 * width).gelu_tanh().linear(width)
    net.output("logits", x.layer_norm() @ embedding.transpose(1, 0))
    return net.model()


def causal_attention(x: Value, heads: int, count: Value, length: int) -> Value:
    """Attention of [1, tokens, width] in which a token sees itself and those before it."""
    net, tokens, width = x.net, x.shape[1], x.size(2)
    query, key, value = (split_heads(part, heads) for part in x.linear(3 * width).split(3, axis=2))
    scores = (query @ key.transpose(0, 1, 3, 2)) / math.sqrt(width // heads)
    triangle = net.weight(np.tri(length, dtype=np.bool_)[None, None])
    bounds = [concat([net.ints(0), net.ints(0)], 0), concat([count, count], 0), net.ints(2, 3)]
    visible = net.node("Slice", [triangle, *bounds], (1, 1, tokens, tokens))
    lowest = net.scalar(float(np.finfo(np.float32).min))
    masked = net.node("Where", [visible, scores, lowest], scores.shape)
    mixed = (masked.softmax() @ value).transpose(0, 2, 1, 3)
    shape = concat([net.ints(1), count, net.ints(width)], 0)
    return mixed.reshape_to(shape, (1, tokens, width)).linear(width)
