"""Vision operators against onnxruntime, the onnx reference, or equations written out here."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from tests.support import Array, Case, Fixed, check, node_case, official_cases

LEVELS = (0, 99)


def draw(*shape: int, dtype: Any = np.float32, seed: int = 0) -> Array:
    return np.random.default_rng(seed).standard_normal(shape).astype(dtype)


def whole(*values: int) -> Array:
    return np.array(values, np.int64)


def grid_cases() -> Iterator[Case]:
    x, grid = draw(2, 3, 5, 7), draw(2, 4, 6, 2, seed=1) * 1.1
    for mode, padding, align in itertools.product(
        ("bilinear", "bicubic", "nearest"), ("zeros", "border", "reflection"), (0, 1)
    ):
        yield node_case(
            "GridSample", x, grid, opset=16, mode=mode, padding_mode=padding, align_corners=align, rtol=1e-4, atol=1e-4
        )
    volume, places = draw(2, 3, 3, 4, 5), draw(2, 2, 3, 4, 3, seed=2)
    for mode, padding, opset in itertools.product(("linear", "nearest"), ("zeros", "border", "reflection"), (20, 22)):
        yield node_case(
            "GridSample", volume, places, opset=opset, mode=mode, padding_mode=padding, rtol=1e-4, atol=1e-4
        )
    wide: dict[str, Any] = {"expected": "reference", "rtol": 1e-4, "atol": 1e-4}
    yield node_case("GridSample", draw(1, 2, 3, 3, 3), draw(1, 2, 2, 2, 3, seed=3), opset=20, mode="cubic", **wide)
    yield node_case("GridSample", draw(1, 2, 6), draw(1, 5, 1, seed=3), opset=20, **wide)
    yield node_case("GridSample", x.astype(np.float64), grid.astype(np.float64), opset=22, **wide)
    yield node_case("GridSample", (x * 20).astype(np.int32), grid, opset=20, mode="nearest", **wide)


def region_cases() -> Iterator[Case]:
    x = draw(2, 5, 9, 11)
    regions = np.array([[0, 0, 20, 16], [3, 2, 9, 12], [-4, -3, 30, 40], [5, 5, 5.5, 5.2]], np.float32)
    images = whole(1, 0, 1, 0)
    for mode, ratio, scale, opset in itertools.product(("avg", "max"), (0, 2), (1.0, 0.5), (10, 16, 22)):
        yield node_case(
            "RoiAlign",
            x,
            regions,
            images,
            opset=opset,
            mode=mode,
            sampling_ratio=ratio,
            spatial_scale=scale,
            output_height=3,
            output_width=4,
            expected="reference" if opset == 22 else "onnxruntime",
            rtol=1e-4,
            atol=1e-5,
        )
    double = (x.astype(np.float64), regions.astype(np.float64), images)
    yield node_case("RoiAlign", *double, opset=16, output_height=2, output_width=2, rtol=1e-4, atol=1e-5)
    with_images = np.concatenate([images[:, None].astype(np.float32), regions], axis=1)
    for scale in (1.0, 0.5):
        yield node_case("MaxRoiPool", x, with_images, opset=16, pooled_shape=[3, 2], spatial_scale=scale)


def unpool_cases() -> Iterator[Case]:
    x = draw(2, 3, 4, 5)
    places = np.arange(x.size).reshape(x.shape) * 4
    yield node_case("MaxUnpool", x, places, opset=11, kernel_shape=[2, 2], strides=[2, 2])
    yield node_case("MaxUnpool", x, places, opset=22, kernel_shape=[2, 2], strides=[2, 2], expected="reference")
    line, there = draw(1, 2, 4), whole(0, 3, 4, 7, 8, 11, 12, 15).reshape(1, 2, 4)
    yield node_case("MaxUnpool", line, there, opset=11, kernel_shape=[2], strides=[2])
    yield node_case(
        "MaxUnpool", line, there, Fixed(whole(1, 2, 10)), opset=22, kernel_shape=[2], strides=[2], expected="reference"
    )


def block_cases() -> Iterator[Case]:
    tables: list[tuple[tuple[int, ...], tuple[int, ...], dict[str, Any]]] = [
        ((5, 6), (2, 3), {}),
        ((5, 6), (2, 2), {"strides": [2, 1], "pads": [1, 0, 0, 1]}),
        ((7, 8), (2, 3), {"dilations": [2, 2]}),
        ((4, 5, 6), (2, 1, 3), {"strides": [1, 2, 1]}),
    ]
    for image, block, given in tables:
        rank = len(image)
        strides, dilations = given.get("strides", [1] * rank), given.get("dilations", [1] * rank)
        pads = given.get("pads", [0] * (2 * rank))
        counts = [
            (image[k] + pads[k] + pads[rank + k] - (block[k] - 1) * dilations[k] - 1) // strides[k] + 1
            for k in range(rank)
        ]
        x = draw(2, 3 * int(np.prod(block)), int(np.prod(counts)))
        for wrap in (Fixed, lambda array: array):
            sizes = wrap(whole(*image)), wrap(whole(*block))
            yield node_case("Col2Im", x, *sizes, opset=18, symbolic=False, expected="reference", atol=1e-5, **given)


def crop_cases() -> Iterator[Case]:
    x = draw(5, 6, 4)
    for shape, axes in (((3, 8, 4), None), ((8, 3), [0, 1]), ((1, 9), [-1, -3]), ((5, 6, 4), None), ((0, 7), [1, 2])):
        given: dict[str, Any] = {} if axes is None else {"axes": axes}
        for dtype in (np.float32, np.int8, np.float16):
            data = (x * 10).astype(dtype)
            yield node_case("CenterCropPad", data, Fixed(whole(*shape)), opset=18, expected="reference", **given)
        yield node_case("CenterCropPad", x, whole(*shape), opset=18, symbolic=False, expected="reference", **given)


def affine_cases() -> Iterator[Case]:
    for size, align in itertools.product(((2, 3, 4, 5), (2, 3, 3, 4, 5)), (0, 1)):
        theta = draw(2, len(size) - 2, len(size) - 1)
        for dtype, wrap in ((np.float32, Fixed), (np.float32, lambda array: array)):
            sizes = wrap(whole(*size))
            data = theta.astype(dtype)
            yield node_case(
                "AffineGrid", data, sizes, opset=20, align_corners=align, symbolic=False, rtol=1e-4, atol=1e-5
            )


def deform(x: Array, weights: Array, offset: Array, mask: Array, pad: int, stride: int) -> Array:
    """The definition of a deformable convolution with one group, in float64."""
    batch, channels, height, width = x.shape
    outputs, _, rows, columns = weights.shape
    _, _, high, wide = offset.shape
    groups = offset.shape[1] // (2 * rows * columns)
    y = np.zeros((batch, outputs, high, wide))
    for n, c, i, j, row, column in itertools.product(*map(range, (batch, channels, high, wide, rows, columns))):
        tap = (c // (channels // groups)) * rows * columns + row * columns + column
        v = i * stride - pad + row + float(offset[n, 2 * tap, i, j])
        u = j * stride - pad + column + float(offset[n, 2 * tap + 1, i, j])
        total = 0.0
        for a, b in itertools.product(
            (int(np.floor(v)), int(np.floor(v)) + 1), (int(np.floor(u)), int(np.floor(u)) + 1)
        ):
            if 0 <= a < height and 0 <= b < width:
                total += float(x[n, c, a, b]) * (1 - abs(v - a)) * (1 - abs(u - b))
        y[n, :, i, j] += total * float(mask[n, tap, i, j]) * weights[:, c, row, column]
    return y


def deform_cases() -> Iterator[Case]:
    x = draw(2, 4, 5, 6)
    for pad, stride, groups in ((0, 1, 1), (1, 1, 2), (1, 2, 2)):
        high, wide = (5 + 2 * pad - 3) // stride + 1, (6 + 2 * pad - 2) // stride + 1
        weights, offset = draw(3, 4, 3, 2, seed=1), draw(2, groups * 12, high, wide, seed=2)
        mask, bias = np.abs(draw(2, groups * 6, high, wide, seed=3)), draw(3, seed=4)
        expected = deform(x, weights, offset, mask, pad, stride) + bias[None, :, None, None]
        yield node_case(
            "DeformConv",
            x,
            Fixed(weights),
            offset,
            Fixed(bias),
            mask,
            opset=19,
            kernel_shape=[3, 2],
            pads=[pad] * 4,
            strides=[stride] * 2,
            offset_group=groups,
            expected=[expected.astype(np.float32)],
            rtol=1e-4,
            atol=1e-4,
        )


TABLES = {
    "grid": grid_cases,
    "regions": region_cases,
    "unpool": unpool_cases,
    "blocks": block_cases,
    "crop": crop_cases,
    "affine": affine_cases,
    "deform": deform_cases,
}
OPERATORS = ("AffineGrid", "CenterCropPad", "Col2Im", "DeformConv", "GridSample", "MaxUnpool", "RoiAlign")


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("table", TABLES)
def test_vision(table: str, level: int) -> None:
    check(list(TABLES[table]()), optimization_level=level)


@pytest.mark.parametrize("level", LEVELS)
def test_official_cases(level: int) -> None:
    check(official_cases(*OPERATORS), optimization_level=level)
