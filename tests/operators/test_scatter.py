"""Scattering against onnxruntime and numpy: reductions, repeated positions in order, types, faults."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import pytest

import onnxsmith
from tests.support import Array, Case, Fixed, check, node_case

REDUCTIONS = ("none", "add", "mul", "min", "max")
DTYPES = ("float32", "float64", "int8", "int16", "int32", "int64", "uint8", "uint32", "uint64")
_NUMPY = {"add": np.add, "mul": np.multiply, "min": np.minimum, "max": np.maximum}


def numbers(*shape: int, dtype: str = "float32", seed: int = 0) -> Array:
    return np.random.default_rng(seed).integers(-9, 9, shape).astype(dtype)


def scattered(data: Array, indices: Array, updates: Array, axis: int, reduction: str) -> list[Array]:
    """Each update in row-major order, one after another."""
    result = data.copy()
    for place in np.ndindex(indices.shape):
        target = list(place)
        target[axis] = int(indices[place])
        old, new = result[tuple(target)], updates[place]
        result[tuple(target)] = new if reduction == "none" else _NUMPY[reduction](old, new)
    return [result]


def test_scatter_elements() -> None:
    x = numbers(5, 6, 4)
    generator = np.random.default_rng(1)
    cases: list[Case] = []
    for axis in (0, 1, 2, -1):
        for reduction in REDUCTIONS:
            indices = generator.integers(-x.shape[axis], x.shape[axis], (3, 5, 4))
            updates = numbers(3, 5, 4, seed=2)
            expected = scattered(x, indices, updates, axis, reduction)
            cases.append(
                node_case(
                    "ScatterElements", x, indices, updates, opset=18, axis=axis, reduction=reduction, expected=expected
                )
            )
    cases.append(node_case("Scatter", x, np.array([[[1]]], np.int32), numbers(1, 1, 1), opset=9, axis=1))
    cases.append(node_case("ScatterElements", x, Fixed(np.zeros((0, 1, 1), np.int64)), numbers(0, 1, 1), opset=13))
    check(cases)
    check(cases, optimization_level=0)


def test_types() -> None:
    indices = np.array([3, 0, 3, 1])
    cases: list[Case] = []
    for dtype in DTYPES:
        x, updates = numbers(5, dtype=dtype), numbers(4, dtype=dtype, seed=1)
        for reduction in REDUCTIONS:
            expected = scattered(x, indices, updates, 0, reduction)
            cases.append(
                node_case("ScatterElements", x, indices, updates, opset=18, reduction=reduction, expected=expected)
            )
    for storage in (np.dtype(np.float16), np.dtype(ml_dtypes.bfloat16)):
        x, updates = numbers(5).astype(storage), numbers(4, seed=1).astype(storage)
        for reduction in REDUCTIONS:
            expected = scattered(x, indices, updates, 0, reduction)
            cases.append(
                node_case("ScatterElements", x, indices, updates, opset=18, reduction=reduction, expected=expected)
            )
    x, updates = np.array([True, False, True, False, False]), np.array([True, True, False, False])
    truth = {"none": [True, False, True, False, False], "add": [True, False, True, True, False]}
    for reduction, wanted in truth.items():
        expected = [np.array(wanted)]
        cases.append(
            node_case("ScatterElements", x, indices, updates, opset=18, reduction=reduction, expected=expected)
        )
    check(cases)


def test_scatter_nd() -> None:
    x = numbers(4, 5, 6)
    generator = np.random.default_rng(3)
    cases: list[Case] = []
    for depth in (1, 2, 3):
        for reduction in REDUCTIONS:
            indices = generator.integers(0, 4, (3, 2, depth))
            updates = numbers(3, 2, *x.shape[depth:], seed=4)
            cases.append(node_case("ScatterND", x, indices, updates, opset=18, reduction=reduction, symbolic=False))
    cases.append(node_case("ScatterND", x, np.array([[-1], [-4]]), numbers(2, 5, 6), opset=13, symbolic=False))
    cases.append(node_case("ScatterND", x, np.zeros((0, 1), np.int64), numbers(0, 5, 6), opset=11, symbolic=False))
    cases.append(node_case("ScatterND", x, Fixed(np.array([[1, 1], [1, 1]])), numbers(2, 6), opset=16, reduction="add"))
    check(cases)
    check(cases, optimization_level=0)


def test_large_scatters_do_not_depend_on_threads() -> None:
    generator = np.random.default_rng(5)
    x = generator.standard_normal((50, 9000)).astype(np.float32)
    indices = generator.integers(0, 50, (200, 9000))
    updates = generator.standard_normal((200, 9000)).astype(np.float32)
    expected = x.copy()
    for row in range(200):
        expected[indices[row], np.arange(9000)] += updates[row]
    rows = generator.integers(0, 50, (300, 1))
    slices = generator.standard_normal((300, 9000)).astype(np.float32)
    by_slice = x.copy()
    for row, update in zip(rows[:, 0], slices, strict=True):
        by_slice[row] += update
    check(
        [
            node_case(
                "ScatterElements", x, indices, updates, opset=18, reduction="add", expected=[expected], rtol=0, atol=0
            ),
            node_case(
                "ScatterND",
                x,
                rows,
                slices,
                opset=18,
                reduction="add",
                expected=[by_slice],
                rtol=0,
                atol=0,
                symbolic=False,
            ),
        ]
    )


@pytest.mark.parametrize("op_type", ["ScatterElements", "ScatterND"])
@pytest.mark.parametrize("index", [-5, 4, np.iinfo(np.int64).max])
def test_positions_out_of_range_are_faults(op_type: str, index: int) -> None:
    updates = numbers(1, 1) if op_type == "ScatterElements" else numbers(1, 2)
    case = node_case(op_type, numbers(4, 2), np.array([[3]]), updates, opset=18, symbolic=False)
    session = onnxsmith.InferenceSession(case.model.SerializeToString())
    with pytest.raises(onnxsmith.errors.InvalidArgument, match=f"idx={index} must be within the inclusive range"):
        session.run(None, {"x0": numbers(4, 2), "x1": np.array([[index]]), "x2": updates})


def test_updates_that_do_not_fit_are_refused() -> None:
    case = node_case("ScatterElements", numbers(4, 2), np.array([[3, 1]]), numbers(1, 2), opset=18)
    session = onnxsmith.InferenceSession(case.model.SerializeToString())
    for indices, updates in [((1, 3), (1, 3)), ((1, 2), (1, 1)), ((2, 2), (1, 2))]:
        feeds = {"x0": numbers(4, 2), "x1": np.zeros(indices, np.int64), "x2": numbers(*updates)}
        with pytest.raises(onnxsmith.errors.Fail):
            session.run(None, feeds)


def test_cache_updates() -> None:
    generator = np.random.default_rng(7)
    cases: list[Case] = []
    for mode in ("linear", "circular"):
        for axis, cache, update in [
            (-2, (3, 2, 8, 4), (3, 2, 3, 4)),
            (1, (3, 8, 5), (3, 1, 5)),
            (-1, (2, 4, 6), (2, 4, 6)),
        ]:
            most = cache[axis] - update[axis] if mode == "linear" else 3 * cache[axis]
            starts = generator.integers(0, most + 1, cache[0])
            x, new = numbers(*cache), numbers(*update, seed=1)
            cases.append(
                node_case("TensorScatter", x, new, starts, opset=24, mode=mode, axis=axis, expected="reference")
            )
            cases.append(node_case("TensorScatter", x, new, opset=24, mode=mode, axis=axis, expected="reference"))
    check(cases)
    check(cases, optimization_level=0)


@pytest.mark.parametrize("start", [-1, 3])
def test_cache_updates_past_the_end_are_faults(start: int) -> None:
    cache, update = numbers(1, 5, 2), numbers(1, 3, 2)
    case = node_case("TensorScatter", cache, update, np.array([2]), opset=24, axis=1, expected="reference")
    session = onnxsmith.InferenceSession(case.model.SerializeToString())
    with pytest.raises(onnxsmith.errors.InvalidArgument, match="out of bounds"):
        session.run(None, {"x0": cache, "x1": update, "x2": np.array([start])})
