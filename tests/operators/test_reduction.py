"""Reductions against onnxruntime and numpy: axes known and not, empty tensors, types, infinities."""

from __future__ import annotations

import numpy as np
import pytest

import onnxsmith
from tests.support import Array, Case, Fixed, check, node_case

SUMS = ("ReduceL1", "ReduceL2", "ReduceLogSum", "ReduceLogSumExp", "ReduceMean", "ReduceSum", "ReduceSumSquare")
PLAIN = ("ReduceMax", "ReduceMin", "ReduceProd")


def positive(*shape: int, dtype: str = "float32", seed: int = 0) -> Array:
    return np.random.default_rng(seed).uniform(0.5, 2, shape).astype(dtype)


@pytest.mark.parametrize("level", [0, 99])
def test_axes(level: int) -> None:
    """Axes fixed and symbolic sizes; axes fed; no axes."""
    x = positive(3, 5, 4)
    cases: list[Case] = []
    for op_type in (*SUMS, *PLAIN):
        for axes in ([0], [-1], [0, 2], [2, 1, 0], []):
            for keepdims in (0, 1):
                array = np.array(axes, np.int64)
                cases.append(node_case(op_type, x, Fixed(array), opset=18, keepdims=keepdims))
                cases.append(node_case(op_type, x, array, opset=18, keepdims=keepdims, symbolic=False))
        cases.append(node_case(op_type, x, np.array([1]), opset=18, keepdims=1))
        cases.append(node_case(op_type, x, opset=18))
        cases.append(node_case(op_type, x, opset=11, axes=[-2], keepdims=0))
        cases.append(node_case(op_type, x, opset=1))
    check(cases, optimization_level=level)


def test_no_axes_may_mean_no_reduction() -> None:
    x = positive(2, 3)
    none = np.zeros(0, np.int64)
    cases = [
        *(
            node_case(op, x, Fixed(none), opset=18, noop_with_empty_axes=1, expected=[x])
            for op in ("ReduceSum", "ReduceMax")
        ),
        node_case("ReduceSum", x, none, opset=13, noop_with_empty_axes=1, expected=[x]),
        node_case("ReduceSum", x, none, opset=13, noop_with_empty_axes=0, expected=[x.sum(keepdims=True)]),
        node_case("ReduceMean", x, opset=18, noop_with_empty_axes=1, expected=[x]),
        node_case("ReduceSumSquare", x, opset=18, noop_with_empty_axes=1, expected=[x * x]),
        node_case("ReduceLogSumExp", x, opset=18, noop_with_empty_axes=1, expected=[x]),
    ]
    check(cases)


def test_sizes() -> None:
    cases: list[Case] = []
    for shape, axis in [
        ((1, 1), 0),
        ((17, 1), 0),
        ((1, 67), 1),
        ((129, 3), 0),
        ((2, 131, 5), 1),
        ((1000,), 0),
        ((), 0),
    ]:
        x = positive(*shape)
        for op_type in ("ReduceSum", "ReduceMax", "ReduceMean"):
            axes = Fixed(np.array([axis] if shape else [], np.int64))
            cases.append(node_case(op_type, x, axes, opset=18))
    check(cases)
    check(cases, optimization_level=0)


def test_reductions_of_nothing() -> None:
    empty = np.zeros((2, 0, 3), np.float32)
    axes = Fixed(np.array([1]))
    inf = np.full((2, 1, 3), np.inf, np.float32)
    zero, one = np.zeros_like(inf), np.ones_like(inf)
    wanted = {
        "ReduceSum": zero, "ReduceL1": zero, "ReduceL2": zero, "ReduceSumSquare": zero, "ReduceProd": one,
        "ReduceLogSum": -inf, "ReduceLogSumExp": -inf, "ReduceMax": -inf, "ReduceMin": inf,
        "ReduceMean": np.full_like(inf, np.nan),
    }  # fmt: skip
    cases = [node_case(op, empty, axes, opset=20, expected=[value]) for op, value in wanted.items()]
    cases.append(node_case("ReduceSum", np.zeros((0, 3), np.float32), Fixed(np.array([1])), opset=20))
    cases.append(node_case("ReduceMax", np.zeros((0, 3), np.float32), Fixed(np.array([1])), opset=20))
    check(cases)
    check(cases, optimization_level=0)


def test_integers() -> None:
    cases: list[Case] = []
    for dtype in ("int32", "int64", "uint32", "uint64"):
        x = positive(3, 4).astype(dtype) + np.array(5, dtype)
        wide = x.astype(np.float64)
        for op_type, wanted in {
            "ReduceSum": x.sum(1), "ReduceProd": x.prod(1), "ReduceMax": x.max(1), "ReduceL1": x.sum(1),
            "ReduceMean": x.sum(1) // 4, "ReduceSumSquare": (x * x).sum(1), "ReduceL2": np.sqrt((wide * wide).sum(1)),
            "ReduceLogSum": np.log(wide.sum(1)),
        }.items():  # fmt: skip
            axes = Fixed(np.array([1]))
            cases.append(node_case(op_type, x, axes, opset=18, keepdims=0, expected=[wanted.astype(dtype)]))
    for dtype in ("int8", "uint8"):
        x = np.array([[-100, 100, 3], [7, 8, 9]]).astype(dtype)
        for op_type, wanted in {"ReduceMax": x.max(1), "ReduceMin": x.min(1)}.items():
            cases.append(node_case(op_type, x, Fixed(np.array([1])), opset=18, keepdims=0, expected=[wanted]))
    truth = np.array([[True, False], [False, False], [True, True]])
    cases.append(node_case("ReduceMax", truth, Fixed(np.array([1])), opset=20, keepdims=0, expected=[truth.any(1)]))
    cases.append(node_case("ReduceMin", truth, Fixed(np.array([1])), opset=20, keepdims=0, expected=[truth.all(1)]))
    check(cases)


def test_narrow_floats_are_summed_in_float32() -> None:
    x = np.full(4096, 1.0009765625, np.float16)
    check([node_case("ReduceSum", x, opset=13, keepdims=0, expected=[x.astype(np.float32).sum().astype(np.float16)])])
    wide = positive(3, 50, dtype="float64")
    check([node_case(op, wide, Fixed(np.array([1])), opset=18, rtol=1e-12, atol=0) for op in (*SUMS, *PLAIN)])


def test_infinities_and_nan() -> None:
    rows = np.array([[np.inf, 1.0], [-np.inf, -np.inf], [np.nan, 2.0], [-np.inf, 3.0], [1000.0, 1000.0]], np.float32)
    axes = Fixed(np.array([1]))
    with np.errstate(invalid="ignore"):
        log_sum_exp = np.array([np.inf, -np.inf, np.nan, 3.0, 1000 + np.log(2)], np.float32)
    cases = [
        node_case("ReduceMax", rows, axes, opset=18, keepdims=0, expected=[rows.max(1)]),
        node_case("ReduceMin", rows, axes, opset=18, keepdims=0, expected=[rows.min(1)]),
        node_case("ReduceSum", rows, axes, opset=18, keepdims=0, expected=[rows.sum(1)]),
        node_case("ReduceLogSumExp", rows, axes, opset=18, keepdims=0, expected=[log_sum_exp]),
    ]
    check(cases)


@pytest.mark.parametrize("axes", [[2], [-3], [0, 0], [0, -2]])
def test_axes_that_a_run_gives_are_checked(axes: list[int]) -> None:
    good = np.arange(len(axes))
    case = node_case("ReduceSum", positive(2, 3), good, opset=18, symbolic=False)
    session = onnxsmith.InferenceSession(case.model.SerializeToString())
    with pytest.raises((onnxsmith.errors.Fail, onnxsmith.errors.InvalidArgument)):
        session.run(None, {"x0": positive(2, 3), "x1": np.array(axes)})


def test_arg_max_and_arg_min() -> None:
    x = np.random.default_rng(3).integers(0, 4, (4, 9, 5)).astype(np.float32)
    cases: list[Case] = []
    for op_type in ("ArgMax", "ArgMin"):
        for axis in (0, 1, -1):
            for last in (0, 1):
                for keepdims in (0, 1):
                    cases.append(node_case(op_type, x, opset=13, axis=axis, select_last_index=last, keepdims=keepdims))
        for dtype in ("float64", "int32", "int8", "uint8"):
            cases.append(node_case(op_type, x.astype(dtype), opset=13, axis=1))
        half = x.astype(np.float16)
        wanted = (np.argmax if op_type == "ArgMax" else np.argmin)(half, 1)[:, np.newaxis]
        cases.append(node_case(op_type, half, opset=13, axis=1, expected=[wanted]))
        cases.append(node_case(op_type, np.zeros((0, 3), np.float32), opset=13, axis=1))
        cases.append(node_case(op_type, x, opset=1))
    extremes = np.array([[-np.inf, -np.inf], [np.inf, np.inf], [1.0, np.nan], [np.nan, np.nan]], np.float32)
    for op_type, last, wanted in [
        ("ArgMax", 0, [0, 0, 1, 0]),
        ("ArgMax", 1, [1, 1, 1, 1]),
        ("ArgMin", 0, [0, 0, 1, 0]),
    ]:
        expected = [np.array(wanted)]
        cases.append(
            node_case(op_type, extremes, opset=13, axis=1, select_last_index=last, keepdims=0, expected=expected)
        )
    check(cases)
    check(cases, optimization_level=0)
