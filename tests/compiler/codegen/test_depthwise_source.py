from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
from contraction_harness import HOST, CompiledKernel, aligned, run_uncompiled
from tests.compiler.codegen.packing import pack_depthwise

from onnxsmith_compiler.codegen.depthwise_row_source import DepthwiseRowForm
from onnxsmith_compiler.codegen.depthwise_row_tile import DEPTHWISE_ROW_SHAPES, DEPTHWISE_ROW_TILES, depthwise_row_shape
from onnxsmith_compiler.codegen.depthwise_source import DepthwiseForm, depthwise_form
from onnxsmith_compiler.codegen.depthwise_tile import DEPTHWISE_SHAPES, DEPTHWISE_TILES, depthwise_shape
from onnxsmith_compiler.codegen.epilogue import store_epilogue
from onnxsmith_compiler.codegen.tiling import Tiling
from onnxsmith_compiler.ir.dtype import BY_NAME, FLOAT32

COMPILED: dict[Any, CompiledKernel] = {}

# batch, spatial sizes, channels, window, strides, dilations, padding before, after
CASES = [
    (2, (7, 9), 32, (3, 3), (1, 1), (1, 1), (1, 1), (1, 1)),
    (1, (8, 5), 100, (3, 3), (2, 2), (1, 1), (0, 1), (1, 1)),
    (1, (3, 3), 1, (3, 3), (1, 1), (1, 1), (1, 1), (1, 1)),
    (3, (6, 6), 17, (5, 5), (1, 2), (1, 1), (2, 2), (2, 2)),
    (1, (9, 9), 65, (3, 3), (1, 1), (2, 3), (2, 3), (2, 3)),
    (2, (11,), 48, (4,), (3,), (2,), (1,), (2,)),
    (1, (15, 16), 70, (7, 7), (1, 1), (1, 1), (3, 3), (3, 3)),
    (2, (9, 30), 33, (7, 7), (2, 2), (1, 1), (3, 3), (3, 2)),
    (1, (6, 23), 32, (5, 5), (1, 1), (3, 1), (6, 2), (6, 2)),
    (1, (1, 20), 16, (1, 5), (1, 2), (1, 1), (0, 2), (0, 2)),
    (2, (33,), 20, (3,), (2,), (1,), (1,), (1,)),
    (1, (3, 4, 16), 24, (2, 3, 3), (1, 2, 1), (1, 1, 1), (1, 1, 1), (0, 1, 1)),
    (1, (4, 5, 6), 40, (2, 3, 2), (1, 2, 1), (1, 1, 2), (1, 1, 0), (0, 1, 2)),
]


def _expected(x: Any, w: Any, case: Any, out: tuple[int, ...]) -> Any:
    batch, _, channels, window, strides, dilations, before, after = case
    padded = np.pad(x.astype(np.float64), [(0, 0), *zip(before, after, strict=True), (0, 0)])
    result = np.zeros((batch, *out, channels))
    for tap in itertools.product(*map(range, window)):
        parts = zip(tap, dilations, strides, out, strict=True)
        region = tuple(slice(t * d, t * d + s * (n - 1) + 1, s) for t, d, s, n in parts)
        result += padded[(slice(None), *region)] * w[(slice(None), 0, *tap)]
    return result


def _problem(case: Any, dtype: str, tiling: Tiling | None = None, *, generic: bool = False) -> Any:
    """(form, arguments, tiles, scratch, output, expected output)."""
    batch, size, channels, window, strides, dilations, before, after = case
    parts = zip(size, window, strides, dilations, before, after, strict=True)
    out = tuple((n + b + a - d * (w - 1) - 1) // s + 1 for n, w, s, d, b, a in parts)
    rng = np.random.default_rng(5)
    x = rng.standard_normal((batch, *size, channels)).astype(dtype)
    w = rng.standard_normal((channels, 1, *window)).astype(dtype)
    y = aligned((batch, *out, channels), dtype)
    y[...] = np.nan
    form = depthwise_form(HOST, dtype, channels, window, strides, dilations)
    if generic:
        form = DepthwiseForm(depthwise_shape(HOST, dtype), window, None)
    pixels = batch * int(np.prod(out))
    tiling = tiling or form.tiling((batch, *out), channels, HOST)
    geometry = itertools.chain.from_iterable(zip(size, out, window, strides, dilations, before, strict=True))
    arguments = (
        x,
        pack_depthwise(w),
        y,
        channels,
        0,
        pixels,
        channels,
        *geometry,
        tiling.rows,
        tiling.panels,
    )
    tiles, scratch = form.tiles((batch, *out), channels, tiling), form.scratch(channels, tiling)
    return form, arguments, tiles, scratch, y, _expected(x, w, case, out)


@pytest.mark.parametrize("case", CASES, ids=str)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_depthwise_convolution(case: Any, dtype: str) -> None:
    for tiling in (None, Tiling(6, 1), Tiling(18, 2)):
        form, arguments, tiles, scratch, y, expected = _problem(case, dtype, tiling)
        if form not in COMPILED:
            COMPILED[form] = CompiledKernel(form.source(store_epilogue(BY_NAME[dtype])))
        assert COMPILED[form](arguments, tiles, scratch, cuts=[tiles // 3]) == 0
        np.testing.assert_allclose(y, expected, rtol=1e-5, atol=1e-5)


def test_both_kernels_give_the_same_bits() -> None:
    results = []
    for generic in (False, True):
        form, arguments, tiles, scratch, y, _ = _problem(CASES[0], "float32", generic=generic)
        assert isinstance(form, DepthwiseForm if generic else DepthwiseRowForm)
        assert CompiledKernel(form.source(store_epilogue(FLOAT32)))(arguments, tiles, scratch) == 0
        results.append(y)
    np.testing.assert_array_equal(*results)


@pytest.mark.parametrize("index", [0, 2, 4, 5])
def test_text_runs_uncompiled(index: int) -> None:
    form, arguments, tiles, scratch, y, expected = _problem(CASES[index], "float32")
    assert run_uncompiled(form.source(store_epilogue(FLOAT32)), arguments, tiles, scratch) == 0
    np.testing.assert_allclose(y, expected, rtol=1e-5, atol=1e-5)


def test_nothing_past_the_last_channel_is_read() -> None:
    """The image ends where memory may not be read: a page without access follows it."""
    import ctypes
    import mmap

    page = mmap.PAGESIZE
    memory = mmap.mmap(-1, 2 * page)
    start = ctypes.addressof(ctypes.c_char.from_buffer(memory))
    libc = ctypes.CDLL(None, use_errno=True)
    assert libc.mprotect(ctypes.c_void_p(start + page), ctypes.c_size_t(page), 0) == 0
    case = (1, (2, 2), 19, (1, 1), (1, 1), (1, 1), (0, 0), (0, 0))
    form, arguments, tiles, scratch, y, _ = _problem(case, "float32", None)
    source = arguments[0]
    count = source.size
    at_end = np.frombuffer(memory, np.float32, count, page - 4 * count).reshape(source.shape)
    at_end[...] = source
    kernel = CompiledKernel(form.source(store_epilogue(FLOAT32)))
    assert kernel((at_end, *arguments[1:]), tiles, scratch) == 0
    np.testing.assert_array_equal(y[0, 1, 1], at_end[0, 1, 1] * arguments[1].reshape(-1))


def test_row_tiles_are_for_common_windows() -> None:
    assert depthwise_row_shape(HOST, "float32", 3, 1, 1) is not None
    assert depthwise_row_shape(HOST, "float32", 7, 2, 1) is not None
    assert depthwise_row_shape(HOST, "float32", 3, 1, 2) is None
    assert depthwise_row_shape(HOST, "float32", 3, 3, 1) is None
    assert depthwise_row_shape(HOST, "float64", 3, 1, 1) is None


def test_names_are_those_of_the_table() -> None:
    assert set(DEPTHWISE_ROW_TILES) == {shape.name for shape in DEPTHWISE_ROW_SHAPES}
    assert set(DEPTHWISE_TILES) == {shape.name for shape in DEPTHWISE_SHAPES}
