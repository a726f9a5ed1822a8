"""Tiles, products and convolutions of pairs of bfloat16, compiled where the CPU executes them, and in numpy."""

from __future__ import annotations

import itertools
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from contraction_harness import CompiledKernel, aligned, run_uncompiled
from conv_harness import Case, case_arguments, expected_result, square_case
from tests import bfloat16_pairs as machine
from tests.compiler.codegen.packing import interleave, pack_matmul
from tile_harness import VECTOR_ON_STACK, row_addresses, tile_source

from onnxsmith_compiler.codegen import bfloat16_pairs, llvm_backend, tile_shapes
from onnxsmith_compiler.codegen.conv_source import ConvForm, conv_source, merges_taps
from onnxsmith_compiler.codegen.epilogue import store_epilogue
from onnxsmith_compiler.codegen.matmul_source import MatmulForm, matmul_source, matmul_tiling
from onnxsmith_compiler.codegen.numba_adapter import Compiler
from onnxsmith_compiler.codegen.source import KernelSource
from onnxsmith_compiler.codegen.target import Target
from onnxsmith_compiler.codegen.tile_shapes import TileShape, panel_tile, tile_shape
from onnxsmith_compiler.codegen.tiling import Tiling
from onnxsmith_compiler.ir.dtype import BFLOAT16, FLOAT32

Array = np.ndarray[Any, Any]

BF16 = BFLOAT16.storage
ZEN = machine.fast_target(Target.generic_x86_64("v4"))
PAIRS = [shape for shape in (*tile_shapes.TILE_SHAPES, *tile_shapes.NARROW_TILE_SHAPES) if shape.pairs]


def _tile(columns: int | None = None) -> TileShape:
    """The tile for a product with so many columns (None: many)."""
    return panel_tile(ZEN, "float32", tile_shape(ZEN, "float32", columns).columns, BFLOAT16, pairs=True)


WIDE = _tile()


@cache
def _compiled(source: KernelSource, target: Target) -> CompiledKernel:
    return CompiledKernel(source, target)


def _random(*shape: int) -> Array:
    array = aligned(shape, BF16)
    array[...] = np.random.default_rng(sum(shape)).standard_normal(shape)
    return array


def _product(a: Array, b: Array) -> Array:
    return a.astype(np.float64) @ b.astype(np.float64)


def _sums(a: list[float], b: list[float]) -> float:
    (total,) = bfloat16_pairs.sum_of_products(np.array(a, BF16), np.array(b, BF16)[:, None], np.zeros(1, np.float32))
    return float(total)


ORDERED = [
    ([0, 2.0**24, -(2.0**24), 1], [1, 1, 1, 1], 0.0),  # 1 is lost in 2**24: it comes before what takes that away
    ([0, 2.0**24, 1, -(2.0**24)], [1, 1, 1, 1], 1.0),
    ([2.0**-127, 0], [2.0**100, 0], 0.0),  # a subnormal number counts as zero
    ([2.0**-100, 0], [2.0**-30, 0], 0.0),  # and so does a subnormal sum
    ([1.5, 2.5], [3.0, -0.5], 3.25),
]


@pytest.mark.parametrize(("a", "b", "total"), ORDERED)
def test_a_pair_is_added_second_element_first_and_without_subnormal_numbers(
    a: list[float], b: list[float], total: float
) -> None:
    assert _sums(a, b) == total


@pytest.mark.parametrize("shape", PAIRS, ids=lambda shape: shape.name)
def test_every_height_in_numpy(shape: TileShape) -> None:
    for count, (taps, depth) in itertools.product((1, shape.rows), ((1, 2), (3, 4))):
        a, panel = _random(count, taps, depth), _random(taps * depth, shape.panel_columns)
        out = aligned((shape.rows, shape.columns))
        arguments = (row_addresses(a, shape), count, taps, depth, interleave(panel), out)
        run_uncompiled(tile_source(shape), arguments, 1, 64)
        expected = _product(a.reshape(count, -1), panel[:, : shape.columns])
        np.testing.assert_allclose(out[:count], expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("shape", PAIRS, ids=lambda shape: shape.name)
def test_every_height_compiled(shape: TileShape, pairs_target: Target) -> None:
    kernel = _compiled(tile_source(shape), pairs_target)
    for count in range(1, shape.rows + 1):
        for taps, depth in ((1, 2), (1, 40), (3, 4)):
            a, panel = _random(count, taps, depth), _random(taps * depth, shape.panel_columns)
            out = aligned((shape.rows, shape.columns))
            assert kernel((row_addresses(a, shape), count, taps, depth, interleave(panel), out), 1, 64) == 0
            expected = _product(a.reshape(count, -1), panel[:, : shape.columns])
            np.testing.assert_allclose(out[:count], expected, rtol=1e-5, atol=1e-5)


def test_the_cpu_adds_as_the_numpy_form_does(pairs_target: Target) -> None:
    if "intel" not in Path("/proc/cpuinfo").read_text().lower():
        pytest.skip("the numpy form follows Intel's description of the instruction")
    kernel = _compiled(tile_source(WIDE), pairs_target)
    a, panel = _random(WIDE.rows, 1, 64), _random(64, WIDE.columns)
    out = aligned((WIDE.rows, WIDE.columns))
    kernel((row_addresses(a, WIDE), WIDE.rows, 1, 64, interleave(panel), out), 1, 64)
    sums = [bfloat16_pairs.sum_of_products(row[0], panel, np.zeros(panel.shape[1], np.float32)) for row in a]
    np.testing.assert_array_equal(out, np.stack(sums))


def test_accumulators_stay_in_registers() -> None:
    module = Compiler(ZEN).kernel_module(tile_source(WIDE), "kernel")
    assembly = llvm_backend.emit_assembly(module, ZEN)
    assert assembly.count("vdpbf16ps\t") >= sum(WIDE.heights) * WIDE.vectors
    assert VECTOR_ON_STACK.findall(assembly) == []


def _matmul(form: MatmulForm, a: Array, b: Array, tiling: Tiling) -> tuple[tuple[Any, ...], int, int]:
    """The kernel's arguments (the result is number 2), its tiles, its scratch."""
    (m, k), n = a.shape, b.shape[1]
    packed = interleave(pack_matmul(b, form.tile.columns))
    arguments = (a, packed, aligned((m, n)), n, 0, m, n, k, k, *form.tiling_arguments(k, tiling))
    return arguments, form.tiles(m, n, 1, tiling), form.scratch(k, tiling)


@pytest.mark.parametrize(("n", "k"), [(1, 2), (33, 0), (40, 6), (70, 130), (160, 64)])
def test_rows_keep_their_bits_whatever_surrounds_them(n: int, k: int, pairs_target: Target) -> None:
    a, b = _random(43, k), _random(k, n)
    results = []
    for rows in (43, 15, 3, 1):
        form = MatmulForm(WIDE, last_columns=None, single_row=rows == 1)
        kernel = _compiled(matmul_source(form, store_epilogue(FLOAT32)), pairs_target)
        for tiling in (matmul_tiling(form, rows, n, k, pairs_target), Tiling(WIDE.rows, 4), Tiling(WIDE.rows, 2, 16)):
            arguments, tiles, scratch = _matmul(form, a[:rows], b, tiling)
            assert kernel(arguments, tiles, scratch, cuts=[tiles // 2]) == 0
            results.append(arguments[2])
    np.testing.assert_allclose(results[0], _product(a, b), rtol=1e-5, atol=1e-5)
    for result in results[1:]:
        np.testing.assert_array_equal(result, results[0][: len(result)])


@pytest.mark.parametrize("single_row", [False, True])
def test_text_of_a_product_runs_uncompiled(single_row: bool) -> None:
    form = MatmulForm(WIDE, last_columns=None, single_row=single_row)
    a, b = _random(1 if single_row else 17, 6), _random(6, 70)
    arguments, tiles, scratch = _matmul(form, a, b, Tiling(WIDE.rows, 4))
    assert run_uncompiled(matmul_source(form, store_epilogue(FLOAT32)), arguments, tiles, scratch) == 0
    np.testing.assert_allclose(arguments[2], _product(a, b), rtol=1e-5, atol=1e-5)


CONVOLUTIONS = [
    square_case(2, 9, 20, 64, 3, pad=1, strides=2),
    square_case(1, 7, 16, 33, 3, pad=1, dilations=2),
    square_case(2, 6, 12, 18, 3, pad=1, groups=3),
    square_case(1, 9, 4, 35, 5, pad=2),  # taps of a row are merged
    Case(2, (57,), 24, 10, (5,), (2,), (3,), (4,), (1,)),
]


def _convolution(case: Case) -> tuple[ConvForm, Array, Array, Array]:
    merged = merges_taps(case.channels, case.groups, case.dilations)
    form = ConvForm(_tile(case.outputs // case.groups), case.window, merged, None)
    x = _random(case.batch, *case.size, case.channels)
    w = _random(case.outputs, case.channels // case.groups, *case.window)
    return form, x, w, expected_result(x, w.astype(np.float64), case)


@pytest.mark.parametrize("case", CONVOLUTIONS, ids=str)
def test_convolution(case: Case, pairs_target: Target) -> None:
    form, x, w, expected = _convolution(case)
    kernel = _compiled(conv_source(form, store_epilogue(FLOAT32, dense=True)), pairs_target)
    results = []
    for tiling in (Tiling(form.tile.rows, 1), Tiling(5 * form.tile.rows, 2)):
        y = aligned(expected.shape)
        arguments, tiles, scratch = case_arguments(case, form, tiling, x, w, y)
        assert kernel(arguments, tiles, scratch, cuts=[tiles // 2]) == 0
        results.append(y)
    np.testing.assert_array_equal(*results)
    np.testing.assert_allclose(results[0], expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("case", CONVOLUTIONS[2:4], ids=str)
def test_text_of_a_convolution_runs_uncompiled(case: Case) -> None:
    form, x, w, expected = _convolution(case)
    y = aligned(expected.shape)
    arguments, tiles, scratch = case_arguments(case, form, Tiling(form.tile.rows, 1), x, w, y)
    assert run_uncompiled(conv_source(form, store_epilogue(FLOAT32)), arguments, tiles, scratch) == 0
    np.testing.assert_allclose(y, expected, rtol=1e-4, atol=1e-4)
