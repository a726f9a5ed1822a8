"""Views and rearrangements against onnxruntime: sizes fixed, symbolic and known only when the model runs."""

from __future__ import annotations

import itertools

import ml_dtypes
import numpy as np
import pytest

import onnxsmith
from tests.support import Array, Case, Fixed, check, node_case

INT64_MAX = np.iinfo(np.int64).max
INT64_MIN = np.iinfo(np.int64).min


def numbers(*shape: int, dtype: str = "float32", seed: int = 0) -> Array:
    return np.random.default_rng(seed).integers(-100, 100, shape).astype(dtype)


def ints(*values: int, dtype: str = "int64") -> Array:
    return np.array(values, dtype)


def both(op_type: str, x: Array, *rest: Array | None, **options: object) -> list[Case]:
    """Two cases: with the further inputs known when the model is compiled, and with all of them fed."""
    fixed = [None if value is None else Fixed(value) for value in rest]
    fed = node_case(op_type, x, *rest, symbolic=False, **options)  # type: ignore[arg-type]
    return [node_case(op_type, x, *fixed, **options), fed]  # type: ignore[arg-type]


SLICES = [
    ([0], [3], [0], [1]),
    ([1, 0], [INT64_MAX, 2], [1, 0], [1, 1]),
    ([-1], [INT64_MIN], [1], [-1]),
    ([INT64_MAX], [INT64_MIN], [0], [-2]),
    ([4, -3], [-10, 100], [0, 1], [-1, 2]),
    ([3], [1], [0], [1]),
    ([10], [20], [1], [3]),
    ([-100], [-1], [-1], [2]),
    ([2, 6], [2, 0], [0, 1], [1, -3]),
    ([0, 0], [5, 7], [-2, -1], [5, 100]),
    ([0], [-1], [0], [INT64_MAX]),
    ([-2], [0], [0], [INT64_MIN + 1]),
]


def test_slices() -> None:
    cases: list[Case] = []
    for starts, ends, axes, steps in SLICES:
        cases += both("Slice", numbers(5, 7), *(ints(*row) for row in (starts, ends, axes, steps)), opset=13)
    x = numbers(2, 3, 5)
    cases += both("Slice", x, ints(1, 0), ints(2, -1), opset=10)
    cases += both("Slice", x, ints(1, dtype="int32"), ints(9, dtype="int32"), ints(2, dtype="int32"), opset=11)
    cases += both("Slice", x, ints(-1), ints(-4), None, ints(-1), opset=13)
    cases.append(node_case("Slice", x, opset=9, starts=[0, 1], ends=[1, 100], axes=[0, 2]))
    cases.append(node_case("Slice", x, opset=1, starts=[-2], ends=[-1]))
    check(cases)
    check(cases, optimization_level=0)


def test_slices_of_empty_axes() -> None:
    cases: list[Case] = []
    for start, end, step in itertools.product([-2, 0, INT64_MAX], [-1, 5, INT64_MIN], [-1, 2]):
        for size in (0, 1):
            cases += both("Slice", numbers(size, 2), ints(start), ints(end), ints(0), ints(step), opset=13)
    check(cases)


def test_split() -> None:
    x = numbers(7, 6)
    cases = [
        *both("Split", x, ints(2, 5), opset=13, outputs=2),
        *both("Split", x, ints(0, 7, 0), opset=18, outputs=3),
        *both("Split", x, ints(1, 2, 3), opset=13, outputs=3, axis=-1),
        node_case("Split", x, opset=18, outputs=3, num_outputs=3),
        node_case("Split", x, opset=18, outputs=7, num_outputs=7, axis=0),
        node_case("Split", x, opset=13, outputs=3, axis=1),
        node_case("Split", x, opset=2, outputs=2, axis=1, split=[5, 1]),
        node_case("Split", x, opset=11, outputs=2, axis=-1),
        node_case("Split", numbers(0, 2), opset=13, outputs=2, axis=0),
    ]
    check(cases)
    check(cases, optimization_level=0)


@pytest.mark.parametrize("sizes", [[3, 5], [-1, 8], [7, 1], [100, -93]])
def test_split_sizes_that_do_not_fit_are_refused(sizes: list[int]) -> None:
    split = node_case("Split", numbers(7), ints(3, 4), opset=13, outputs=2, symbolic=False)
    session = onnxsmith.InferenceSession(split.model.SerializeToString())
    with pytest.raises(onnxsmith.errors.Fail, match="Invalid value"):
        session.run(None, {"x0": numbers(7), "x1": ints(*sizes)})


RESHAPES = [
    ((2, 3, 4), [4, 6]),
    ((2, 3, 4), [0, -1]),
    ((2, 3, 4), [-1]),
    ((2, 3, 4), [1, 3, 0, 2, -1]),
    ((2, 3, 4), [3, 8, 1]),
    ((24,), [2, 2, 2, 3]),
    ((), [1, 1]),
    ((1, 1), []),
    ((0, 3), [0, 1, 3]),
    ((4, 0, 2), [0, 0, 5]),
]


def test_reshape() -> None:
    cases: list[Case] = []
    for shape, wanted in RESHAPES:
        cases += both("Reshape", numbers(*shape), np.array(wanted, np.int64), opset=13)
    cases += both("Reshape", numbers(0, 3), ints(3, 0), opset=14, allowzero=1)
    cases += both("Reshape", numbers(3, 0, 2), ints(0, 6), opset=14, allowzero=1)
    cases.append(node_case("Reshape", numbers(2, 3), opset=1, shape=[1, 0, -1]))
    check(cases)
    check(cases, optimization_level=0)


@pytest.mark.parametrize("wanted", [[5], [-1, 5], [-1, -1], [-2, -3], [0, 0, 0], [2, 2]])
def test_reshape_to_another_number_of_elements_is_refused(wanted: list[int]) -> None:
    fed = np.array(wanted, np.int64)
    good = np.array([6, *(1 for _ in wanted[1:])], np.int64)
    case = node_case("Reshape", numbers(2, 3), good, opset=13, symbolic=False)
    session = onnxsmith.InferenceSession(case.model.SerializeToString())
    assert session.run(None, {"x0": numbers(2, 3), "x1": good})[0].shape == tuple(good)
    with pytest.raises(onnxsmith.errors.Fail):
        session.run(None, {"x0": numbers(2, 3), "x1": fed})


def test_squeeze_and_unsqueeze() -> None:
    x = numbers(1, 3, 1, 2, 1)
    cases: list[Case] = []
    for axes in ([0], [-1], [0, 2], [4, 0], [2, -1, 0]):
        cases += both("Squeeze", x, ints(*axes), opset=13)
    for axes in ([0], [-1], [0, 2], [3, 0], [2, -1, 0]):
        cases += both("Unsqueeze", numbers(3, 2), ints(*axes), opset=13)
    cases += both("Unsqueeze", numbers(), ints(0, 1), opset=13)
    cases += both("Unsqueeze", numbers(2, 0), ints(1), opset=21)
    cases.append(node_case("Squeeze", x, opset=13, symbolic=False))
    cases.append(node_case("Squeeze", x, opset=11, axes=[-1, 0]))
    cases.append(node_case("Squeeze", x, opset=1, axes=[0, 2]))
    cases.append(node_case("Unsqueeze", numbers(2), opset=11, axes=[-1, 0]))
    check(cases)
    check(cases, optimization_level=0)


@pytest.mark.parametrize("axes", [[3], [-4], [1, 1], [1, -2]])
def test_axes_that_only_a_run_knows_are_checked(axes: list[int]) -> None:
    good = ints(*range(len(axes)))
    case = node_case("Squeeze", numbers(1, 1, 2), good, opset=13, symbolic=False)
    session = onnxsmith.InferenceSession(case.model.SerializeToString())
    with pytest.raises((onnxsmith.errors.Fail, onnxsmith.errors.InvalidArgument)):
        session.run(None, {"x0": numbers(1, 1, 2), "x1": ints(*axes)})


def test_expand() -> None:
    cases: list[Case] = []
    for shape, wanted in [
        ((3, 1), [2, 3, 4]),
        ((3, 4), [1]),
        ((1, 4), [3, 1]),
        ((), [2, 2]),
        ((1,), [0]),
        ((0, 1), [1, 5]),
        ((5,), [1, 1, 1]),
    ]:
        cases += both("Expand", numbers(*shape), np.array(wanted, np.int64), opset=13)
    check(cases)
    check(cases, optimization_level=0)


def test_concat_transpose_flatten_and_shapes() -> None:
    a, b, c = numbers(2, 3), numbers(2, 0, seed=1), numbers(2, 4, seed=2)
    cases = [
        node_case("Concat", a, b, c, opset=13, axis=-1),
        node_case("Concat", a, a, opset=13, axis=0),
        node_case("Concat", a, opset=4, axis=1),
        node_case("Transpose", numbers(2, 3, 5, 1), opset=13, perm=[3, 1, 0, 2]),
        node_case("Transpose", numbers(2, 3, 5), opset=13),
        node_case("Transpose", numbers(), opset=13),
        node_case("Transpose", numbers(0, 3), opset=13),
        *(node_case("Flatten", numbers(2, 3, 4), opset=13, axis=axis) for axis in (-3, -1, 0, 1, 2, 3)),
        node_case("Shape", numbers(2, 3, 4), opset=15, start=-2),
        node_case("Shape", numbers(2, 3, 4), opset=15, start=1, end=-5),
        node_case("Shape", numbers(), opset=13),
        node_case("Size", numbers(2, 0, 4), opset=13),
        node_case("Where", numbers(2, 1, dtype="bool"), numbers(3), numbers(2, 3), opset=16),
        node_case("ConstantOfShape", Fixed(ints(2, 0, 3)), opset=9),
        node_case("ConstantOfShape", ints(2, 3), opset=9, symbolic=False),
    ]
    check(cases)
    check(cases, optimization_level=0)


PADS = [
    ("constant", [1, 0, 2, 3]),
    ("constant", [-1, 2, 0, -2]),
    ("constant", [-2, 0, -2, 0]),
    ("edge", [2, 3, 1, 0]),
    ("edge", [-1, 2, 3, -2]),
    ("reflect", [2, 3, 1, 4]),
    ("reflect", [0, 0, 3, 0]),
    ("reflect", [2, -1, -1, 2]),
    ("wrap", [2, 5, 4, 1]),
    ("wrap", [0, -2, 2, 3]),
]


def test_pad() -> None:
    cases: list[Case] = []
    x = numbers(4, 5)
    for mode, pads in PADS:
        cases += both("Pad", x, ints(*pads), opset=19, mode=mode)
    cases += both("Pad", x, ints(1, 2), np.array(7, np.float32), ints(-1), opset=18)
    seven, axes = np.array(7, np.float32), ints(1, 0, dtype="int32")
    cases += both("Pad", x, ints(1, 2, 3, 4), seven, axes, opset=18, expected="reference")
    cases += both("Pad", numbers(0, 2), ints(1, 1, 2, 0), np.array(3, np.float32), opset=13)
    cases += both("Pad", numbers(3, 2), ints(0, 0, 0, 0), opset=13)
    cases.append(node_case("Pad", x, opset=2, pads=[1, 0, 0, 2], value=2.5))
    cases.append(node_case("Pad", x, opset=2, pads=[1, 2, 3, 4], mode="reflect"))
    for dtype in ("int8", "uint8", "int32", "uint32", "int64", "uint64", "float64", "bool"):
        cases += both("Pad", numbers(2, 3, dtype=dtype), ints(0, 1, 1, 0), opset=18)
    check(cases)
    check(cases, optimization_level=0)


@pytest.mark.parametrize("mode", ["reflect", "wrap"])
def test_pads_longer_than_the_axis_turn_as_often_as_numpy_says(mode: str) -> None:
    x = numbers(3, 2)
    pads = [7, 4, 5, 3]
    wanted = np.pad(x, [(7, 5), (4, 3)], mode=mode)  # type: ignore[call-overload]
    check(both("Pad", x, ints(*pads), opset=19, mode=mode, expected=[wanted]))
    one = numbers(1, 2)
    wanted = np.pad(one, [(2, 3), (0, 0)], mode=mode)  # type: ignore[call-overload]
    check(both("Pad", one, ints(2, 0, 3, 0), opset=19, mode=mode, expected=[wanted]))


UNUSUAL_PADS = [
    ((0,), (0, 0)),
    ((1,), (3, 2)),
    ((3,), (3, 0)),
    ((3,), (7, 9)),
    ((4,), (-1, 2)),
    ((4,), (-2, -2)),
    ((4,), (-3, 6)),
    ((2,), (1, -1)),
    ((2, 0), (1, 0, 1, 0)),
    ((2, 3), (5, -1, -1, 5)),
    ((0, 3), (0, 5, 0, 5)),
    ((0, 4), (0, -2, 0, 7)),
]


def padded(x: Array, pads: tuple[int, ...], mode: str) -> Array:
    """Numpy's, of what is left once elements are removed."""
    before, after = pads[: x.ndim], pads[x.ndim :]
    kept = x[tuple(slice(max(0, -a), n + min(0, b)) for n, a, b in zip(x.shape, before, after, strict=True))]
    amounts = [(max(0, a), max(0, b)) for a, b in zip(before, after, strict=True)]
    return np.pad(kept, amounts, mode=mode)  # type: ignore[call-overload,no-any-return]


@pytest.mark.parametrize("mode", ["constant", "reflect", "edge", "wrap"])
def test_pads_of_empty_axes_and_of_what_is_left(mode: str) -> None:
    cases = []
    for shape, pads in UNUSUAL_PADS:
        x = numbers(*shape)
        given: dict[str, object] = {"opset": 19, "mode": mode, "expected": [padded(x, pads, mode)]}
        cases += [
            *both("Pad", x, ints(*pads), **given),
            node_case("Pad", x, Fixed(ints(*pads)), symbolic=False, **given),
        ]
    check(cases)


@pytest.mark.parametrize("mode", ["reflect", "edge", "wrap"])
@pytest.mark.parametrize(
    ("shape", "pads", "words"),
    [
        ((0,), (1, 0), "no elements"),
        ((4,), (-4, 3), "no elements"),
        ((5,), (10, -5), "no elements"),
        ((2, 0), (0, 0, 0, 1), "no elements"),
        ((4,), (-3, -2), "more than the 4"),
        ((2, 3), (0, -4, 0, 0), "more than the 3"),
    ],
)
def test_pads_that_nothing_can_fill(mode: str, shape: tuple[int, ...], pads: tuple[int, ...], words: str) -> None:
    x = numbers(*shape)
    given: dict[str, object] = {"opset": 19, "mode": mode, "expected": [x]}
    with pytest.raises(onnxsmith.errors.InvalidGraph, match=words):
        check([node_case("Pad", x, Fixed(ints(*pads)), symbolic=False, **given)])
    with pytest.raises(onnxsmith.errors.Fail, match="Sizes do not fit"):
        check([node_case("Pad", x, Fixed(ints(*pads)), **given)])


def test_padding_nothing_with_its_own_elements_is_refused() -> None:
    case = node_case("Pad", numbers(3), Fixed(ints(1, 1)), opset=19, mode="edge")
    session = onnxsmith.InferenceSession(case.model.SerializeToString())
    with pytest.raises(onnxsmith.errors.Fail):
        session.run(None, {"x0": numbers(0)})


def test_tile() -> None:
    cases: list[Case] = []
    for shape, repeats in [
        ((2, 3), [2, 2]),
        ((2, 3), [1, 4]),
        ((2, 3), [0, 1]),
        ((0, 3), [2, 1]),
        ((1, 1, 5), [3, 1, 1]),
    ]:
        cases += both("Tile", numbers(*shape), ints(*repeats), opset=13)
    cases += both("Tile", numbers(), np.zeros(0, np.int64), opset=6)
    check(cases)
    check(cases, optimization_level=0)


def test_blocks_and_depth() -> None:
    x = numbers(2, 12, 2, 3)
    cases = [
        node_case("DepthToSpace", x, opset=13, blocksize=2),
        node_case("DepthToSpace", x, opset=13, blocksize=2, mode="CRD"),
        node_case("DepthToSpace", x, opset=1, blocksize=1),
        node_case("SpaceToDepth", numbers(2, 3, 4, 6), opset=13, blocksize=2),
        node_case("DepthToSpace", numbers(0, 4, 1, 1), opset=13, blocksize=2),
    ]
    check(cases)
    check(cases, optimization_level=0)


def test_reverse_sequence() -> None:
    x = numbers(4, 3, 2)
    cases = [
        *both("ReverseSequence", x, ints(4, 0, 2), opset=10),
        *both("ReverseSequence", x, ints(1, 2, 3, 3), opset=10, time_axis=1, batch_axis=0),
        *both("ReverseSequence", numbers(2, 1, dtype="int64"), ints(2), opset=10),
    ]
    check(cases)
    check(cases, optimization_level=0)
    session = onnxsmith.InferenceSession(cases[1].model.SerializeToString())
    with pytest.raises(onnxsmith.errors.InvalidArgument, match="out of bounds"):
        session.run(None, {"x0": x, "x1": ints(4, 5, 2)})


def test_range() -> None:
    cases: list[Case] = []
    for dtype in ("int16", "int32", "int64"):
        for values in ([0, 5, 1], [5, 0, -2], [3, 3, 1], [0, -3, 1], [-4, 8, 5]):
            cases += both("Range", *(np.array(value, dtype) for value in values), opset=11)
    for dtype in ("float32", "float64"):
        for start, limit, delta in ((0.0, 1.0, 0.1), (2.5, -1.0, -0.5), (0.0, 0.0, 1.0), (-1.0, 1.0, 0.3)):
            parts = (np.array(value, dtype) for value in (start, limit, delta))
            cases += both("Range", *parts, opset=11)
    check(cases)
    check(cases, optimization_level=0)


def test_triangles_and_diagonals() -> None:
    cases: list[Case] = []
    for k in (-5, -1, 0, 1, 7):
        cases += both("Trilu", numbers(2, 4, 5), np.array(k), opset=14, upper=1)
        cases += both("Trilu", numbers(4, 3, dtype="int64"), np.array(k), opset=14, upper=0)
        cases.append(node_case("EyeLike", numbers(3, 5), opset=9, k=k))
    cases.append(node_case("Trilu", numbers(0, 3), opset=14))
    cases.append(node_case("Trilu", numbers(3, 3, dtype="bool"), opset=14))
    cases.append(node_case("EyeLike", numbers(2, 2), opset=9, dtype=7))
    check(cases)
    check(cases, optimization_level=0)


NARROW = (
    "bfloat16", "float8_e4m3fn", "float8_e4m3fnuz", "float8_e5m2", "float8_e5m2fnuz", "float8_e8m0fnu",
    "float4_e2m1fn", "int4", "uint4", "int2", "uint2",
)  # fmt: skip


def test_narrow_types_are_moved_as_they_are() -> None:
    cases: list[Case] = []
    for name in NARROW:
        x = (np.arange(24) % 2 + (name == "float8_e8m0fnu")).astype(getattr(ml_dtypes, name)).reshape(4, 6)
        cases.append(node_case("Transpose", x, opset=25, perm=[1, 0], expected=[np.ascontiguousarray(x.T)]))
        cases.append(node_case("Reshape", x, Fixed(ints(3, 8)), opset=25, expected=[x.reshape(3, 8)]))
        cases.append(node_case("Unsqueeze", x, Fixed(ints(1)), opset=25, expected=[x[:, np.newaxis]]))
    check(cases)
