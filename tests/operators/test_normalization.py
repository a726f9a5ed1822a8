"""Normalisations against onnxruntime, the onnx reference, or definitions written out here in float64."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any

import ml_dtypes
import numpy as np
import pytest

from tests.support import Array, Case, Fixed, check, node_case, official_cases

LEVELS = (0, 99)
NARROW: dict[Any, dict[str, Any]] = {
    np.float16: {"rtol": 4e-3, "atol": 4e-3},
    ml_dtypes.bfloat16: {"rtol": 3e-2, "atol": 3e-2},
    np.float64: {"rtol": 1e-10, "atol": 1e-10},
    np.float32: {"rtol": 1e-4, "atol": 2e-5},
}


def draw(*shape: int, dtype: Any = np.float32, seed: int = 0) -> Array:
    return np.random.default_rng(seed).standard_normal(shape).astype(dtype)


def exact(x: Array, axes: tuple[int, ...], epsilon: float) -> Array:
    wide = x.astype(np.float64)
    centred = wide - wide.mean(axes, keepdims=True)
    return centred / np.sqrt((centred**2).mean(axes, keepdims=True) + epsilon)


def local_response(x: Array, size: int, alpha: float) -> Array:
    """x over (1 + alpha / size * squares of `size` neighbouring channels) ^ 0.75."""
    wide = x.astype(np.float64)
    before = (size - 1) // 2
    margins = [(0, 0), (before, size - 1 - before), *((0, 0) for _ in x.shape[2:])]
    padded = np.pad(wide**2, margins)
    total = sum(padded[:, k : k + x.shape[1]] for k in range(size))
    return wide / (1.0 + float(np.float32(alpha)) / size * total) ** 0.75


def along_channels(values: Array, rank: int) -> Array:
    return values.astype(np.float64).reshape(-1, *(1,) * (rank - 2))


def batch_cases() -> Iterator[Case]:
    for shape, opset in itertools.product(((2, 5, 4, 3), (3, 5), (2, 5, 7), (1, 5, 2, 3, 4)), (7, 9, 14, 15)):
        x, rest = draw(*shape), [draw(5, seed=k) for k in (1, 2, 3)]
        variance = np.abs(draw(5, seed=4)) + 0.1
        for wrap in (Fixed, lambda array: array):
            yield node_case("BatchNormalization", x, *map(wrap, (*rest, variance)), opset=opset, rtol=1e-4, atol=1e-5)
    x, rest = draw(4, 5, 3, 2), [draw(5, seed=k) for k in (1, 2, 3)]
    for opset, momentum in itertools.product((14, 15), (0.9, 0.3)):
        given: dict[str, Any] = {"training_mode": 1, "momentum": momentum, "outputs": 3, "expected": "reference"}
        yield node_case(
            "BatchNormalization", x, *rest, np.abs(rest[0]) + 0.1, opset=opset, rtol=1e-4, atol=1e-5, **given
        )


def offset_cases() -> Iterator[Case]:
    """Values far from zero, where sums of squares would lose everything."""
    for shift in (1e3, 1e4):
        x = (draw(3, 4, 6, 5) + shift).astype(np.float32)
        scale, bias = draw(4, seed=1), draw(4, seed=2)
        y = exact(x, (2, 3), 1e-5) * along_channels(scale, 4) + along_channels(bias, 4)
        near = {"rtol": 2e-3, "atol": 2e-3}
        yield node_case(
            "InstanceNormalization", x, Fixed(scale), Fixed(bias), opset=6, expected=[y.astype(np.float32)], **near
        )
        row = (draw(7, 33) + shift).astype(np.float32)
        weight = draw(33, seed=1)
        y = exact(row, (1,), 1e-5) * weight
        yield node_case("LayerNormalization", row, Fixed(weight), opset=17, expected=[y.astype(np.float32)], **near)
        y = exact(x.reshape(3, 2, -1), (2,), 1e-5).reshape(x.shape) * along_channels(scale, 4) + along_channels(bias, 4)
        yield node_case(
            "GroupNormalization",
            x,
            Fixed(scale),
            Fixed(bias),
            opset=21,
            num_groups=2,
            expected=[y.astype(np.float32)],
            **near,
        )
        y = exact(x, (0, 2, 3), 0)
        yield node_case("MeanVarianceNormalization", x, opset=13, expected=[y.astype(np.float32)], **near)


def type_cases() -> Iterator[Case]:
    for dtype, near in NARROW.items():
        x, scale, bias = (draw(*s, dtype=dtype, seed=k) for k, s in enumerate(((2, 6, 5, 4), (6,), (6,))))
        tall = (along_channels(scale, 4), along_channels(bias, 4))
        y = exact(x, (2, 3), 1e-5) * tall[0] + tall[1]
        yield node_case(
            "InstanceNormalization", x, Fixed(scale), Fixed(bias), opset=22, expected=[y.astype(dtype)], **near
        )
        y = exact(x.reshape(2, 3, -1), (2,), 1e-5).reshape(x.shape) * tall[0] + tall[1]
        yield node_case(
            "GroupNormalization",
            x,
            Fixed(scale),
            Fixed(bias),
            opset=21,
            num_groups=3,
            expected=[y.astype(dtype)],
            **near,
        )
        weight = draw(4, dtype=dtype, seed=3)
        y = exact(x, (3,), 1e-5) * weight.astype(np.float64)
        yield node_case("LayerNormalization", x, Fixed(weight), opset=17, expected=[y.astype(dtype)], **near)
        wide = x.astype(np.float64)
        y = wide / np.sqrt((wide**2).mean(3, keepdims=True) + 1e-5) * weight.astype(np.float64)
        yield node_case("RMSNormalization", x, Fixed(weight), opset=23, expected=[y.astype(dtype)], **near)
        for p in (1, 2):
            norm = np.abs(wide).sum(1, keepdims=True) if p == 1 else np.sqrt((wide**2).sum(1, keepdims=True))
            yield node_case("LpNormalization", x, opset=22, axis=1, p=p, expected=[(wide / norm).astype(dtype)], **near)
        yield node_case(
            "MeanVarianceNormalization",
            x,
            opset=13,
            expected=[exact(x, (0, 2, 3), 0).astype(dtype)],
            **{**near, "atol": max(near["atol"], 1e-7)},
        )
        yield node_case(
            "LRN", x, opset=13, size=3, alpha=0.1, expected=[local_response(x, 3, 0.1).astype(dtype)], **near
        )


def layer_cases() -> Iterator[Case]:
    x = draw(2, 3, 4, 5)
    for axis, bias in itertools.product((-1, 1, 2, -3, 0), (False, True)):
        tail = x.shape[axis % 4 :]
        operands = [Fixed(draw(*tail, seed=1)), *([Fixed(draw(*tail, seed=2))] if bias else [])]
        yield node_case("LayerNormalization", x, *operands, opset=17, outputs=3, axis=axis, rtol=1e-4, atol=1e-5)
    wide = draw(3, 1, 5, seed=1)
    yield node_case(
        "LayerNormalization",
        draw(2, 3, 4, 5),
        Fixed(wide),
        opset=17,
        axis=2,
        expected=[(exact(x, (2, 3), 1e-5) * wide).astype(np.float32)],
        rtol=1e-4,
        atol=1e-5,
    )
    for shape, size in itertools.product(((2, 5), (2, 5, 7), (1, 6, 3, 4), (1, 4, 2, 3, 2)), (1, 2, 3, 5)):
        data = draw(*shape)
        expected = [local_response(data, size, 1e-4).astype(np.float32)]
        yield node_case("LRN", data, opset=13, size=size, expected=expected, rtol=1e-4, atol=1e-5)
    zeros = np.zeros((2, 3), np.float32)
    for p in (1, 2):
        yield node_case("LpNormalization", zeros, opset=22, p=p, expected=[zeros])


TABLES = {"batch": batch_cases, "offsets": offset_cases, "types": type_cases, "layer": layer_cases}
OPERATORS = (
    "BatchNormalization", "GroupNormalization", "InstanceNormalization", "LRN", "LayerNormalization", "LpNormalization",
    "MeanVarianceNormalization", "RMSNormalization",
)  # fmt: skip


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("table", TABLES)
def test_normalization(table: str, level: int) -> None:
    check(list(TABLES[table]()), optimization_level=level)


@pytest.mark.parametrize("level", LEVELS)
def test_official_cases(level: int) -> None:
    check(official_cases(*OPERATORS), optimization_level=level)
