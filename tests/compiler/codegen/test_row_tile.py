from __future__ import annotations

import numpy as np
import pytest
from contraction_harness import HOST, CompiledKernel, aligned, run_uncompiled

from onnxsmith_compiler.codegen import tile_shapes
from onnxsmith_compiler.codegen.row_tile import row_tile_name
from onnxsmith_compiler.codegen.source import KernelSource, Parameter
from onnxsmith_compiler.codegen.tile_shapes import TileShape

NATIVE = [
    shape
    for shape in tile_shapes.TILE_SHAPES
    if shape.lanes * shape.element.bits <= HOST.vector_bits and not shape.pairs
]


def _source(shape: TileShape, call: str) -> KernelSource:
    parameters = (
        Parameter("row", f"{shape.dtype}*"),
        Parameter("depth", "int64"),
        Parameter("panels", f"{shape.panel_element}*"),
        Parameter("count", "int64"),
        Parameter("out", f"{shape.dtype}*"),
        Parameter("pitch", "int64"),
    )
    names = ", ".join(parameter.name for parameter in parameters)
    return KernelSource("row", f"def kernel(ctx, {names}, begin, end):\n{call}\n    return 0\n", parameters)


def _row_tile(shape: TileShape) -> KernelSource:
    return _source(shape, f"    {row_tile_name(shape)}(address(row), depth, panels, count, out, pitch)")


def _register_tile(shape: TileShape) -> KernelSource:
    lines = [
        f"table = stack(int64, {shape.table_stride})",
        f"for i in range({shape.table_stride}):",
        "    store(table, i, address(row))",
        f"sums = stack({shape.dtype}, {shape.rows * shape.columns})",
        "for p in range(count):",
        f"    panel = offset(panels, p * depth * {shape.columns})",
        f"    {shape.name}(table, 1, 1, depth, panel, sums, address(panel), 64, 0)",
        f"    for j in range({shape.columns}):",
        "        store(out, p * pitch + j, load(sums, j))",
    ]
    return _source(shape, "\n".join(f"    {line}" for line in lines))


@pytest.mark.parametrize("shape", NATIVE, ids=lambda shape: shape.name)
def test_the_product_of_a_row_and_the_bits_of_a_register_tile(shape: TileShape) -> None:
    kernel, tile = CompiledKernel(_row_tile(shape)), CompiledKernel(_register_tile(shape))
    rng = np.random.default_rng(4)
    for count, depth, gap in ((1, 1, 0), (2, 19, 0), (3, 5, 64), (4, 33, 0), (9, 7, 128), (0, 3, 0), (2, 0, 0)):
        row = rng.standard_normal(depth).astype(shape.dtype)
        panels = aligned((count, depth, shape.columns), shape.panel_element.storage)
        panels[:] = rng.standard_normal(panels.shape)
        pitch = shape.columns + gap
        results = [aligned((count, pitch), shape.dtype) for _ in range(3)]
        for array in results:
            array[:] = 7
        assert kernel((row, depth, panels, count, results[0], pitch), 1, 64) == 0
        assert tile((row, depth, panels, count, results[1], pitch), 1, 64) == 0
        run_uncompiled(_row_tile(shape), (row, depth, panels, count, results[2], pitch), 1, 64)
        np.testing.assert_array_equal(results[0], results[1])
        np.testing.assert_allclose(results[2], results[0], rtol=1e-5, atol=1e-5)
        expected = np.einsum("k,pkj->pj", row.astype(np.float64), panels.astype(np.float64))
        np.testing.assert_allclose(results[0][:, : shape.columns], expected, rtol=1e-5, atol=1e-5)
        assert np.all(results[0][:, shape.columns :] == 7)
