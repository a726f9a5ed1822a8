from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from contraction_harness import HOST, CompiledKernel, aligned, run_uncompiled
from conv_harness import Case, case_arguments, expected_result, square_case

from onnxsmith_compiler.codegen.conv_source import ConvForm, conv_source, conv_tiling, merges_taps
from onnxsmith_compiler.codegen.epilogue import store_epilogue
from onnxsmith_compiler.codegen.tile_shapes import panel_tile, tile_shape
from onnxsmith_compiler.codegen.tiling import Tiling
from onnxsmith_compiler.ir.dtype import BFLOAT16, FLOAT16, FLOAT32, FLOAT64, DType

RNG = np.random.default_rng(11)
COMPILED: dict[ConvForm, CompiledKernel] = {}


CASES = [
    square_case(1, 7, 16, 33, 3, pad=1),
    square_case(2, 9, 20, 64, 3, pad=1, strides=2),
    square_case(3, 5, 17, 12, 1),
    square_case(2, 8, 32, 40, 1, strides=2),
    square_case(1, 10, 18, 16, 3, pad=2, dilations=2),
    square_case(2, 23, 3, 35, 7, pad=3, strides=2),
    square_case(1, 4, 1, 5, 5, pad=2),
    square_case(1, 3, 3, 8, 5, pad=4),
    square_case(2, 6, 12, 18, 3, pad=1, groups=3),
    Case(2, (9, 31), 4, 33, (2, 5), (1, 3), (2, 1), (1, 0), (0, 4)),
    Case(2, (57,), 24, 10, (5,), (2,), (3,), (4,), (1,)),
    Case(1, (40,), 2, 10, (9,), (4,), (1,), (3,), (8,)),
    Case(1, (5, 6, 7), 16, 20, (3, 2, 3), (1, 2, 1), (1, 1, 2), (1, 0, 2), (1, 1, 2)),
    Case(1, (4, 5, 9), 3, 6, (2, 3, 4), (2, 1, 2), (1, 2, 1), (0, 2, 3), (1, 2, 0)),
]


def _operands(case: Case, dtype: str) -> tuple[Any, Any, Any]:
    x = RNG.standard_normal((case.batch, *case.size, case.channels)).astype(dtype)
    w = RNG.standard_normal((case.outputs, case.channels // case.groups, *case.window)).astype(dtype)
    y = aligned((case.batch, *case.out, case.outputs), dtype)
    y[...] = np.nan
    return x, w, y


def _form(case: Case, dtype: str = "float32", stored: DType | None = None) -> ConvForm:
    tile = panel_tile(HOST, dtype, tile_shape(HOST, dtype, case.outputs // case.groups).columns, stored)
    return ConvForm(tile, case.window, merges_taps(case.channels, case.groups, case.dilations), None)


@pytest.mark.parametrize("case", CASES, ids=str)
def test_convolution(case: Case) -> None:
    form = _form(case)
    if form not in COMPILED:
        COMPILED[form] = CompiledKernel(conv_source(form, store_epilogue(FLOAT32, dense=True)))
    x, w, y = _operands(case, "float32")
    expected = expected_result(x, w, case)
    pixels, outputs = case.batch * int(np.prod(case.out)), case.outputs // case.groups
    chosen = conv_tiling(form, pixels, outputs, case.channels // case.groups, HOST)
    for tiling in (chosen, Tiling(form.tile.rows, 1), Tiling(5 * form.tile.rows, 2)):
        y[...] = np.nan
        arguments, tiles, scratch = case_arguments(case, form, tiling, x, w, y)
        assert COMPILED[form](arguments, tiles, scratch, cuts=[tiles // 2]) == 0
        np.testing.assert_allclose(y, expected, rtol=1e-4, atol=1e-4)


def test_float64() -> None:
    case = square_case(1, 6, 5, 9, 3, pad=1)
    form = _form(case, "float64")
    kernel = CompiledKernel(conv_source(form, store_epilogue(FLOAT64)))
    x, w, y = _operands(case, "float64")
    arguments, tiles, scratch = case_arguments(case, form, Tiling(form.tile.rows, 1), x, w, y)
    assert kernel(arguments, tiles, scratch) == 0
    np.testing.assert_allclose(y, expected_result(x, w, case), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("narrow", [BFLOAT16, FLOAT16], ids=str)
@pytest.mark.parametrize("case", CASES[:4] + CASES[8:10], ids=str)
def test_narrow_weights_give_the_bits_of_the_same_in_float32(case: Case, narrow: DType) -> None:
    x, w, _ = _operands(case, "float32")
    w = w.astype(narrow.storage)
    results = []
    for stored in (FLOAT32, narrow):
        form = _form(case, stored=stored)
        source = conv_source(form, store_epilogue(FLOAT32))
        y = aligned((case.batch, *case.out, case.outputs))
        arguments, tiles, scratch = case_arguments(
            case, form, Tiling(form.tile.rows, 1), x, w.astype(stored.storage), y
        )
        assert CompiledKernel(source)(arguments, tiles, scratch) == 0
        results.append(y)
    np.testing.assert_array_equal(*results)
    np.testing.assert_allclose(y, expected_result(x, w.astype(np.float64), case), rtol=1e-4, atol=1e-4)
    y[...] = np.nan
    assert run_uncompiled(source, arguments, tiles, scratch) == 0
    np.testing.assert_allclose(y, results[0], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("index", [0, 6])
def test_text_runs_uncompiled(index: int) -> None:
    case = CASES[index]
    form = _form(case)
    x, w, y = _operands(case, "float32")
    arguments, tiles, scratch = case_arguments(case, form, Tiling(2 * form.tile.rows, 1), x, w, y)
    assert run_uncompiled(conv_source(form, store_epilogue(FLOAT32)), arguments, tiles, scratch) == 0
    np.testing.assert_allclose(y, expected_result(x, w, case), rtol=1e-4, atol=1e-4)


def test_images_do_not_change_each_other_s_bits() -> None:
    case = CASES[1]
    form = _form(case)
    x, w, y = _operands(case, "float32")
    kernel = CompiledKernel(conv_source(form, store_epilogue(FLOAT32)))
    kernel(*case_arguments(case, form, Tiling(3 * form.tile.rows, 2), x, w, y))
    one = Case(**{**case.__dict__, "batch": 1})
    alone = aligned((1, *case.out, case.outputs))
    kernel(*case_arguments(one, form, Tiling(form.tile.rows, 1), x[1:2].copy(), w, alone))
    np.testing.assert_array_equal(alone[0], y[1])


def test_only_few_channels_are_merged() -> None:
    assert merges_taps(3, 1, (1, 1))
    assert not merges_taps(64, 1, (1, 1))
    assert not merges_taps(3, 3, (1, 1))
    assert not merges_taps(3, 1, (1, 2))
    assert not merges_taps(None, 1, (1, 1))
