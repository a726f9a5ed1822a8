"""Resize and Upsample against onnxruntime, and against the onnx reference where onnxruntime lacks them."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any

import ml_dtypes
import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import helper, numpy_helper

from tests.support import Array, Case, Fixed, Oracle, check, node_case, official_cases

LEVELS = (0, 99)
COORDINATES = ("half_pixel", "pytorch_half_pixel", "align_corners", "asymmetric", "half_pixel_symmetric")
ROUNDINGS = ("round_prefer_floor", "round_prefer_ceil", "floor", "ceil")
SCALES = ((2.0, 2.0), (3.0, 1.0), (1.7, 2.5), (0.6, 0.5), (0.31, 1.3))


def draw(*shape: int, dtype: Any = np.float32, seed: int = 0) -> Array:
    values = np.random.default_rng(seed).standard_normal(shape) * 20
    if np.dtype(dtype).kind == "u":
        values = np.abs(values)
    return values.astype(dtype)


def floats(*values: float) -> Array:
    return np.array(values, np.float32)


def sizes(*values: int) -> Array:
    return np.array(values, np.int64)


def resize(x: Array, *, opset: int = 19, fed: bool = False, expected: Any = "onnxruntime", **given: Any) -> Case:
    """`scales`, `sizes` and `roi` are inputs, fed or fixed; the others of `given` are attributes."""
    tail = [given.pop(name, None) for name in ("roi", "scales", "sizes")]
    if opset < 11:
        tail = tail[1:2]
    operands = [value if value is None or fed else Fixed(value) for value in tail]
    while operands and operands[-1] is None:
        operands.pop()
    return node_case(
        "Resize",
        x,
        *operands,
        opset=opset,
        expected=expected,
        rtol=1e-3 if x.dtype == np.float16 else 1e-4,
        atol=1e-4,
        **given,
    )


def oracle(coordinates: str) -> Oracle:
    """onnxruntime takes the last element of align_corners from the whole size, ONNX from the one before rounding."""
    return "reference" if coordinates == "align_corners" else "onnxruntime"


def nearest_cases() -> Iterator[Case]:
    x = draw(2, 3, 5, 7)
    for coordinates, rounding, scales in itertools.product(COORDINATES, ROUNDINGS, SCALES):
        modes: dict[str, Any] = {"coordinate_transformation_mode": coordinates, "nearest_mode": rounding}
        if (
            coordinates in ("align_corners", "half_pixel_symmetric")
            and rounding in ("floor", "ceil")
            and min(scales) < 1
        ):
            continue  # coordinates that are whole but for rounding
        yield resize(x, scales=floats(1, 1, *scales), expected=oracle(coordinates), **modes)
    for wanted in ((10, 14), (15, 7), (9, 4), (2, 21), (1, 1)):
        yield resize(x, sizes=sizes(2, 3, *wanted))
        yield resize(x, sizes=sizes(2, 3, *wanted), coordinate_transformation_mode="asymmetric", nearest_mode="floor")
    for coordinates in ("half_pixel", "asymmetric"):
        yield resize(x, sizes=sizes(4, 6, 3, 8), coordinate_transformation_mode=coordinates)
    yield resize(
        x, scales=floats(1, 1, 2, 0.5), roi=floats(), coordinate_transformation_mode="tf_half_pixel_for_nn", opset=11
    )
    yield resize(draw(6), scales=floats(2.3))
    yield resize(draw(2, 0, 5), scales=floats(1, 2, 2), expected=[np.zeros((2, 0, 10), np.float32)])


def linear_cases() -> Iterator[Case]:
    x = draw(2, 3, 5, 7)
    for coordinates, scales in itertools.product(COORDINATES, SCALES):
        yield resize(
            x,
            scales=floats(1, 1, *scales),
            mode="linear",
            coordinate_transformation_mode=coordinates,
            expected=oracle(coordinates),
        )
    for wanted in ((10, 14), (15, 7), (9, 4), (2, 21), (1, 1)):
        for coordinates in COORDINATES[:-1]:
            yield resize(x, sizes=sizes(2, 3, *wanted), mode="linear", coordinate_transformation_mode=coordinates)
    ranks: list[tuple[tuple[int, ...], tuple[float, ...]]] = [
        ((7,), (1.5,)),
        ((5, 6), (2, 0.7)),
        ((3, 4, 5), (1, 1, 2)),
        ((2, 3, 2, 4, 5), (1, 1, 2, 1.5, 3)),
    ]
    for shape, factors in ranks:
        yield resize(draw(*shape), scales=floats(*factors), mode="linear", expected="reference")
    yield resize(draw(2, 3, 4, 5), scales=floats(1.5, 2, 2, 2), mode="linear", expected="reference")


def cubic_cases() -> Iterator[Case]:
    x = draw(2, 3, 6, 5)
    for coordinates, scales in itertools.product(COORDINATES, SCALES):
        yield resize(
            x,
            scales=floats(1, 1, *scales),
            mode="cubic",
            coordinate_transformation_mode=coordinates,
            expected=oracle(coordinates),
        )
    for a, exclude in itertools.product((-0.5, -0.75), (0, 1)):
        given: dict[str, Any] = {"mode": "cubic", "cubic_coeff_a": a, "exclude_outside": exclude}
        yield resize(x, sizes=sizes(2, 3, 9, 3), **given)
        yield resize(x, scales=floats(1, 1, 0.4, 2.2), **given)
    yield resize(draw(2, 7, 3), scales=floats(1, 1.7, 1), mode="cubic", expected="reference")


def antialias_cases() -> Iterator[Case]:
    x = draw(2, 3, 11, 13)
    for mode, scales, exclude in itertools.product(("linear", "cubic"), (*SCALES, (0.13, 0.27)), (0, 1)):
        given: dict[str, Any] = {"mode": mode, "antialias": 1, "exclude_outside": exclude}
        yield resize(x, scales=floats(1, 1, *scales), expected="reference", **given)
    for mode, coordinates in itertools.product(("linear", "cubic"), ("half_pixel", "align_corners", "asymmetric")):
        given = {"mode": mode, "antialias": 1, "coordinate_transformation_mode": coordinates}
        yield resize(x, sizes=sizes(2, 3, 4, 6), expected="reference", **given)
        yield resize(x, sizes=sizes(4, 20), axes=[2, 3], expected="reference", **given)


def axes_cases() -> Iterator[Case]:
    x = draw(2, 3, 5, 7)
    for axes, mode in itertools.product(([2, 3], [3, 2], [-1], [1, 2]), ("nearest", "linear", "cubic")):
        scales = floats(*(1.5, 2)[: len(axes)])
        yield resize(x, scales=scales, axes=axes, mode=mode, expected="onnxruntime" if axes == [-1] else "reference")
    for policy, wanted in itertools.product(("stretch", "not_larger", "not_smaller"), ((10, 9), (3, 5), (7, 30))):
        for mode in ("nearest", "linear"):
            given: dict[str, Any] = {"keep_aspect_ratio_policy": policy, "axes": [2, 3], "mode": mode}
            yield resize(x, sizes=sizes(*wanted), **given)
            yield resize(x, sizes=sizes(*wanted), fed=True, symbolic=False, **given)


def crop_cases() -> Iterator[Case]:
    x = draw(1, 2, 6, 5)
    for mode, region in itertools.product(
        ("nearest", "linear", "cubic"),
        (
            (0, 0, 0.37, 0.61, 1, 1, 0.64, 0.83),
            (0, 0, -0.23, 0.13, 1, 1, 1.3, 0.9),
            (0, 0, 0.93, 0.8, 1, 1, 0.14, 0.22),
        ),
    ):
        given: dict[str, Any] = {
            "mode": mode,
            "coordinate_transformation_mode": "tf_crop_and_resize",
            "extrapolation_value": 10.0,
        }
        yield resize(x, roi=floats(*region), sizes=sizes(1, 2, 3, 4), expected="reference", **given)
        yield resize(x, roi=floats(*region), sizes=sizes(1, 2, 3, 4), fed=True, expected="reference", **given)
        yield resize(x, roi=floats(*region), sizes=sizes(1, 2, 1, 7), expected="reference", **given)
        short = floats(*region[2:4], *region[6:])
        yield resize(x, roi=short, sizes=sizes(3, 4), axes=[2, 3], expected="reference", **given)


def run_time_cases() -> Iterator[Case]:
    """Scales and sizes that only a run knows."""
    x = draw(2, 3, 5, 7)
    for mode, scales in itertools.product(("nearest", "linear", "cubic"), SCALES):
        expected = "onnxruntime" if mode == "nearest" else "reference"
        yield resize(x, scales=floats(1, 1, *scales), mode=mode, fed=True, symbolic=False, expected=expected)
        yield resize(x, scales=floats(*scales), axes=[2, 3], mode=mode, fed=True, symbolic=False, expected=expected)
        yield resize(x, sizes=sizes(2, 3, 4, 9), mode=mode, fed=True, expected="reference")
    yield resize(x, scales=floats(0.4, 0.7), axes=[2, 3], mode="cubic", antialias=1, fed=True, expected="reference")
    yield resize(x, sizes=sizes(3, 2), axes=[2, 3], mode="linear", antialias=1, fed=True, expected="reference")


TYPES = (np.float16, np.float64, np.int8, np.uint8, np.int16, np.uint16, np.int32, np.int64, np.uint32, np.uint64)


def type_cases() -> Iterator[Case]:
    for dtype, mode in itertools.product(TYPES, ("nearest", "linear", "cubic")):
        x = draw(1, 2, 4, 5, dtype=dtype)
        yield resize(x, scales=floats(1, 1, 4, 2), mode=mode, expected="reference")
    for dtype in (np.uint8, np.float16, np.int64):
        x = draw(1, 2, 9, 10, dtype=dtype)
        yield resize(x, scales=floats(1, 1, 0.4, 0.3), mode="linear", antialias=1, expected="reference")
    flags = draw(1, 2, 3, 4) > 0
    yield resize(flags, scales=floats(1, 1, 2, 2), expected=[flags.repeat(2, axis=2).repeat(2, axis=3)])
    narrow = draw(1, 2, 3, 4, dtype=ml_dtypes.bfloat16)
    yield resize(narrow, scales=floats(1, 1, 2, 2), expected=[narrow.repeat(2, axis=2).repeat(2, axis=3)])


def old_cases() -> Iterator[Case]:
    x = draw(1, 2, 4, 5)
    for mode, scales in itertools.product(("nearest", "linear"), ((2, 2), (0.5, 0.6), (1.5, 3))):
        yield resize(x, scales=floats(1, 1, *scales), mode=mode, opset=10)
        yield resize(x, scales=floats(1, 1, *scales), mode=mode, opset=10, fed=True)
    for mode, scales, opset in itertools.product(("nearest", "linear", "cubic"), ((2, 2), (0.5, 0.6)), (11, 13, 18)):
        yield resize(x, scales=floats(1, 1, *scales), roi=floats(), mode=mode, opset=opset)
        yield resize(x, scales=floats(), roi=floats(), sizes=sizes(1, 2, 3, 9), mode=mode, opset=opset)
    for mode, scales in itertools.product(("nearest", "linear"), ((2, 2), (1.5, 3))):
        yield node_case("Upsample", x, opset=7, mode=mode, scales=[1.0, 1.0, *map(float, scales)])
        yield node_case("Upsample", x, Fixed(floats(1, 1, *scales)), opset=9, mode=mode)
        yield node_case("Upsample", x, floats(1, 1, *scales), opset=9, mode=mode)


TABLES = {
    "nearest": nearest_cases,
    "linear": linear_cases,
    "cubic": cubic_cases,
    "antialias": antialias_cases,
    "axes": axes_cases,
    "crop": crop_cases,
    "run time": run_time_cases,
    "types": type_cases,
    "old": old_cases,
}


@pytest.mark.parametrize("table", TABLES)
def test_resize(table: str) -> None:
    check(list(TABLES[table]()))


@pytest.mark.parametrize("table", ["crop", "run time", "old"])
def test_without_optimisation(table: str) -> None:
    check(list(TABLES[table]()), optimization_level=0)


def between_convolutions(mode: str, grows: bool, tail: bool) -> onnx.ModelProto:
    """A convolution, a resize and, where `tail`, another convolution, with a symbolic batch and height."""
    weights = draw(5, 3, 3, 3, seed=1) / 20
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["a"], pads=[1, 1, 1, 1]),
        helper.make_node("Resize", ["a", "", "s"], ["b"], mode=mode),
        helper.make_node("Conv", ["b", "v"], ["y"]) if tail else helper.make_node("Relu", ["b"], ["y"]),
    ]
    constants = {
        "w": weights,
        "v": draw(4, 5, 1, 1, seed=2) / 20,
        "s": floats(1, 1, *((2, 3.3) if grows else (0.5, 0.7))),
    }
    graph = helper.make_graph(
        nodes,
        "between",
        [helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, ["n", 3, "h", 9])],
        [onnx.ValueInfoProto(name="y")],
        [numpy_helper.from_array(array, name) for name, array in constants.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)


@pytest.mark.parametrize("tail", [False, True])
def test_between_convolutions(tail: bool) -> None:
    """There the layout is channels-last."""
    cases = []
    for mode, grows in itertools.product(("nearest", "linear", "cubic"), (False, True)):
        model = between_convolutions(mode, grows, tail)
        feeds = {"x": draw(2, 3, 6, 9)}
        session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
        cases.append(Case(f"{mode} {grows}", model, feeds, tuple(session.run(None, feeds)), 1e-4, 1e-4))
    check(cases)


@pytest.mark.parametrize("level", LEVELS)
def test_official_cases(level: int) -> None:
    check(official_cases("Resize", "Upsample"), optimization_level=level)
