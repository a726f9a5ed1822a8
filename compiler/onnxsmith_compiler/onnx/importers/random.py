"""Random numbers: every element is a hash of a seed and of the element's number, so threads and shapes do not matter.

The hash is SplitMix64 (Steele, Lea and Flood, "Fast splittable pseudorandom number generators", OOPSLA 2014). An
operator with a seed gives the same numbers in every run; one without takes a new seed from the process each time.
"""

from __future__ import annotations

import math

import numpy as np

from onnxsmith_compiler.ir import dim as dims
from onnxsmith_compiler.ir import dtype as dtypes
from onnxsmith_compiler.ir.dtype import DType
from onnxsmith_compiler.ir.graph import Value
from onnxsmith_compiler.onnx.node_import import NodeImport
from onnxsmith_compiler.ops.base import Shape
from onnxsmith_compiler.ops.random import DrawSeed
from onnxsmith_compiler.ops.view import Iota

_STEP = 0x9E3779B97F4A7C15
_MIX = ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB))
_LAST_SHIFT = 31


def random_uniform(node: NodeImport) -> Value:
    return _uniform(node, tuple(node.ints("shape") or ()), node.dtype("dtype", dtypes.FLOAT32))


def random_uniform_like(node: NodeImport) -> Value:
    x = node.input(0)
    return _uniform(node, x.shape, node.dtype("dtype", x.dtype))


def random_normal(node: NodeImport) -> Value:
    return _normal(node, tuple(node.ints("shape") or ()), node.dtype("dtype", dtypes.FLOAT32))


def random_normal_like(node: NodeImport) -> Value:
    x = node.input(0)
    return _normal(node, x.shape, node.dtype("dtype", x.dtype))


def bernoulli(node: NodeImport) -> Value:
    """1 with the probability that the input gives."""
    x = node.input(0)
    drawn = _unit(node, _seed(node), x.shape, x.dtype.compute)
    return node.cast(node.map("lt", drawn, node.cast(x, drawn.dtype)), node.dtype("dtype", x.dtype))


def multinomial(node: NodeImport) -> Value:
    """Classes drawn by unnormalised log-probabilities [batch, classes]: [batch, sample_size].

    The largest of logarithm plus Gumbel noise is such a draw.
    """
    x = node.input(0)
    if x.rank != 2:
        raise node.invalid(f"the input has rank {x.rank}: expected 2")
    shape = (x.shape[0], node.int("sample_size", 1), x.shape[1])
    drawn = _unit(node, _seed(node), shape, dtypes.FLOAT64)
    noise = node.map("neg", node.map("log", node.map("neg", node.map("log", drawn))))
    scores = node.add(node.unsqueeze(node.cast(x, dtypes.FLOAT64), [1]), noise)
    classes = node.reduce("argmax_first", scores, [2], keepdims=False)
    return node.cast(classes, node.dtype("dtype", dtypes.INT32))


def _uniform(node: NodeImport, shape: Shape, dtype: DType) -> Value:
    low, high = node.float("low", 0.0), node.float("high", 1.0)
    drawn = _unit(node, _seed(node), shape, _float(node, dtype).compute)
    return node.cast(node.add(node.mul(drawn, high - low), low), dtype)


def _normal(node: NodeImport, shape: Shape, dtype: DType) -> Value:
    """Box and Muller's transform of two uniform numbers."""
    compute = _float(node, dtype).compute
    seed = _seed(node)
    first, second = (_unit(node, seed, shape, compute, stream) for stream in range(2))
    not_zero = node.sub(node.constant(1.0, compute), first)
    radius = node.map("sqrt", node.mul(node.map("log", not_zero), -2.0))
    standard = node.mul(radius, node.map("cos", node.mul(second, 2 * math.pi)))
    scaled = node.add(node.mul(standard, node.float("scale", 1.0)), node.float("mean", 0.0))
    return node.cast(scaled, dtype)


def _float(node: NodeImport, dtype: DType) -> DType:
    if not dtype.is_float:
        raise node.invalid(f"the result would be {dtype}: expected a float type")
    return dtype


def _seed(node: NodeImport) -> Value:
    """uint64[1], mixed: the node's own seed, or a new one in every run."""
    if node.attribute("seed") is None:
        return _mix(node, node.emit(DrawSeed(len(node.builder.nodes))))
    word = int(np.float32(node.float("seed")).view(np.uint32))
    for shift, factor in _MIX:
        word = (word ^ (word >> shift)) * factor % 2**64
    return node.constant([word ^ (word >> _LAST_SHIFT)], dtypes.UINT64)


def _unit(node: NodeImport, seed: Value, shape: Shape, dtype: DType, stream: int = 0) -> Value:
    """Uniform numbers in [0, 1) by a mixed seed, with all the bits that float32 or float64 has for them."""
    numbers = node.cast(node.emit(Iota((dims.product(shape),), 0)), dtypes.UINT64)
    mixed = _mix(node, node.add(seed, node.mul(node.add(node.mul(numbers, 2), stream + 1), _STEP)))
    bits = 24 if dtype is dtypes.FLOAT32 else 53
    whole = node.cast(node.map("shr", mixed, 64 - bits), dtype)
    return node.reshape(node.mul(whole, 2.0**-bits), shape)


def _mix(node: NodeImport, word: Value) -> Value:
    for shift, factor in _MIX:
        word = node.mul(node.map("bitxor", word, node.map("shr", word, shift)), factor)
    return node.map("bitxor", word, node.map("shr", word, _LAST_SHIFT))
