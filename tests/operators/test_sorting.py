"""TopK, Unique, running totals and non-maximum suppression against onnxruntime and numpy."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import pytest

import onnxsmith
from tests.support import Array, Case, Fixed, check, node_case

DTYPES = ("float32", "float64", "float16", "int8", "int16", "int32", "int64", "uint8", "uint32", "uint64")


def numbers(*shape: int, dtype: str = "float32", seed: int = 0, span: int = 100) -> Array:
    return np.random.default_rng(seed).integers(-span, span, shape).astype(dtype)


def best(x: Array, k: int, axis: int = -1, largest: bool = True) -> list[Array]:
    """By a stable sort: of equal elements the first, NaN above everything."""
    wide = x.astype(np.float64) if x.dtype.kind in "fV" else x
    ranks = np.unique(wide, return_inverse=True)[1].reshape(x.shape).astype(np.int64)
    order = np.argsort(-ranks if largest else ranks, axis=axis, kind="stable")
    places = np.take(order, np.arange(k), axis=axis)
    return [np.take_along_axis(x, places, axis), places]


def test_top_k() -> None:
    cases: list[Case] = []
    x = numbers(3, 7, 5, span=4)
    for axis in (0, 1, 2, -1):
        for k in (0, 1, x.shape[axis]):
            for largest in (0, 1):
                expected = best(x, k, axis, bool(largest))
                cases.append(node_case("TopK", x, np.array([k]), opset=11, outputs=2, axis=axis, largest=largest,
                                       expected=expected, symbolic=False))  # fmt: skip
    cases.append(node_case("TopK", numbers(4, 0), np.array([0]), opset=11, outputs=2, symbolic=False))
    cases.append(node_case("TopK", numbers(0, 4), Fixed(np.array([2])), opset=10, outputs=2))
    cases.append(node_case("TopK", numbers(40), opset=1, outputs=2, k=3))
    for dtype in DTYPES:
        values = numbers(50, dtype=dtype, span=20)
        cases.append(node_case("TopK", values, Fixed(np.array([9])), opset=11, outputs=2, expected=best(values, 9)))
    narrow = numbers(50, span=20).astype(ml_dtypes.bfloat16)
    cases.append(node_case("TopK", narrow, Fixed(np.array([9])), opset=24, outputs=2, expected=best(narrow, 9)))
    check(cases)
    check(cases, optimization_level=0)


def test_top_k_orders_special_values() -> None:
    x = np.array([0.0, -0.0, np.nan, -np.inf, np.inf, 1e-45, -np.nan, 3.0], np.float32)
    cases = [
        node_case(
            "TopK", x, Fixed(np.array([8])), opset=11, outputs=2, largest=largest, expected=best(x, 8, -1, largest == 1)
        )
        for largest in (0, 1)
    ]
    wide = np.array([2**63, 2**64 - 1, 0, 2**63 - 1, 5], np.uint64)
    cases.append(node_case("TopK", wide, Fixed(np.array([5])), opset=11, outputs=2, expected=best(wide, 5)))
    signed = np.array([2**63 - 1, -(2**63), 0, -1, 2**62], np.int64)
    cases.append(node_case("TopK", signed, Fixed(np.array([5])), opset=11, outputs=2, expected=best(signed, 5)))
    cases.append(
        node_case(
            "TopK",
            x.astype(np.float64),
            Fixed(np.array([8])),
            opset=11,
            outputs=2,
            expected=best(x.astype(np.float64), 8),
        )
    )
    check(cases)


@pytest.mark.parametrize("k", [-1, 6])
def test_top_k_of_more_than_there_are_is_refused(k: int) -> None:
    case = node_case("TopK", numbers(5), np.array([5]), opset=11, outputs=2, symbolic=False)
    session = onnxsmith.InferenceSession(case.model.SerializeToString())
    with pytest.raises(onnxsmith.errors.Fail):
        session.run(None, {"x0": numbers(5), "x1": np.array([k])})


def distinct(x: Array, axis: int | None, by_value: bool) -> list[Array]:
    values, first, inverse, counts = np.unique(x, True, True, True, axis=axis)
    inverse = inverse.reshape(-1)
    if not by_value:
        order = np.argsort(first)
        rank = np.argsort(order)
        values = np.take(values, order, axis=0 if axis is None else axis)
        first, inverse, counts = first[order], rank[inverse], counts[order]
    return [values, *(np.asarray(part, np.int64) for part in (first, inverse, counts))]


def test_unique() -> None:
    cases: list[Case] = []
    x = numbers(6, 5, 4, span=2)
    for by_value in (0, 1):
        for axis in (None, 0, 1, 2, -1):
            named = {} if axis is None else {"axis": axis}
            expected = distinct(x, axis, bool(by_value))
            cases.append(node_case("Unique", x, opset=11, outputs=4, sorted=by_value, expected=expected, **named))
        rows = np.array([[1, 1], [0, 1], [1, 1], [0, 1], [2, 0]], np.int64)
        cases.append(node_case("Unique", rows, opset=11, outputs=4, sorted=by_value, axis=0,
                               expected=distinct(rows, 0, bool(by_value))))  # fmt: skip
    special = np.array([np.nan, 1.0, np.nan, -0.0, 0.0, -np.inf])
    cases.append(node_case("Unique", special, opset=11, outputs=4, expected=distinct(special, None, True)))
    cases.append(node_case("Unique", np.zeros(0, np.float32), opset=11, outputs=4))
    cases.append(node_case("Unique", np.array(3), opset=11, outputs=4, expected=distinct(np.array(3), None, True)))
    for dtype in DTYPES:
        values = numbers(30, dtype=dtype, span=5)
        cases.append(node_case("Unique", values, opset=11, outputs=4, expected=distinct(values, None, True)))
    check(cases)
    check(cases, optimization_level=0)


def test_runs_in_a_row_keep_their_scratch_memory_apart() -> None:
    """The kernel of the first segment has scratch, that of the second one is sized by the first one's result."""
    x = numbers(5000, dtype="int64", span=2000)
    case = node_case("Unique", x, opset=11, outputs=4, expected=distinct(x, None, True))
    session = onnxsmith.InferenceSession(case.model.SerializeToString())
    for _ in range(3):
        for found, wanted in zip(session.run(None, {"x0": x}), case.expected, strict=True):
            np.testing.assert_array_equal(found, wanted)


def test_running_totals() -> None:
    cases: list[Case] = []
    x = numbers(3, 4, 70)
    for axis in (0, 1, -1):
        for exclusive in (0, 1):
            for reverse in (0, 1):
                for fixed in (True, False):
                    place = Fixed(np.array(axis)) if fixed else np.array(axis)
                    cases.append(node_case("CumSum", x, place, opset=14, exclusive=exclusive, reverse=reverse))
    for dtype in ("float64", "int32", "int64"):
        cases.append(node_case("CumSum", numbers(9, dtype=dtype), np.array([0], np.int32), opset=11, symbolic=False))
    cases.append(node_case("CumSum", numbers(0, 3), Fixed(np.array(0)), opset=14))
    half = numbers(40, span=9).astype(np.float16)
    cases.append(node_case("CumSum", half, Fixed(np.array(0)), opset=14, expected=[np.cumsum(half, dtype=np.float16)]))
    small = numbers(5, 6, span=3)
    for axis in (0, 1):
        expected = [np.cumprod(small, axis=axis, dtype=np.float32)]
        cases.append(node_case("CumProd", small, np.array(axis), opset=26, expected=expected))
    check(cases)
    check(cases, optimization_level=0)


@pytest.mark.parametrize("axis", [2, -3])
def test_an_axis_that_only_a_run_knows_is_checked(axis: int) -> None:
    case = node_case("CumSum", numbers(2, 3), np.array(0), opset=14)
    session = onnxsmith.InferenceSession(case.model.SerializeToString())
    with pytest.raises(onnxsmith.errors.InvalidArgument, match="out of bounds"):
        session.run(None, {"x0": numbers(2, 3), "x1": np.array(axis)})


def boxes_and_scores(batches: int, classes: int, count: int, seed: int) -> tuple[Array, Array]:
    generator = np.random.default_rng(seed)
    corners = generator.uniform(0, 10, (batches, count, 2))
    sizes = generator.uniform(0.5, 5, (batches, count, 2))
    boxes = np.concatenate([corners, corners + sizes], axis=-1).astype(np.float32)
    return boxes, generator.uniform(0, 1, (batches, classes, count)).astype(np.float32)


def test_non_max_suppression() -> None:
    cases: list[Case] = []
    half, low = np.array([0.5], np.float32), np.array([0.3], np.float32)
    for seed, (batches, classes, count) in enumerate([(1, 1, 30), (2, 3, 50), (1, 2, 1), (1, 1, 0), (2, 2, 7)]):
        boxes, scores = boxes_and_scores(batches, classes, count, seed)
        for most in (0, 3, 1000):
            limit = np.array([most])
            cases.append(node_case("NonMaxSuppression", boxes, scores, limit, half, low, opset=11))
            cases.append(
                node_case("NonMaxSuppression", boxes, scores, Fixed(limit), half, opset=10, center_point_box=1)
            )
    boxes, scores = boxes_and_scores(1, 2, 20, 9)
    flipped = boxes[..., [2, 1, 0, 3]]
    cases.append(node_case("NonMaxSuppression", flipped, scores, np.array([5]), low, opset=11))
    cases.append(node_case("NonMaxSuppression", boxes, scores, opset=11))
    cases.append(node_case("NonMaxSuppression", boxes, scores, np.array([4]), None, half, opset=11))
    ties = np.full((1, 1, 20), 0.5, np.float32)
    cases.append(node_case("NonMaxSuppression", boxes, ties, np.array([9]), half, opset=11))
    check(cases)
    check(cases, optimization_level=0)
