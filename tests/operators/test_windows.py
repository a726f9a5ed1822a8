"""Convolutions and pools against onnxruntime, the onnx reference, or definitions written out here."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from typing import Any

import ml_dtypes
import numpy as np
import pytest

from tests.support import Array, Case, Fixed, check, node_case, official_cases

LEVELS = (0, 99)
AUTO = ("SAME_UPPER", "SAME_LOWER", "VALID")


def draw(*shape: int, dtype: Any = np.float32, seed: int = 0) -> Array:
    return np.random.default_rng(seed).standard_normal(shape).astype(dtype)


def conv(x: Array, weights: Array, bias: Array | None = None, *, fed: bool = False, **given: Any) -> Case:
    """Weights and bias are fixed unless `fed`; then every size is a symbol, and an attribute gives the window's."""
    constants = [weights] if bias is None else [weights, bias]
    op_type = given.pop("op_type", "Conv")
    window: dict[str, Any] = {"kernel_shape": list(weights.shape[2:])} if fed else {}
    given = {"opset": 11, "rtol": 1e-4, "atol": 2e-5, **window, **given}
    return node_case(op_type, x, *(value if fed else Fixed(value) for value in constants), **given)


WINDOWS: Sequence[dict[str, Any]] = (
    {},
    {"pads": [1, 1, 1, 1]},
    {"pads": [0, 2, 1, 0], "strides": [2, 1]},
    {"dilations": [2, 1], "strides": [1, 3]},
    {"dilations": [2, 2], "pads": [2, 1, 0, 3], "strides": [2, 2]},
    *({"auto_pad": auto, "strides": list(strides)} for auto in AUTO for strides in ((1, 1), (2, 3))),
)


def conv_cases() -> Iterator[Case]:
    bias = draw(6, seed=2)
    for given, fed in itertools.product(WINDOWS, (False, True)):
        yield conv(draw(2, 4, 9, 11), draw(6, 4, 3, 2, seed=1), bias, fed=fed, **given)
    for given in WINDOWS:
        yield conv(draw(2, 4, 9, 11), draw(6, 2, 3, 3, seed=1), bias, group=2, **given)
        yield conv(draw(2, 6, 9, 11), draw(6, 1, 3, 3, seed=1), bias, group=6, **given)
        yield conv(draw(2, 3, 9, 11), draw(6, 1, 3, 2, seed=1), bias, group=3, **given)
        yield conv(draw(2, 4, 9, 11), draw(6, 4, 3, 2, seed=1), symbolic=False, **given)
    for fed in (False, True):
        yield conv(draw(2, 3, 13), draw(4, 3, 3, seed=1), strides=[2], pads=[1, 2], fed=fed)
        yield conv(draw(1, 3, 5, 6, 7), draw(4, 3, 2, 3, 2, seed=1), pads=[1, 0, 1, 0, 1, 1], fed=fed)
        yield conv(draw(1, 4, 5, 6, 7), draw(4, 1, 3, 3, 3, seed=1), group=4, strides=[1, 2, 2], fed=fed)
        yield conv(draw(3, 5, 4, 4), draw(7, 5, 1, 1, seed=1), fed=fed)
        yield conv(draw(3, 5, 4, 4), draw(7, 5, 1, 1, seed=1), strides=[2, 2], fed=fed)
        yield conv(draw(0, 5, 4, 4), draw(7, 5, 3, 3, seed=1), fed=fed, expected=[np.zeros((0, 7, 2, 2), np.float32)])
    same: dict[str, Any] = {"auto_pad": "SAME_UPPER", "dilations": [2, 2]}
    yield conv(draw(2, 4, 9, 11), draw(6, 4, 3, 2, seed=1), expected="reference", **same)
    yield conv(draw(1, 64, 17, 19), draw(96, 64, 3, 3, seed=1), pads=[1, 1, 1, 1], atol=5e-4)
    yield conv(draw(1, 40, 17, 19), draw(40, 1, 5, 5, seed=1), pads=[2, 2, 2, 2], group=40)


def narrow(values: Array, dtype: Any) -> Array:
    """Numbers with few bits, whose products and sums are exact, so that only the last rounding is compared."""
    return np.round(values * 4).clip(-7, 7).astype(dtype)


def conv_type_cases() -> Iterator[Case]:
    for dtype, (channels, group) in itertools.product(
        (np.float16, ml_dtypes.bfloat16, np.float64), ((4, 1), (4, 2), (4, 4))
    ):
        x, weights = narrow(draw(2, channels, 6, 7), dtype), narrow(draw(4, channels // group, 3, 3, seed=1), dtype)
        exact = convolve(x.astype(np.float64), weights.astype(np.float64), group)
        for fed in (False, True):
            yield conv(x, weights, opset=22, group=group, fed=fed, expected=[exact.astype(dtype)], rtol=0, atol=0)


def convolve(x: Array, weights: Array, group: int) -> Array:
    """A convolution without padding by its definition."""
    outputs, inputs, rows, columns = weights.shape
    high, wide = x.shape[2] - rows + 1, x.shape[3] - columns + 1
    y = np.zeros((x.shape[0], outputs, high, wide))
    each = outputs // group
    for output, row, column in itertools.product(range(outputs), range(rows), range(columns)):
        first = (output // each) * inputs
        part = x[:, first : first + inputs, row : row + high, column : column + wide]
        y[:, output] += np.einsum("nchw,c->nhw", part, weights[output, :, row, column])
    return y


def transpose_cases() -> Iterator[Case]:
    windows: list[dict[str, Any]] = [
        {},
        {"strides": [2, 3]},
        {"strides": [3, 2]},
        {"strides": [2, 2], "pads": [1, 0, 0, 1]},
        {"strides": [4, 3], "dilations": [3, 1]},
        {"strides": [3, 2], "output_padding": [1, 1]},
        {"dilations": [2, 1], "strides": [2, 2], "pads": [1, 1, 1, 1]},
        {"strides": [2, 2], "output_shape": [8, 10]},
        {"strides": [3, 2], "output_shape": [12, 9], "output_padding": [1, 0]},
        *({"auto_pad": auto, "strides": [2, 2]} for auto in AUTO),
        {"auto_pad": "SAME_LOWER", "strides": [2, 3], "output_shape": [9, 14]},
    ]
    for given, fed in itertools.product(windows, (False, True)):
        weights = draw(4, 5, 3, 2, seed=1)
        yield conv(draw(2, 4, 4, 5), weights, draw(5, seed=2), op_type="ConvTranspose", fed=fed, **given)
        yield conv(draw(2, 4, 4, 5), draw(4, 3, 3, 2, seed=1), op_type="ConvTranspose", group=2, fed=fed, **given)
    more: dict[str, Any] = {"op_type": "ConvTranspose"}
    yield conv(draw(2, 3, 7), draw(3, 4, 3, seed=1), strides=[2], pads=[1, 0], **more)
    yield conv(draw(1, 2, 3, 4, 5), draw(2, 3, 2, 3, 2, seed=1), strides=[2, 1, 3], **more)
    yield conv(draw(2, 4, 5, 5), draw(4, 1, 4, 4, seed=1), strides=[2, 2], pads=[1, 1, 1, 1], group=4, **more)
    double: dict[str, Any] = {"expected": "reference", "opset": 22, **more}
    yield conv(draw(1, 2, 3, 4, dtype=np.float64), draw(2, 3, 2, 2, dtype=np.float64, seed=1), **double)


def pool_windows() -> Iterator[dict[str, Any]]:
    yield {"kernel_shape": [2, 2], "strides": [2, 2]}
    yield {"kernel_shape": [3, 3], "strides": [2, 2], "pads": [1, 1, 1, 1]}
    yield {"kernel_shape": [3, 2], "pads": [1, 0, 0, 1]}
    yield {"kernel_shape": [3, 3], "strides": [2, 3], "pads": [1, 1, 0, 2], "ceil_mode": 1}
    yield {"kernel_shape": [2, 2], "strides": [3, 3], "ceil_mode": 1}
    for auto, strides in itertools.product(AUTO, ([1, 1], [2, 3])):
        yield {"kernel_shape": [3, 2], "auto_pad": auto, "strides": strides}


def max_pool_cases() -> Iterator[Case]:
    x = draw(2, 5, 9, 11)
    for given, symbolic in itertools.product(pool_windows(), (True, False)):
        yield node_case("MaxPool", x, opset=12, symbolic=symbolic, **given)
        for order in (0, 1):
            yield node_case("MaxPool", x, opset=12, outputs=2, storage_order=order, symbolic=symbolic, **given)
    dilated: dict[str, Any] = {"kernel_shape": [3, 2], "dilations": [2, 3], "pads": [1, 0, 1, 1]}
    yield node_case("MaxPool", x, opset=12, outputs=2, **dilated)
    yield node_case("MaxPool", x, opset=12, ceil_mode=1, strides=[2, 3], **dilated)
    for narrow_type in (np.int8, np.uint8):
        data = (x * 50).astype(narrow_type)
        yield node_case("MaxPool", data, opset=12, outputs=2, kernel_shape=[3, 3], pads=[1, 1, 1, 1])
    for dtype in (np.float16, np.float64):
        yield node_case("MaxPool", x.astype(dtype), opset=22, kernel_shape=[3, 3], strides=[2, 2], expected="reference")
    yield node_case("MaxPool", draw(2, 3, 10), opset=8, outputs=2, kernel_shape=[3], strides=[2])
    yield node_case("MaxPool", draw(2, 3, 5, 6, 7), opset=12, outputs=2, kernel_shape=[2, 3, 2], strides=[2, 1, 2])
    yield node_case("MaxPool", x, opset=1, kernel_shape=[3, 3])
    empty = np.zeros((0, 5, 4, 4), np.float32)
    yield node_case("MaxPool", draw(0, 5, 5, 5), opset=12, kernel_shape=[2, 2], expected=[empty])


def pooled(x: Array, kind: str, size: int, pad: int, dilation: int = 1) -> tuple[Array, Array]:
    """A pool of one axis by its definition: the results, and where they are in x (-1: nowhere)."""
    rows, length = x.reshape(-1, x.shape[-1]), x.shape[-1]
    values, places = [], []
    for row, start in itertools.product(range(len(rows)), range(-pad, length + pad - (size - 1) * dilation)):
        taps = [at for at in range(start, start + size * dilation, dilation) if 0 <= at < length]
        covered = rows[row, taps]
        if not taps:
            values.append(-np.inf if kind == "max" else 0.0)
        else:
            values.append(float(np.max(covered) if kind == "max" else np.mean(covered, dtype=np.float64)))
        places.append(row * length + taps[int(np.argmax(covered))] if taps else -1)
    shape = (*x.shape[:-1], -1)
    return np.array(values, x.dtype).reshape(shape), np.array(places).reshape(shape)


def unusual_pool_cases() -> Iterator[Case]:
    """NaN goes through, and wherever an extreme is, it is no place in the padding."""
    nan, inf = np.nan, np.inf
    row = np.array([1, nan, 2, 3, nan, -inf, -inf, -inf, -inf, nan, nan, nan, 5, 4])
    x = np.stack([row, row[::-1], np.full(14, -inf), np.full(14, nan)])[None]
    for dtype, size, dilation in itertools.product((np.float32, np.float64, np.float16), (2, 3), (1, 2)):
        window: dict[str, Any] = {"kernel_shape": [size], "pads": [1, 1], "dilations": [dilation]}
        data = x.astype(dtype)
        values, places = pooled(data, "max", size, 1, dilation)
        for symbolic in (True, False):
            yield node_case("MaxPool", data, opset=22, symbolic=symbolic, expected=[values], **window)
            given: dict[str, Any] = {"symbolic": symbolic, "expected": [values, places]}
            yield node_case("MaxPool", data, opset=22, outputs=2, **given, **window)
        mean = [pooled(data, "mean", size, 1, dilation)[0]]
        yield node_case("AveragePool", data, opset=22, expected=mean, **window)
    for dtype in (np.int8, np.uint8):
        least = np.full((1, 1, 3), np.iinfo(dtype).min, dtype)
        yield node_case("MaxPool", least, opset=12, outputs=2, kernel_shape=[3], pads=[1, 1])
    planes = np.full((2, 3, 4, 4), -inf, np.float32)
    for wide in (1, 2):
        window = {"kernel_shape": [3, 3], "pads": [1, 1, 1, 1], "dilations": [wide, wide]}
        yield node_case("MaxPool", planes, opset=12, outputs=2, **window)
    narrow: dict[str, Any] = {"kernel_shape": [2], "pads": [1, 1], "dilations": [3]}
    nothing = draw(1, 2, 2)
    values, places = pooled(nothing, "max", 2, 1, 3)
    yield node_case("MaxPool", nothing, opset=12, outputs=2, expected=[values, places], **narrow)
    yield node_case("AveragePool", nothing, opset=19, **narrow)


def average_pool_cases() -> Iterator[Case]:
    x = draw(2, 5, 9, 11)
    for given, include, symbolic in itertools.product(pool_windows(), (0, 1), (True, False)):
        yield node_case("AveragePool", x, opset=19, count_include_pad=include, symbolic=symbolic, **given)
    for include, ceil in itertools.product((0, 1), (0, 1)):
        given = {"kernel_shape": [3, 2], "dilations": [2, 3], "pads": [1, 1, 1, 1], "strides": [2, 2]}
        extra: dict[str, Any] = {"count_include_pad": include, "ceil_mode": ceil}
        yield node_case("AveragePool", x, opset=19, **given, **extra)
    yield node_case("AveragePool", draw(2, 3, 10), opset=7, kernel_shape=[3], strides=[2], pads=[1, 1])
    yield node_case("AveragePool", draw(2, 3, 5, 6, 7), opset=11, kernel_shape=[2, 3, 2], strides=[2, 1, 2])
    for dtype in (np.float16, np.float64):
        given = {"kernel_shape": [3, 3], "pads": [1, 1, 1, 1], "expected": "reference", "rtol": 2e-3}
        yield node_case("AveragePool", x.astype(dtype), opset=22, **given)


def other_pool_cases() -> Iterator[Case]:
    x = draw(2, 5, 9, 11)
    for given, p in itertools.product(pool_windows(), (1, 2, 3)):
        if given.get("ceil_mode"):
            given = {**given, "opset": 18}
        yield node_case("LpPool", x, p=p, rtol=1e-4, **{"opset": 18, **given})
    yield node_case("LpPool", x, opset=18, kernel_shape=[3, 2], dilations=[2, 3], rtol=1e-4)
    for kind in ("GlobalAveragePool", "GlobalMaxPool", "GlobalLpPool"):
        for shape in ((2, 5, 9, 11), (2, 3, 7), (1, 2, 3, 4, 5)):
            yield node_case(kind, draw(*shape), opset=11, rtol=1e-4)
    yield node_case("GlobalLpPool", x, opset=11, p=3, rtol=1e-4)
    for dtype in (np.float16, np.float64):
        for kind in ("GlobalAveragePool", "GlobalMaxPool"):
            yield node_case(kind, x.astype(dtype), opset=22, expected="reference", rtol=2e-3, atol=1e-3)


TABLES = {
    "conv": conv_cases,
    "conv types": conv_type_cases,
    "transpose": transpose_cases,
    "max pool": max_pool_cases,
    "unusual pools": unusual_pool_cases,
    "average pool": average_pool_cases,
    "other pools": other_pool_cases,
}
OPERATORS = (
    "AveragePool", "Conv", "ConvTranspose", "GlobalAveragePool", "GlobalLpPool", "GlobalMaxPool", "LpPool", "MaxPool",
)  # fmt: skip


@pytest.mark.parametrize("table", TABLES)
def test_windows(table: str) -> None:
    check(list(TABLES[table]()))


@pytest.mark.parametrize("level", LEVELS)
def test_official_cases(level: int) -> None:
    check(official_cases(*OPERATORS), optimization_level=level)
