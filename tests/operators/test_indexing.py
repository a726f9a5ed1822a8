"""Reading elements by position and finding them, against onnxruntime."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import pytest

import onnxsmith
from tests.support import Array, Case, Fixed, check, node_case

DTYPES = (
    "float32",
    "float64",
    "float16",
    "int8",
    "int16",
    "int32",
    "int64",
    "uint8",
    "uint16",
    "uint32",
    "uint64",
    "bool",
)


def numbers(*shape: int, dtype: str = "float32", seed: int = 0) -> Array:
    return np.random.default_rng(seed).integers(-100, 100, shape).astype(dtype)


def positions(limit: int, *shape: int, dtype: str = "int64") -> Array:
    return np.random.default_rng(1).integers(-limit, limit, shape).astype(dtype)


def test_gather() -> None:
    x = numbers(4, 5, 3)
    cases = [
        *(node_case("Gather", x, positions(x.shape[axis], 2, 3), opset=13, axis=axis) for axis in (0, 1, 2, -1)),
        node_case("Gather", x, positions(4, 2, dtype="int32"), opset=11),
        node_case("Gather", x, positions(4), opset=13),
        node_case("Gather", x, Fixed(positions(4)), opset=1),
        node_case("Gather", x, positions(4, 0), opset=13),
        node_case("Gather", numbers(4, 0), positions(4, 2), opset=13),
        *(node_case("Gather", numbers(4, 3, dtype=dtype), positions(4, 2), opset=13) for dtype in DTYPES),
    ]
    check(cases)
    check(cases, optimization_level=0)


def test_gather_elements() -> None:
    x = numbers(4, 5, 3)
    cases = [
        *(node_case("GatherElements", x, positions(3, 4, 5, 3), opset=13, axis=axis) for axis in (0, 1, 2, -2)),
        node_case("GatherElements", x, positions(4, 7, 2, 1), opset=11, axis=0),
        node_case("GatherElements", x, positions(4, 0, 2, 1), opset=13),
        *(node_case("GatherElements", numbers(4, dtype=dtype), positions(4, 6), opset=13) for dtype in DTYPES),
    ]
    check(cases)
    check(cases, optimization_level=0)


def test_gather_nd() -> None:
    x = numbers(4, 5, 3)
    depths = [node_case("GatherND", x, positions(3, 2, 6, depth), opset=12, symbolic=False) for depth in (1, 2, 3)]
    batches = [
        node_case("GatherND", x, positions(3, 4, 2, 1), opset=13, symbolic=False, batch_dims=1),
        node_case("GatherND", x, positions(3, 4, 2), opset=13, symbolic=False, batch_dims=1),
        node_case("GatherND", x, positions(3, 4, 5, 1), opset=13, symbolic=False, batch_dims=2),
        node_case("GatherND", x, positions(3, 0, 2), opset=13, symbolic=False),
    ]
    check(depths + batches)
    check(depths + batches, optimization_level=0)


@pytest.mark.parametrize("index", [-5, 4, np.iinfo(np.int64).max, np.iinfo(np.int64).min])
@pytest.mark.parametrize("op_type", ["Gather", "GatherElements", "GatherND"])
def test_positions_out_of_range_are_faults(op_type: str, index: int) -> None:
    good = np.array([[3]])
    case = node_case(op_type, numbers(4, 2), good, opset=13, symbolic=False)
    session = onnxsmith.InferenceSession(case.model.SerializeToString())
    with pytest.raises(onnxsmith.errors.InvalidArgument, match=f"idx={index} must be within the inclusive range"):
        session.run(None, {"x0": numbers(4, 2), "x1": np.array([[index]])})


def nonzero(x: Array) -> list[Array]:
    return [np.array(np.nonzero(x), np.int64).reshape(x.ndim, -1)]


def test_nonzero() -> None:
    generator = np.random.default_rng(2)
    sparse = generator.integers(0, 3, (7, 11, 5))
    long = generator.integers(0, 2, 10_000)
    cases: list[Case] = []
    for dtype in DTYPES:
        cases.append(node_case("NonZero", sparse.astype(dtype), opset=13, expected=nonzero(sparse)))
    cases.append(node_case("NonZero", sparse.astype(ml_dtypes.bfloat16), opset=13, expected=nonzero(sparse)))
    for x in (
        long,
        long.reshape(100, 100),
        np.zeros((3, 4)),
        np.ones((0, 4)),
        np.ones((3, 1, 2)),
        np.array([np.nan, 0]),
    ):
        cases.append(node_case("NonZero", x, opset=9, expected=nonzero(x)))
    for scalar in (0, 1):
        wanted = [np.zeros((0, scalar), np.int64)]
        cases.append(node_case("NonZero", np.array(scalar), opset=13, expected=wanted))
    check(cases)
    check(cases, optimization_level=0)


def test_compress() -> None:
    x = numbers(3, 4)
    cases = [
        node_case("Compress", x, np.array([True, False, True]), opset=11, axis=0),
        node_case("Compress", x, np.array([False, True]), opset=9, axis=-1),
        node_case("Compress", x, np.array([False, True, True, False, True]), opset=11),
        node_case("Compress", x, np.zeros(3, bool), opset=11, axis=0),
        node_case("Compress", x, np.zeros(0, bool), opset=11, axis=1),
        node_case("Compress", x, np.ones(9, bool), opset=11, axis=0, expected=[x]),
        node_case("Compress", x, Fixed(np.array([True, False, True])), opset=11, axis=0),
        *(node_case("Compress", numbers(4, dtype=d), np.ones(3, bool), opset=11, axis=0) for d in ("int64", "float64")),
    ]
    check(cases)
    check(cases, optimization_level=0)


def test_a_result_whose_size_the_data_decides_can_be_computed_with() -> None:
    """The count of one run must not stay for the next one."""
    case = node_case("NonZero", np.array([1, 0, 2]), opset=13)
    session = onnxsmith.InferenceSession(case.model.SerializeToString())
    for x in ([1, 0, 2], [0, 0, 0, 0], [3], [0, 5, 6, 7], []):
        array = np.array(x, np.int64)
        np.testing.assert_array_equal(session.run(None, {"x0": array})[0], nonzero(array)[0])


def test_one_hot() -> None:
    indices = np.array([[0, 3, -1], [-4, 2, 7]])
    cases: list[Case] = []
    for axis in (-1, 0, 1, 2):
        depth = np.array(4)
        values = np.array([-1, 5], np.float32)
        cases.append(node_case("OneHot", indices, Fixed(depth), values, opset=11, axis=axis))
        cases.append(node_case("OneHot", indices, depth, values, opset=11, axis=axis, symbolic=False))
    on_off = np.array([0, 1])
    depth = np.array([5.0], np.float32)
    kinds = indices.astype(np.float32), indices.astype(np.int32), indices.astype(np.int8)
    wanted = ((indices + 5) % 5)[..., np.newaxis] == np.arange(5)
    wanted[1, 2] = False
    for kind in kinds:
        cases.append(
            node_case("OneHot", kind, depth, on_off, opset=9, symbolic=False, expected=[wanted.astype(np.int64)])
        )
    cases.append(node_case("OneHot", np.array(2), Fixed(np.array(3)), on_off, opset=11, expected=[np.array([0, 0, 1])]))
    cases.append(node_case("OneHot", np.zeros((0, 2), np.int64), Fixed(np.array(3)), on_off, opset=11))
    check(cases)
    check(cases, optimization_level=0)
