from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from contraction_harness import HOST, CompiledKernel, aligned, run_uncompiled
from tile_harness import VECTOR_ON_STACK, row_addresses, tile_source

from onnxsmith_compiler.codegen import llvm_backend, tile_shapes
from onnxsmith_compiler.codegen.numba_adapter import Compiler
from onnxsmith_compiler.codegen.target import Target
from onnxsmith_compiler.codegen.tile_shapes import TileShape, narrow_tile, panel_tile, tile_shape
from onnxsmith_compiler.codegen.tiles import TILES
from onnxsmith_compiler.ir.dtype import BFLOAT16, FLOAT16, FLOAT32, FLOAT64, DType

NATIVE = [
    shape
    for shape in (*tile_shapes.TILE_SHAPES, *tile_shapes.NARROW_TILE_SHAPES)
    if shape.lanes * shape.element.bits <= HOST.vector_bits and not shape.pairs
]


def _tile(target: Target, dtype: str, stored: DType) -> TileShape:
    """The tile for many columns, of panels of `stored`."""
    return panel_tile(target, dtype, tile_shape(target, dtype).columns, stored)


@pytest.mark.parametrize("shape", NATIVE, ids=lambda shape: shape.name)
def test_every_height_of_every_tile(shape: TileShape) -> None:
    kernel = CompiledKernel(tile_source(shape))
    rng = np.random.default_rng(3)
    for count in range(1, shape.rows + 1):
        for taps, depth in ((1, 1), (1, 19), (3, 4)):
            a = rng.standard_normal((count, taps, depth)).astype(shape.dtype)
            panel = rng.standard_normal((taps * depth, shape.panel_columns)).astype(shape.panel_element.storage)
            out = aligned((shape.rows, shape.columns), shape.dtype)
            arguments = (row_addresses(a, shape), count, taps, depth, panel, out)
            assert kernel(arguments, 1, 64) == 0
            expected = a.reshape(count, -1).astype(np.float64) @ panel[:, : shape.columns].astype(np.float64)
            np.testing.assert_allclose(out[:count], expected, rtol=1e-5, atol=1e-5)
            again = aligned(out.shape, shape.dtype)
            run_uncompiled(tile_source(shape), (*arguments[:-1], again), 1, 64)
            np.testing.assert_allclose(again[:count], expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("shape", NATIVE, ids=lambda shape: shape.name)
def test_a_sum_that_is_resumed_is_that_of_all_terms(shape: TileShape) -> None:
    whole, rest = CompiledKernel(tile_source(shape)), CompiledKernel(tile_source(shape, resume=7))
    rng = np.random.default_rng(4)
    for count in (1, 3, shape.rows):
        a = rng.standard_normal((count, 1, 23)).astype(shape.dtype)
        panel = rng.standard_normal((23, shape.panel_columns)).astype(shape.panel_element.storage)
        expected, out, uncompiled = (aligned((shape.rows, shape.columns), shape.dtype) for _ in range(3))
        assert whole((row_addresses(a, shape), count, 1, 23, panel, expected), 1, 64) == 0
        first, last = a[:, :, :10].copy(), a[:, :, 10:].copy()
        assert whole((row_addresses(first, shape), count, 1, 10, panel[:10].copy(), out), 1, 64) == 0
        uncompiled[...] = out
        arguments = (row_addresses(last, shape), count, 1, 13, panel[10:].copy())
        assert rest((*arguments, out), 1, 64) == 0
        np.testing.assert_array_equal(out[:count], expected[:count])
        run_uncompiled(tile_source(shape, resume=7), (*arguments, uncompiled), 1, 64)
        np.testing.assert_allclose(uncompiled[:count], expected[:count], rtol=1e-4, atol=1e-4)


def test_nothing_to_add_gives_zeros() -> None:
    shape = tile_shape(HOST, "float32")
    out = aligned((shape.rows, shape.columns))
    out[...] = np.nan
    rows = np.zeros(shape.table_stride, np.int64)
    assert CompiledKernel(tile_source(shape))((rows, shape.rows, 1, 0, out, out), 1, 64) == 0
    np.testing.assert_array_equal(out, 0)


@pytest.mark.parametrize("stored", [FLOAT32, BFLOAT16, FLOAT16], ids=str)
def test_special_values_go_through(stored: DType) -> None:
    shape = _tile(HOST, "float32", stored)
    a = np.array([[[np.inf, 1]], [[0, np.nan]], [[-0.0, -0.0]]], np.float32)
    panel = np.ones((2, shape.columns), stored.storage)
    out = aligned((shape.rows, shape.columns))
    CompiledKernel(tile_source(shape))((row_addresses(a, shape), 3, 1, 2, panel, out), 1, 64)
    assert np.isposinf(out[0]).all()
    assert np.isnan(out[1]).all()
    assert (out[2] == 0).all()


WITHOUT_HALF = replace(HOST, features=HOST.features.replace("+f16c", "-f16c"))


@pytest.mark.parametrize(
    ("stored", "target"),
    [(BFLOAT16, HOST), (FLOAT16, HOST), (FLOAT16, WITHOUT_HALF)],
    ids=["bfloat16", "float16", "integer"],
)
def test_every_narrow_float_is_widened_exactly(stored: DType, target: Target) -> None:
    shape = _tile(target, "float32", stored)
    kernel = CompiledKernel(tile_source(shape), target)
    one = np.ones((1, 1, 1), np.float32)
    every = np.arange(1 << 16, dtype=np.uint16).view(stored.storage)
    for panel in every.reshape(-1, 1, shape.columns):
        out = aligned((shape.rows, shape.columns))
        kernel((row_addresses(one, shape), 1, 1, 1, panel, out), 1, 64)
        np.testing.assert_array_equal(out[0], panel[0].astype(np.float32))


@pytest.mark.parametrize("shape", [s for s in NATIVE if s.stored], ids=lambda shape: shape.name)
def test_narrow_panels_give_the_bits_of_the_same_in_float32(shape: TileShape) -> None:
    rng = np.random.default_rng(5)
    a = rng.standard_normal((shape.rows, 3, 21)).astype(np.float32)
    panel = rng.standard_normal((63, shape.panel_columns)).astype(shape.panel_element.storage)
    results = []
    for tile, weights in ((shape, panel), (replace(shape, stored=None), panel.astype(np.float32))):
        out = aligned((shape.rows, shape.columns))
        CompiledKernel(tile_source(tile))((row_addresses(a, tile), shape.rows, 3, 21, weights, out), 1, 64)
        results.append(out)
    np.testing.assert_array_equal(*results)


TARGETS = [
    Target.generic_x86_64("v2"),
    Target.generic_x86_64("v3"),
    Target.generic_x86_64("v4"),
    Target.generic_aarch64(),
]


@pytest.mark.parametrize("target", TARGETS, ids=lambda target: target.cpu)
@pytest.mark.parametrize(
    ("dtype", "stored"),
    [("float32", FLOAT32), ("float32", BFLOAT16), ("float32", FLOAT16), ("float64", FLOAT64)],
    ids=str,
)
def test_accumulators_of_the_default_tile_stay_in_registers(target: Target, dtype: str, stored: DType) -> None:
    if stored is FLOAT16 and not target.native_half:
        pytest.skip("integer code that widens takes registers of its own")
    shape = _tile(target, dtype, stored)
    assert shape.rows * shape.vectors + shape.vectors < target.vector_registers
    module = Compiler(target).kernel_module(tile_source(shape), "kernel")
    assembly = llvm_backend.emit_assembly(module, target)
    assert VECTOR_ON_STACK.findall(assembly) == []


def test_few_columns_get_a_narrow_tile() -> None:
    wide = tile_shape(HOST, "float32")
    assert tile_shape(HOST, "float32", columns=1).columns < wide.columns
    assert tile_shape(HOST, "float32", columns=wide.columns) == wide
    assert tile_shape(HOST, "float32", columns=10 * wide.columns) == wide


@pytest.mark.parametrize("target", TARGETS[:3], ids=lambda target: target.cpu)
@pytest.mark.parametrize(("dtype", "columns"), [("float32", 16), ("float32", 32), ("float64", 8), ("float64", 16)])
def test_every_level_reads_what_is_packed_for_the_widest_vectors(target: Target, dtype: str, columns: int) -> None:
    assert tile_shape(Target.generic_x86_64("v4"), dtype, columns).columns == columns
    shape = panel_tile(target, dtype, columns)
    assert (shape.columns, shape.lanes) == (columns, target.vector_bits // shape.element.bits)
    module = Compiler(target).kernel_module(tile_source(shape), "kernel")
    assert VECTOR_ON_STACK.findall(llvm_backend.emit_assembly(module, target)) == []


def test_panels_of_another_width_are_refused() -> None:
    with pytest.raises(ValueError, match="x86-64-v2 has no tile for panels of 20 columns of float32"):
        panel_tile(Target.generic_x86_64("v2"), "float32", 20)


@pytest.mark.parametrize(
    ("columns", "name"),
    [
        (4, "tile_6x1of8_f32x4"),
        (8, "tile_6x2of8_f32x4"),
        (12, "tile_6x2x2of8_f32x4"),
        (24, "tile_6x2x3of8_f32x4"),
        (25, None),
        (32, None),
    ],
)
def test_a_last_panel_takes_the_passes_that_it_fills(columns: int, name: str | None) -> None:
    narrow = narrow_tile(panel_tile(Target.generic_x86_64("v2"), "float32", 32), columns)
    assert (narrow and narrow.name) == name
    assert name is None or name in TILES


@pytest.mark.parametrize("columns", [None, 1, 16, 17, 100])
def test_the_type_of_panels_does_not_change_their_width(columns: int | None) -> None:
    wide = tile_shape(HOST, "float32", columns)
    narrow = panel_tile(HOST, "float32", wide.columns, BFLOAT16)
    assert narrow == replace(wide, stored="bfloat16")
    assert (narrow.element, narrow.panel_element, narrow.panel_row_bytes) == (FLOAT32, BFLOAT16, 2 * narrow.columns)


def test_names_are_those_of_the_table() -> None:
    assert set(TILES) == {shape.name for shape in (*tile_shapes.TILE_SHAPES, *tile_shapes.NARROW_TILE_SHAPES)}
    expected = {"tile_14x2_f32x16", "tile_14x2_bf16_f32x16", "tile_14x1of2_bf16_f32x16", "tile_14x2_bf16x2_f32x16"}
    assert expected <= set(TILES)
