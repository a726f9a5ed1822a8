from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest
from contraction_harness import HOST, CompiledKernel, aligned, run_uncompiled
from tests.compiler.codegen.packing import pack_matmul

from onnxsmith_compiler.codegen.contraction_source import columns_of_last_panel
from onnxsmith_compiler.codegen.epilogue import Epilogue, store_epilogue
from onnxsmith_compiler.codegen.matmul_source import MatmulForm, matmul_source, matmul_tiling
from onnxsmith_compiler.codegen.source import Parameter
from onnxsmith_compiler.codegen.target import Target
from onnxsmith_compiler.codegen.tile_shapes import panel_tile, tile_shape
from onnxsmith_compiler.codegen.tiling import Tiling
from onnxsmith_compiler.ir import dim as dims
from onnxsmith_compiler.ir.dtype import BFLOAT16, BY_NAME, FLOAT16, FLOAT32, DType

RNG = np.random.default_rng(7)
COMPILED: dict[Any, CompiledKernel] = {}


def _kernel(key: Any, source: Any) -> CompiledKernel:
    if key not in COMPILED:
        COMPILED[key] = CompiledKernel(source)
    return COMPILED[key]


def _random(shape: tuple[int, ...], dtype: str) -> np.ndarray[Any, Any]:
    array = aligned(shape, dtype)
    array[...] = RNG.standard_normal(shape)
    return array


def _close(actual: np.ndarray[Any, Any], expected: np.ndarray[Any, Any], depth: int) -> None:
    scale = np.finfo(actual.dtype).eps * max(depth, 1)
    np.testing.assert_allclose(actual, expected, rtol=4 * scale, atol=4 * scale)


SIZES = [
    (1, 1, 1),
    (1, 33, 7),
    (2, 16, 3),
    (3, 31, 5),
    (7, 64, 17),
    (13, 32, 64),
    (14, 96, 9),
    (15, 40, 2),
    (49, 70, 31),
    (130, 65, 24),
]


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(("m", "n", "k"), SIZES)
def test_product_of_odd_sizes(m: int, n: int, k: int, dtype: str) -> None:
    form = MatmulForm(tile_shape(HOST, dtype), last_columns=None)
    kernel = _kernel(form, matmul_source(form, store_epilogue(BY_NAME[dtype])))
    a, b = _random((m, k), dtype), _random((k, n), dtype)
    packed = pack_matmul(b, form.tile.columns)
    for tiling in (matmul_tiling(form, m, n, k, HOST), Tiling(form.tile.rows, 1), Tiling(2 * form.tile.rows, 2, 4)):
        c = aligned((m, n), dtype)
        tiles = form.tiles(m, n, 1, tiling)
        arguments = (a, packed, c, n, 0, m, n, k, k, *form.tiling_arguments(k, tiling))
        assert kernel(arguments, tiles, form.scratch(k, tiling), cuts=[tiles // 2]) == 0
        _close(c, a @ b, k)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(("n", "k"), [(1, 1), (7, 3), (32, 64), (70, 31), (160, 0), (1000, 40)])
def test_a_single_row_has_the_bits_that_it_has_among_others(n: int, k: int, dtype: str) -> None:
    several = MatmulForm(tile_shape(HOST, dtype), last_columns=None)
    single = MatmulForm(tile_shape(HOST, dtype), last_columns=None, single_row=True)
    a, b = _random((3, k), dtype), _random((k, n), dtype)
    packed = pack_matmul(b, single.tile.columns)
    results = []
    for form, m in ((several, 3), (single, 1)):
        kernel = _kernel(form, matmul_source(form, store_epilogue(BY_NAME[dtype])))
        for tiling in (matmul_tiling(form, m, n, k, HOST), matmul_tiling(form, m, None, k, HOST)):
            c = aligned((m, n), dtype)
            tiles = form.tiles(m, n, 1, tiling)
            arguments = (a, packed, c, n, 0, m, n, k, k, *form.tiling_arguments(k, tiling))
            assert kernel(arguments, tiles, form.scratch(k, tiling), cuts=[tiles // 2]) == 0
            results.append(c[0])
    _close(results[0], a[0] @ b, k)
    for result in results[1:]:
        np.testing.assert_array_equal(result, results[0])


@pytest.mark.parametrize(
    ("m", "n", "k", "expected"),
    [
        (49, 160, 960, Tiling(28, 1)),  # few rows: panels are shared out, and each is read for two blocks of rows
        (196, 576, 96, Tiling(28, 9)),
        (196, 64, 384, Tiling(14, 2)),  # few panels: rows are shared out
        (3136, 144, 24, Tiling(28, 5)),
        (197, 768, 1152, Tiling(210, 1)),
        (197, 768, 3072, Tiling(210, 3, 768)),  # long sums: the rows' terms stay in the cache, a part at a time
        (197, 768, 1537, Tiling(210, 3, 576)),  # in about equal parts
        (28, 768, 3072, Tiling(28, 1)),  # the few rows stay there whole
        (197, 64, 3072, Tiling(28, 1)),  # and so do the few panels
        (197, 384, 384, Tiling(28, 6)),  # the eighth group has one row: panels are shared out as for seven
    ],
)
def test_tiles_are_enough_for_two_cores(m: int, n: int, k: int, expected: Tiling) -> None:
    target = dataclasses.replace(Target.generic_x86_64("v4", cores=2), l2=2 << 20)
    form = MatmulForm(tile_shape(target, "float32"), None)
    assert matmul_tiling(form, m, n, k, target) == expected


@pytest.mark.parametrize(("n", "panels"), [(1, 4), (1000, 4), (1280, 4), (70000, 272)])
def test_tiles_of_a_single_row_are_several_panels_and_few(n: int, panels: int) -> None:
    form = MatmulForm(tile_shape(Target.generic_x86_64("v4", cores=2), "float32"), False, single_row=True)
    assert matmul_tiling(form, 1, n, 64, Target.generic_x86_64("v4", cores=2)).panels == panels


def test_rows_keep_their_bits_whatever_surrounds_them() -> None:
    form = MatmulForm(tile_shape(HOST, "float32"), last_columns=None)
    kernel = _kernel(form, matmul_source(form, store_epilogue(FLOAT32)))
    m, n, k = 43, 70, 301
    a, b = _random((m, k), "float32"), _random((k, n), "float32")
    packed = pack_matmul(b, form.tile.columns)

    def product(rows: np.ndarray[Any, Any], tiling: Tiling) -> np.ndarray[Any, Any]:
        c = aligned((len(rows), n))
        arguments = (rows, packed, c, n, 0, len(rows), n, k, k, *form.tiling_arguments(k, tiling))
        kernel(arguments, form.tiles(len(rows), n, 1, tiling), form.scratch(k, tiling))
        return c

    whole = product(a, Tiling(280, 8))
    for terms in (1, 64, 150, 300, 301, 1000):
        np.testing.assert_array_equal(product(a, Tiling(28, 2, terms)), whole)
        np.testing.assert_array_equal(product(a[5:7], Tiling(14, 3, terms)), whole[5:7])
    np.testing.assert_array_equal(product(a, Tiling(14, 1)), whole)
    for first, end in ((0, 1), (5, 7), (20, 33)):
        np.testing.assert_array_equal(product(a[first:end], Tiling(28, 2)), whole[first:end])


def test_columns_past_the_last_are_not_stored() -> None:
    form = MatmulForm(tile_shape(HOST, "float32"), last_columns=None)
    kernel = _kernel(form, matmul_source(form, store_epilogue(FLOAT32)))
    m, n, k, row = 5, 35, 4, 48
    a, b = _random((m, k), "float32"), _random((k, n), "float32")
    c = np.full((m + 1, row), 7, np.float32)
    arguments = (a, pack_matmul(b, form.tile.columns), c, row, 0, m, n, k, k, 14, 1, k)
    kernel(arguments, form.tiles(m, n, 1, Tiling(14, 1)), form.scratch(k, Tiling(14, 1)))
    _close(c[:m, :n], a @ b, k)
    assert (c[:, n:] == 7).all()
    assert (c[m] == 7).all()


def test_empty_sums_are_zero_and_empty_results_have_no_tiles() -> None:
    form = MatmulForm(tile_shape(HOST, "float32"), last_columns=None)
    kernel = _kernel(form, matmul_source(form, store_epilogue(FLOAT32)))
    tiling = matmul_tiling(form, 3, 5, 0, HOST)
    c = np.full((3, 5), np.nan, np.float32)
    nothing = np.zeros(1, np.float32)
    assert (
        kernel(
            (nothing, nothing, c, 5, 0, 3, 5, 0, 0, *form.tiling_arguments(0, tiling)),
            form.tiles(3, 5, 1, tiling),
            4096,
        )
        == 0
    )
    np.testing.assert_array_equal(c, 0)
    assert form.tiles(0, 5, 1, tiling) == 0
    assert form.tiles(3, 0, 1, tiling) == 0
    assert form.tiles(3, 5, 0, tiling) == 0


@pytest.mark.parametrize("narrow", [BFLOAT16, FLOAT16], ids=str)
@pytest.mark.parametrize(("m", "n", "k"), SIZES)
def test_narrow_panels_give_the_bits_of_the_same_in_float32(m: int, n: int, k: int, narrow: DType) -> None:
    a, b = _random((m, k), "float32"), _random((k, n), "float32").astype(narrow.storage)
    results = []
    for stored in (FLOAT32, narrow):
        form = MatmulForm(
            panel_tile(HOST, "float32", tile_shape(HOST, "float32").columns, stored),
            last_columns=None,
            single_row=m == 1,
        )
        source = matmul_source(form, store_epilogue(FLOAT32))
        kernel = _kernel(form, source)
        packed = pack_matmul(b.astype(stored.storage), form.tile.columns)
        for tiling in (matmul_tiling(form, m, n, k, HOST), Tiling(form.tile.rows, 4)):
            c = aligned((m, n))
            tiles = form.tiles(m, n, 1, tiling)
            arguments = (a, packed, c, n, 0, m, n, k, k, *form.tiling_arguments(k, tiling))
            assert kernel(arguments, tiles, form.scratch(k, tiling), cuts=[tiles // 2]) == 0
            results.append(c)
    uncompiled = aligned((m, n))
    arguments = (a, packed, uncompiled, n, 0, m, n, k, k, *form.tiling_arguments(k, tiling))
    assert run_uncompiled(source, arguments, tiles, form.scratch(k, tiling)) == 0
    _close(uncompiled, a @ b.astype(np.float32), k)
    _close(results[0], a @ b.astype(np.float32), k)
    for result in results[1:]:
        np.testing.assert_array_equal(result, results[0])


def test_prefetching_of_results_changes_none() -> None:
    tile = tile_shape(HOST, "float32")
    form = MatmulForm(tile, last_columns=None)
    plain = _kernel(form, matmul_source(form, store_epilogue(FLOAT32)))
    ahead = CompiledKernel(matmul_source(form, store_epilogue(FLOAT32, dense=True)))
    for m, n, k in ((57, 3 * tile.columns + 1, 40), (31, 2 * tile.columns, 3)):
        a, b = _random((m, k), "float32"), _random((k, n), "float32")
        results = []
        for kernel in (plain, ahead):
            c = aligned((m, n))
            tiling = Tiling(tile.rows, 4)
            arguments = (a, pack_matmul(b, tile.columns), c, n, 0, m, n, k, k, *form.tiling_arguments(k, tiling))
            assert kernel(arguments, form.tiles(m, n, 1, tiling), form.scratch(k, tiling)) == 0
            results.append(c)
        np.testing.assert_array_equal(*results)
        _close(results[0], a @ b, k)


def test_strided_rows_and_whole_panels() -> None:
    tile = tile_shape(HOST, "float32")
    form = MatmulForm(tile, last_columns=tile.columns)
    kernel = _kernel(form, matmul_source(form, store_epilogue(FLOAT32)))
    m, n, k = 20, 2 * tile.columns, 11
    wide = _random((m, 29), "float32")
    b, c = _random((k, n), "float32"), aligned((m, n))
    tiling = Tiling(tile.rows, 2)
    arguments = (wide[:, 3:], pack_matmul(b, tile.columns), c, n, 0, m, n, k, 29, *form.tiling_arguments(k, tiling))
    assert kernel(arguments, form.tiles(m, n, 1, tiling), form.scratch(k, tiling)) == 0
    _close(c, wide[:, 3 : 3 + k] @ b, k)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("n", [8, 16, 24, 40, 56, 80, 100, 112])
def test_a_last_panel_that_is_not_full(n: int, dtype: str) -> None:
    tile = tile_shape(HOST, dtype)
    m, k = 31, 21
    a, b = _random((m, k), dtype), _random((k, n), dtype)
    results = []
    for last in {columns_of_last_panel(tile, n), None}:
        form = MatmulForm(tile, last_columns=last)
        kernel = _kernel(form, matmul_source(form, store_epilogue(BY_NAME[dtype])))
        for tiling in (matmul_tiling(form, m, n, k, HOST), Tiling(tile.rows, 1)):
            c = aligned((m, n), dtype)
            arguments = (a, pack_matmul(b, tile.columns), c, n, 0, m, n, k, k, *form.tiling_arguments(k, tiling))
            assert kernel(arguments, form.tiles(m, n, 1, tiling), form.scratch(k, tiling)) == 0
            results.append(c)
    _close(results[0], a @ b, k)
    for result in results[1:]:
        np.testing.assert_array_equal(result, results[0])


def test_columns_of_a_last_panel() -> None:
    tile = tile_shape(Target.generic_x86_64("v4"), "float32")
    assert [columns_of_last_panel(tile, n) for n in (32, 96, 40, 80, 56)] == [32, 32, 8, 16, 24]
    assert columns_of_last_panel(tile, 33) is None
    assert columns_of_last_panel(tile, dims.symbol("n")) is None
    assert columns_of_last_panel(tile, dims.symbol("n") * 32) == 32


def test_batch_axes_have_strides_of_their_own() -> None:
    tile = tile_shape(HOST, "float32")
    form = MatmulForm(tile, last_columns=None, batch_axes=2)
    kernel = _kernel(form, matmul_source(form, store_epilogue(FLOAT32)))
    m, n, k = 5, 37, 6
    a, b = _random((3, 1, m, k), "float32"), _random((2, k, n), "float32")
    packed = pack_matmul(b, tile.columns)
    c = aligned((3, 2, m, n))
    tiling = Tiling(tile.rows, 1)
    axes = (3, m * k, 0, 2, 0, packed[0].size)
    arguments = (a, packed, c, n, m * n, m, n, k, k, *axes, *form.tiling_arguments(k, tiling))
    tiles = form.tiles(m, n, 6, tiling)
    assert kernel(arguments, tiles, form.scratch(k, tiling), cuts=[1, 7]) == 0
    _close(c, a @ b, k)


def _bias_epilogue() -> Epilogue:
    parameters = (
        Parameter("y0", "float32*", noalias=True),
        Parameter("n0", "int64"),
        Parameter("x2", "float32*"),
    )
    lines = [
        "v1 = {acc} + load(x2, {n})",
        "store(y0, {m} * n0 + {n}, select(v1 < float32(0.0), float32(0.0), v1))",
    ]
    return Epilogue(
        parameters, lambda acc, m, n, batch: [line.format(acc=acc, m=m, n=n, batch=batch) for line in lines]
    )


def test_the_epilogue_finishes() -> None:
    tile = tile_shape(HOST, "float32")
    form = MatmulForm(tile, last_columns=None)
    kernel = CompiledKernel(matmul_source(form, _bias_epilogue()))
    m, n, k = 31, 45, 19
    a, b, bias, c = _random((m, k), "float32"), _random((k, n), "float32"), _random((n,), "float32"), aligned((m, n))
    tiling = Tiling(tile.rows, 2)
    arguments = (a, pack_matmul(b, tile.columns), c, n, bias, m, n, k, k, *form.tiling_arguments(k, tiling))
    assert kernel(arguments, form.tiles(m, n, 1, tiling), form.scratch(k, tiling)) == 0
    _close(c, np.maximum(a @ b + bias, 0), k)


def test_text_runs_uncompiled() -> None:
    tile = tile_shape(HOST, "float32")
    form = MatmulForm(tile, last_columns=None)
    m, n, k = 16, 34, 3
    a, b, c = _random((m, k), "float32"), _random((k, n), "float32"), aligned((m, n))
    tiling = Tiling(tile.rows, 1)
    arguments = (a, pack_matmul(b, tile.columns), c, n, 0, m, n, k, k, *form.tiling_arguments(k, tiling))
    source = matmul_source(form, store_epilogue(FLOAT32))
    assert run_uncompiled(source, arguments, form.tiles(m, n, 1, tiling), form.scratch(k, tiling)) == 0
    _close(c, a @ b, k)


def test_tiles_are_whole_register_tiles() -> None:
    form = MatmulForm(tile_shape(HOST, "float32"), last_columns=32)
    with pytest.raises(ValueError, match="no whole number"):
        form.scratch(8, Tiling(form.tile.rows + 1, 1))


@pytest.mark.parametrize(
    ("m", "n", "k"), [(128, 768, 768), (196, 256, 1024), (None, 64, 64), (7, None, None), (0, 0, 0)]
)
def test_tilings_suit_the_cores_and_the_tile(m: int | None, n: int | None, k: int | None) -> None:
    form = MatmulForm(tile_shape(HOST, "float32"), last_columns=32)
    tiling = matmul_tiling(form, m, n, k, HOST)
    assert tiling.rows % form.tile.rows == 0
    assert tiling.rows > 0 < tiling.panels
    if m and n:
        assert form.tiles(m, n, 1, tiling) >= 4 * HOST.cores or tiling.panels == 1


def test_text_says_nothing_of_sizes() -> None:
    form = MatmulForm(tile_shape(HOST, "float32"), last_columns=32)
    one = matmul_source(form, store_epilogue(FLOAT32))
    assert one == matmul_source(form, store_epilogue(FLOAT32))
    assert {parameter.name for parameter in one.parameters} >= {"m_size", "n_size", "k_size", "a_row"}
