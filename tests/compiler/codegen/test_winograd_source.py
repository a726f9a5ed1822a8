from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from contraction_harness import HOST, CompiledKernel, aligned, run_uncompiled
from scipy.signal import correlate
from tests.compiler.codegen.packing import pack_conv

from onnxsmith_compiler.codegen.epilogue import store_epilogue
from onnxsmith_compiler.codegen.tile_shapes import tile_shape
from onnxsmith_compiler.codegen.tiling import Tiling
from onnxsmith_compiler.codegen.winograd_source import WinogradForm, winograd_block, winograd_source, winograd_tiling
from onnxsmith_compiler.codegen.winograd_transforms import BLOCKS, WEIGHT_MATRICES
from onnxsmith_compiler.ir.dtype import FLOAT32
from onnxsmith_compiler.ops.winograd import transform_weights

Array = np.ndarray[Any, Any]
RNG = np.random.default_rng(5)
LANES = HOST.vector_bits // 32
COMPILED: dict[WinogradForm, CompiledKernel] = {}


@dataclass(frozen=True)
class Case:
    """`channels` counts vectors; `before` and `after` are the padding on height and width."""

    batch: int
    size: tuple[int, int]
    channels: int
    outputs: int
    before: tuple[int, int] = (1, 1)
    after: tuple[int, int] = (1, 1)

    @property
    def depth(self) -> int:
        return self.channels * LANES

    @property
    def out(self) -> tuple[int, int]:
        height, width = (n + b + a - 2 for n, b, a in zip(self.size, self.before, self.after, strict=True))
        return height, width


CASES = [
    Case(1, (8, 8), 1, 32),
    Case(2, (7, 13), 2, 33),
    Case(3, (5, 4), 3, 7),
    Case(1, (31, 29), 2, 70),
    Case(1, (9, 10), 1, 64, before=(0, 2), after=(3, 0)),
    Case(2, (1, 1), 2, 16),
    Case(0, (8, 8), 1, 32),
]


def _form(case: Case, block: int) -> WinogradForm:
    tile = tile_shape(HOST, "float32", case.outputs)
    return WinogradForm(tile, block, case.outputs % tile.columns == 0)


def _operands(case: Case) -> tuple[Array, Array, Array]:
    x = RNG.standard_normal((case.batch, *case.size, case.depth)).astype(np.float32)
    w = RNG.standard_normal((case.outputs, case.depth, 3, 3)).astype(np.float32)
    y = aligned((case.batch, *case.out, case.outputs))
    y[...] = np.nan
    return x, w, y


def _expected(x: Array, w: Array, case: Case) -> Array:
    padding = [(0, 0), *zip(case.before, case.after, strict=True), (0, 0)]
    padded = np.pad(x.astype(np.float64), padding)
    taps = w.transpose(0, 2, 3, 1).astype(np.float64)
    images = [[correlate(image, tap, "valid")[..., 0] for tap in taps] for image in padded]
    return np.moveaxis(np.array(images).reshape(case.batch, case.outputs, *case.out), 1, -1)


def _arguments(case: Case, form: WinogradForm, tiling: Tiling, x: Array, w: Array, y: Array) -> tuple[Any, int, int]:
    """The kernel's arguments, its tiles, its scratch."""
    blocks = tuple(-(-n // form.block) for n in case.out)
    all_blocks = case.batch * blocks[0] * blocks[1]
    packed = transform_weights(pack_conv(w, 1, form.tile.columns), WEIGHT_MATRICES[form.block])
    geometry = [
        size
        for axis in range(2)
        for size in (case.size[axis], blocks[axis], form.patch, form.block, 1, case.before[axis])
    ]
    sizes = (all_blocks, case.outputs, case.depth, *geometry, *case.out, tiling.rows, tiling.panels)
    arguments = (x, packed, y, case.outputs, 0, *sizes)
    return arguments, form.tiles(all_blocks, case.outputs, tiling), form.scratch(case.depth, tiling)


def _tolerance(expected: Array) -> float:
    return 3e-5 * float(np.abs(expected).max(initial=0.0))


@pytest.mark.parametrize("block", BLOCKS)
@pytest.mark.parametrize("case", CASES, ids=str)
def test_convolution(case: Case, block: int) -> None:
    form = _form(case, block)
    if form not in COMPILED:
        COMPILED[form] = CompiledKernel(winograd_source(form, store_epilogue(FLOAT32, dense=True)))
    x, w, y = _operands(case)
    expected = _expected(x, w, case)
    rows = form.tile.rows
    for tiling in (Tiling(rows, 1), Tiling(2 * rows, 2), Tiling(rows, 3)):
        y[...] = np.nan
        arguments, tiles, scratch = _arguments(case, form, tiling, x, w, y)
        assert COMPILED[form](arguments, tiles, scratch, cuts=[tiles // 2]) == 0
        np.testing.assert_allclose(y, expected, rtol=0, atol=_tolerance(expected))


@pytest.mark.parametrize("block", BLOCKS)
def test_text_runs_uncompiled(block: int) -> None:
    case = Case(2, (5, 7), 1, 20)
    form = _form(case, block)
    x, w, y = _operands(case)
    arguments, tiles, scratch = _arguments(case, form, Tiling(form.tile.rows, 1), x, w, y)
    assert run_uncompiled(winograd_source(form, store_epilogue(FLOAT32)), arguments, tiles, scratch) == 0
    expected = _expected(x, w, case)
    np.testing.assert_allclose(y, expected, rtol=0, atol=_tolerance(expected))


def test_neither_other_images_nor_the_tiling_change_bits() -> None:
    case = Case(3, (13, 9), 2, 33)
    form = _form(case, 4)
    x, w, y = _operands(case)
    kernel = CompiledKernel(winograd_source(form, store_epilogue(FLOAT32)))
    rows = form.tile.rows
    assert kernel(*_arguments(case, form, Tiling(2 * rows, 2), x, w, y)) == 0
    one = Case(1, case.size, case.channels, case.outputs)
    alone = aligned((1, *case.out, case.outputs))
    assert kernel(*_arguments(one, form, Tiling(rows, 1), x[1:2].copy(), w, alone)) == 0
    np.testing.assert_array_equal(alone[0], y[1])


def test_tilings_leave_no_core_idle_and_need_bounded_memory() -> None:
    for blocks in (1, 4, 16, 49, 196, 3136, None):
        for channels, outputs in ((16, 32), (64, 64), (512, 512), (2048, 33)):
            form = WinogradForm(tile_shape(HOST, "float32", outputs), 4, False)
            tiling = winograd_tiling(form, blocks, outputs, channels, HOST)
            assert tiling.rows % form.tile.rows == 0
            assert 1 <= tiling.panels <= -(-outputs // form.tile.columns)
            if blocks is not None and blocks > form.tile.rows * HOST.cores:
                assert form.tiles(blocks, outputs, tiling) >= HOST.cores
            assert tiling.rows <= 8 * form.tile.rows


def test_few_or_odd_channels_and_small_images_stay_direct() -> None:
    assert winograd_block(HOST, 64, 64, 56, 56, 4) == 4
    assert winograd_block(HOST, 3, 64, 224, 224, 4) == 0
    assert winograd_block(HOST, 8 * LANES + 1, 64, 56, 56, 4) == 0
    assert winograd_block(HOST, 512, 512, 4, 4, 4) == 0
