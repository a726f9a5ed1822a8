"""MatMul, Gemm, Einsum and Det: every form, type and odd size, against numpy, and the official cases."""

from __future__ import annotations

from typing import Any

import ml_dtypes
import numpy as np
import pytest

from tests.support import Array, Case, Fixed, check, node_case, official_cases

LEVELS = (0, 99)
INTEGERS = (np.int32, np.int64, np.uint32, np.uint64)
_RANDOM = np.random.default_rng(5)


def _draw(*shape: int, dtype: Any = np.float32) -> Array:
    if np.dtype(dtype).kind in "iu":
        return _RANDOM.integers(0 if np.dtype(dtype).kind == "u" else -9, 9, shape).astype(dtype)
    return _RANDOM.standard_normal(shape).astype(dtype)


def _wide(array: Array) -> Array:
    return array.astype(np.float64) if array.dtype.kind not in "iu" else array


def _tolerance(dtype: Any) -> dict[str, float]:
    kind = np.dtype(dtype)
    if kind == np.float64:
        return {"rtol": 1e-12, "atol": 1e-12}
    if kind == np.float16:
        return {"rtol": 2e-3, "atol": 2e-3}
    if kind == ml_dtypes.bfloat16:
        return {"rtol": 2e-2, "atol": 2e-2}
    return {"rtol": 1e-5, "atol": 1e-5}


def _matmul(a: Array | Fixed, b: Array | Fixed, opset: int = 13, symbolic: bool = True) -> Case:
    left, right = (_wide(x.array if isinstance(x, Fixed) else x) for x in (a, b))
    dtype = (a.array if isinstance(a, Fixed) else a).dtype
    wanted = np.asarray(np.matmul(left, right)).astype(dtype)
    return node_case("MatMul", a, b, opset=opset, expected=[wanted], symbolic=symbolic, **_tolerance(dtype))


_SHAPES = [
    ((5,), (5,)),
    ((5,), (5, 7)),
    ((4, 5), (5,)),
    ((3, 4, 5), (5,)),
    ((5,), (3, 5, 2)),
    ((4, 5), (5, 7)),
    ((1, 1), (1, 1)),
    ((2, 4, 5), (5, 33)),
    ((2, 4, 5), (2, 5, 7)),
    ((2, 1, 4, 5), (3, 5, 7)),
    ((2, 1, 3, 1, 4, 5), (2, 2, 1, 3, 5, 7)),
    ((4, 0), (0, 7)),
    ((0, 5), (5, 7)),
    ((4, 5), (5, 0)),
    ((0, 4, 5), (5, 7)),
    ((2, 0, 5), (1, 5, 3)),
    ((3, 4, 0), (3, 0, 7)),
    ((17, 67), (67, 131)),
    ((1, 300), (300, 70)),
    ((64, 64), (64, 64)),
]


@pytest.mark.parametrize("level", LEVELS)
def test_matmul_shapes(level: int) -> None:
    cases = [_matmul(_draw(*a), _draw(*b)) for a, b in _SHAPES]
    cases += [_matmul(_draw(*a), _draw(*b), symbolic=False) for a, b in _SHAPES]
    cases += [_matmul(_draw(*a), Fixed(_draw(*b))) for a, b in _SHAPES]
    cases += [_matmul(Fixed(_draw(*a)), _draw(*b)) for a, b in _SHAPES[:8]]
    check(cases, optimization_level=level)


@pytest.mark.parametrize("dtype", [*INTEGERS, np.float64, np.float16, ml_dtypes.bfloat16])
def test_matmul_types(dtype: Any) -> None:
    shapes = [((5,), (5, 7)), ((2, 4, 5), (5, 33)), ((2, 1, 4, 5), (3, 5, 7)), ((4, 0), (0, 7)), ((1, 40), (40, 9))]
    check([_matmul(_draw(*a, dtype=dtype), _draw(*b, dtype=dtype)) for a, b in shapes])


def _gemm(
    a: Array,
    b: Array | Fixed,
    c: Array | Fixed | None = None,
    opset: int = 13,
    symbolic: bool = True,
    **attributes: Any,
) -> Case:
    left, right = _wide(a), _wide(b.array if isinstance(b, Fixed) else b)
    left = left.T if attributes.get("transA") else left
    right = right.T if attributes.get("transB") else right
    wanted = attributes.get("alpha", 1.0) * (left @ right)
    beta = attributes.get("beta", 1.0)
    if c is not None and beta:
        wanted = wanted + beta * _wide(c.array if isinstance(c, Fixed) else c)
    result = np.asarray(wanted).astype(a.dtype)
    return node_case(
        "Gemm", a, b, c, opset=opset, expected=[result], symbolic=symbolic, **_tolerance(a.dtype), **attributes
    )


@pytest.mark.parametrize("level", LEVELS)
def test_gemm(level: int) -> None:
    a, b = _draw(4, 5), _draw(5, 7)
    turned = {"transA": 1, "transB": 1}
    nothing = np.full((4, 7), np.nan, np.float32)
    cases = [
        _gemm(a, b),
        _gemm(a, b, _draw(4, 7)),
        _gemm(a, b, _draw(7)),
        _gemm(a, b, _draw(4, 1)),
        _gemm(a, b, _draw(1, 1)),
        _gemm(a, b, _draw()),
        _gemm(a.T.copy(), b.T.copy(), _draw(7), **turned),
        _gemm(a, Fixed(b), Fixed(_draw(7)), alpha=0.5, beta=2.0),
        _gemm(a, Fixed(b.T.copy()), Fixed(_draw(7)), transB=1),
        _gemm(a, b, nothing, beta=0.0),
        _gemm(a, b, _draw(7), symbolic=False),
        _gemm(_draw(0, 5), b, _draw(7)),
        _gemm(_draw(4, 0), _draw(0, 7), _draw(7)),
        _gemm(a, _draw(5, 0), _draw(0)),
        _gemm(_draw(33, 129), Fixed(_draw(129, 65)), Fixed(_draw(65))),
        _gemm(a, b, _draw(7), opset=6, broadcast=1),
        _gemm(a, b, _draw(4, 7), opset=6),
        _gemm(a, b, _draw(7), opset=9),
    ]
    check(cases, optimization_level=level)


@pytest.mark.parametrize("dtype", [*INTEGERS, np.float64, np.float16, ml_dtypes.bfloat16])
def test_gemm_types(dtype: Any) -> None:
    a, b, c = _draw(4, 5, dtype=dtype), _draw(5, 7, dtype=dtype), _draw(7, dtype=dtype)
    check([_gemm(a, b, c), _gemm(a, b), _gemm(a, b, c, alpha=2.0, beta=3.0)])


def _einsum(equation: str, *inputs: Array | Fixed, symbolic: bool = True, opset: int = 12) -> Case:
    arrays = [_wide(x.array if isinstance(x, Fixed) else x) for x in inputs]
    dtype = (inputs[0].array if isinstance(inputs[0], Fixed) else inputs[0]).dtype
    wanted = np.asarray(np.einsum(equation, *arrays)).astype(dtype)
    tolerance = _tolerance(dtype)
    return node_case(
        "Einsum", *inputs, opset=opset, expected=[wanted], symbolic=symbolic, equation=equation, **tolerance
    )


_EQUATIONS: list[tuple[str, tuple[tuple[int, ...], ...]]] = [
    ("ij->ji", ((3, 4),)),
    ("ij", ((3, 4),)),
    ("ba", ((3, 4),)),
    ("ij->", ((3, 4),)),
    ("ij->i", ((3, 4),)),
    ("ii->i", ((4, 4),)),
    ("ii", ((4, 4),)),
    ("...ii->...i", ((2, 3, 4, 4),)),
    ("iij->ji", ((3, 3, 4),)),
    ("ijij->ij", ((3, 4, 3, 4),)),
    ("...", ((2, 3),)),
    ("i...->...i", ((2, 3, 4),)),
    ("...j->...", ((2, 3, 4),)),
    ("->", ((),)),
    ("i,i", ((5,), (5,))),
    ("i,j->ij", ((5,), (4,))),
    ("ij,jk", ((3, 4), (4, 5))),
    ("ij,jk->ik", ((3, 4), (4, 5))),
    ("ij,kj->ik", ((3, 4), (5, 4))),
    ("ji,jk->ki", ((4, 3), (4, 5))),
    ("ij,j->i", ((3, 4), (4,))),
    ("i,ij->j", ((3,), (3, 4))),
    ("ij,ij->ij", ((3, 4), (3, 4))),
    ("ij,ij->i", ((3, 4), (3, 4))),
    ("ij,ij->", ((3, 4), (3, 4))),
    ("bij,bjk->bik", ((2, 3, 4), (2, 4, 5))),
    ("bhid,bhjd->bhij", ((2, 3, 4, 5), (2, 3, 6, 5))),
    ("bhij,bhjd->bihd", ((2, 3, 4, 6), (2, 3, 6, 5))),
    ("abcij,abcjk->abcik", ((2, 1, 3, 4, 5), (2, 1, 3, 5, 2))),
    ("abcdij,abcdjk->dcbaik", ((2, 2, 3, 2, 4, 5), (2, 2, 3, 2, 5, 2))),
    ("bij,jk->bik", ((2, 3, 4), (4, 5))),
    ("...ij,...jk->...ik", ((2, 3, 4), (2, 4, 5))),
    ("...ij,...jk", ((2, 3, 4), (2, 4, 5))),
    ("...ij,...jk->...ik", ((3, 4), (2, 4, 5))),
    ("...ij,...jk->...ik", ((6, 1, 3, 4), (2, 4, 5))),
    ("i...,j...->ij...", ((2, 3, 4), (5, 3, 4))),
    ("ijk,kl->ijl", ((2, 3, 4), (4, 5))),
    ("ijkl,klm->ijm", ((2, 3, 4, 5), (4, 5, 6))),
    ("ijk,ljk->il", ((2, 3, 4), (5, 3, 4))),
    ("ii,ij->j", ((3, 3), (3, 4))),
    ("ijk,il->jl", ((2, 3, 4), (2, 5))),
    ("ij,jk,kl->il", ((2, 3), (3, 4), (4, 5))),
    ("ij,ij,ij->ij", ((2, 3), (2, 3), (2, 3))),
    ("i,j,k,l->lkji", ((2,), (3,), (4,), (5,))),
    ("bi,bj,bk->bijk", ((2, 3), (2, 4), (2, 5))),
    ("ik,jk,k,ij->ij", ((2, 3), (4, 3), (3,), (2, 4))),
    ("Aa,aB->AB", ((2, 3), (3, 4))),
    (" i j , j k -> i k ", ((2, 3), (3, 4))),
    ("ij,jk->ik", ((0, 4), (4, 5))),
    ("ij,jk->ik", ((3, 0), (0, 5))),
    ("ij,j->i", ((3, 0), (0,))),
    ("bhwc,hkc->bhwk", ((2, 7, 5, 8), (7, 7, 8))),
]


@pytest.mark.parametrize("symbolic", [True, False])
def test_einsum_equations(symbolic: bool) -> None:
    check([_einsum(equation, *(_draw(*s) for s in shapes), symbolic=symbolic) for equation, shapes in _EQUATIONS])


def test_einsum_without_optimisation_and_of_constants() -> None:
    check([_einsum(e, *(_draw(*s) for s in shapes)) for e, shapes in _EQUATIONS], optimization_level=0)
    check([_einsum(e, *(Fixed(_draw(*s)) for s in shapes[:-1]), _draw(*shapes[-1])) for e, shapes in _EQUATIONS])


def test_einsum_sizes_of_one_broadcast() -> None:
    cases = [
        ("ij,jk->ik", ((3, 1), (4, 5))),
        ("ij,jk->ik", ((3, 4), (1, 5))),
        ("bij,bjk->bik", ((1, 3, 4), (2, 4, 5))),
        ("ij,ij->i", ((3, 4), (1, 4))),
        ("ij,j->j", ((3, 1), (4,))),
    ]
    check([_einsum(equation, *(_draw(*s) for s in shapes), symbolic=False) for equation, shapes in cases])


@pytest.mark.parametrize("dtype", [*INTEGERS, np.int8, np.float64, np.float16, ml_dtypes.bfloat16])
def test_einsum_types(dtype: Any) -> None:
    opset = 28 if dtype is ml_dtypes.bfloat16 else 12
    some = ["ij->ji", "ij->i", "ii", "ij,jk->ik", "ij,j->i", "ij,ij->", "bij,bjk->bik", "i,j->ij"]
    chosen = [(equation, shapes) for equation, shapes in _EQUATIONS if equation in some and all(map(np.prod, shapes))]
    check([_einsum(e, *(_draw(*s, dtype=dtype) for s in shapes), opset=opset) for e, shapes in chosen])


@pytest.mark.parametrize(
    ("equation", "shapes"),
    [
        ("ij,jk->ik", ((3, 4),)),
        ("ij->ij", ((3, 4, 5),)),
        ("ij->ik", ((3, 4),)),
        ("ij->ii", ((3, 4),)),
        ("i1->i", ((3, 4),)),
        ("......->...", ((3, 4),)),
        ("ij,jk->ik", ((3, 4), (5, 6))),
    ],
)
def test_einsum_equations_that_do_not_fit(equation: str, shapes: tuple[tuple[int, ...], ...]) -> None:
    case = node_case(
        "Einsum", *(_draw(*shape) for shape in shapes), opset=12, expected=[_draw(1)], symbolic=False, equation=equation
    )
    with pytest.raises(Exception, match="Einsum"):
        check([case])


def _det(x: Array) -> Case:
    wanted = np.asarray(np.linalg.det(_wide(x))).astype(x.dtype)
    return node_case("Det", x, opset=22, expected=[wanted], **_tolerance(x.dtype))


def test_det() -> None:
    singular = np.ones((3, 3), np.float32)
    pivoting = np.array([[0, 2, 0], [0, 0, 3], [4, 0, 0]], np.float32)
    shapes = [(1, 1), (2, 2), (5, 5), (3, 4, 4), (2, 3, 7, 7), (0, 3, 3), (2, 0, 0)]
    check([_det(singular), _det(pivoting), *(_det(_draw(*shape)) for shape in shapes)])
    check([_det(_draw(3, 4, 4, dtype=dtype)) for dtype in (np.float64, np.float16, ml_dtypes.bfloat16)])


def test_official_cases() -> None:
    check(official_cases("MatMul", "Gemm", "Einsum", "Det"))
