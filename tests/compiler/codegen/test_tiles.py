from __future__ import annotations

import re
from typing import Any

import numpy as np
import pytest
from contraction_harness import HOST, CompiledKernel, aligned, run_uncompiled

from onnxsmith_compiler.codegen import llvm_backend, tiles
from onnxsmith_compiler.codegen.numba_adapter import Compiler
from onnxsmith_compiler.codegen.source import KernelSource, Parameter
from onnxsmith_compiler.codegen.target import Target
from onnxsmith_compiler.codegen.tiles import TILES, TileShape, tile_shape

NATIVE = [
    shape
    for shape in (*tiles.TILE_SHAPES, *tiles.NARROW_TILE_SHAPES)
    if shape.lanes * shape.element.bits <= HOST.vector_bits
]


def _source(shape: TileShape) -> KernelSource:
    pointer = f"{shape.dtype}*"
    parameters = (
        Parameter("rows", "int64*"),
        Parameter("count", "int64"),
        Parameter("taps", "int64"),
        Parameter("depth", "int64"),
        Parameter("panel", pointer),
        Parameter("out", pointer),
    )
    names = ", ".join(parameter.name for parameter in parameters)
    text = f"def kernel(ctx, {names}, begin, end):\n    {shape.name}({names}, address(panel), 64)\n    return 0\n"
    return KernelSource(shape.name, text, parameters)


def _addresses(a: np.ndarray[Any, Any], shape: TileShape) -> np.ndarray[Any, Any]:
    """The table of rows of a[row, tap, k]; entries past the last row repeat it."""
    rows, taps, _ = a.shape
    table = np.empty((taps, shape.table_stride), np.int64)
    for tap in range(taps):
        for row in range(shape.table_stride):
            table[tap, row] = a[min(row, rows - 1), tap].ctypes.data
    return table


@pytest.mark.parametrize("shape", NATIVE, ids=lambda shape: shape.name)
def test_every_height_of_every_tile(shape: TileShape) -> None:
    kernel = CompiledKernel(_source(shape))
    rng = np.random.default_rng(3)
    for count in range(1, shape.rows + 1):
        for taps, depth in ((1, 1), (1, 19), (3, 4)):
            a = rng.standard_normal((count, taps, depth)).astype(shape.dtype)
            panel = rng.standard_normal((taps * depth, shape.panel_columns)).astype(shape.dtype)
            out = aligned((shape.rows, shape.columns), shape.dtype)
            arguments = (_addresses(a, shape), count, taps, depth, panel, out)
            assert kernel(arguments, 1, 64) == 0
            expected = a.reshape(count, -1).astype(np.float64) @ panel[:, : shape.columns].astype(np.float64)
            np.testing.assert_allclose(out[:count], expected, rtol=1e-5, atol=1e-5)
            again = aligned(out.shape, shape.dtype)
            run_uncompiled(_source(shape), (*arguments[:-1], again), 1, 64)
            np.testing.assert_allclose(again[:count], expected, rtol=1e-5, atol=1e-5)


def test_nothing_to_add_gives_zeros() -> None:
    shape = tile_shape(HOST, "float32")
    out = aligned((shape.rows, shape.columns))
    out[...] = np.nan
    rows = np.zeros(shape.table_stride, np.int64)
    assert CompiledKernel(_source(shape))((rows, shape.rows, 1, 0, out, out), 1, 64) == 0
    np.testing.assert_array_equal(out, 0)


def test_special_values_go_through() -> None:
    shape = tile_shape(HOST, "float32")
    a = np.array([[[np.inf, 1]], [[0, np.nan]], [[-0.0, -0.0]]], np.float32)
    panel = np.ones((2, shape.columns), np.float32)
    out = aligned((shape.rows, shape.columns))
    CompiledKernel(_source(shape))((_addresses(a, shape), 3, 1, 2, panel, out), 1, 64)
    assert np.isposinf(out[0]).all()
    assert np.isnan(out[1]).all()
    assert (out[2] == 0).all()


VECTOR_ON_STACK = re.compile(r"v?mov[ua]p[sd]\s+%[xyz]mm.*\(%rsp\)|st[rp]\s+q.*\[sp")
TARGETS = [
    Target.generic_x86_64("v2"),
    Target.generic_x86_64("v3"),
    Target.generic_x86_64("v4"),
    Target.generic_aarch64(),
]


@pytest.mark.parametrize("target", TARGETS, ids=lambda target: target.cpu)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_accumulators_of_the_default_tile_stay_in_registers(target: Target, dtype: str) -> None:
    shape = tile_shape(target, dtype)
    assert shape.rows * shape.vectors + shape.vectors < target.vector_registers
    module = Compiler(target).kernel_module(_source(shape), "kernel")
    assembly = llvm_backend.emit_assembly(module, target)
    assert VECTOR_ON_STACK.findall(assembly) == []


def test_few_columns_get_a_narrow_tile() -> None:
    wide = tile_shape(HOST, "float32")
    assert tile_shape(HOST, "float32", columns=1).columns < wide.columns
    assert tile_shape(HOST, "float32", columns=wide.columns) == wide
    assert tile_shape(HOST, "float32", columns=10 * wide.columns) == wide


def test_names_are_those_of_the_table() -> None:
    assert set(TILES) == {shape.name for shape in (*tiles.TILE_SHAPES, *tiles.NARROW_TILE_SHAPES)}
    assert "tile_14x2_f32x16" in TILES
