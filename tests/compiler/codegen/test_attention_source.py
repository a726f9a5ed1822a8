from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from contraction_harness import HOST, CompiledKernel, aligned, run_uncompiled

from onnxsmith_compiler.codegen.attention_form import AttentionForm, attention_rows_per_tile
from onnxsmith_compiler.codegen.attention_source import attention_source
from onnxsmith_compiler.codegen.epilogue import Mask, masked_score
from onnxsmith_compiler.codegen.tile_shapes import tile_shape
from onnxsmith_compiler.ir.dtype import FLOAT32, FLOAT64

RNG = np.random.default_rng(13)


@dataclass(frozen=True)
class Case:
    batch: int
    heads: int
    queries: int
    keys: int
    depth: int
    width: int
    heads_per_key: int = 1
    dtype: str = "float32"
    mask: bool = False
    causal: bool = False
    past: int = 0
    softcap: float | None = None


CASES = [
    Case(2, 3, 17, 17, 16, 16),
    Case(1, 2, 33, 40, 64, 64, mask=True),
    Case(1, 1, 1, 1, 1, 1),
    Case(1, 2, 1, 70, 20, 48, mask=True),
    Case(2, 4, 5, 9, 7, 33, heads_per_key=2),
    Case(1, 2, 30, 30, 32, 32, causal=True),
    Case(1, 2, 18, 31, 16, 24, causal=True, past=13, mask=True),
    Case(1, 1, 50, 129, 8, 40, softcap=2.5),
    Case(1, 2, 16, 20, 24, 24, dtype="float64", mask=True),
    Case(1, 2, 16, 37, 24, 24, dtype="float16"),
    Case(1, 2, 20, 33, 16, 24, dtype="bfloat16", causal=True, past=13),
]


def _rows(shape: tuple[int, ...], dtype: str) -> Any:
    kind = ml_dtypes.bfloat16 if dtype == "bfloat16" else np.dtype(dtype)
    return RNG.standard_normal(shape).astype(kind)


def _problem(case: Case, rows_per_tile: int | None = None) -> tuple[Any, Any, Any, int, int, Any, Any]:
    """(form, source, arguments, tiles, scratch, output, expected output).

    Q, K and V lie as [batch, row, head, element], with a head too many before those that are used.
    """
    compute = FLOAT64 if case.dtype == "float64" else FLOAT32
    tile = tile_shape(HOST, compute.name)
    form = AttentionForm(tile, case.dtype, 3, 0.25, case.causal)
    score = masked_score(compute, 3, [Mask(compute.name, 1)] if case.mask else [], case.softcap)
    source = attention_source(form, score)
    key_heads = case.heads // case.heads_per_key
    q = _rows((case.batch, case.queries, case.heads + 1, case.depth), case.dtype)
    k = _rows((case.batch, case.keys, key_heads + 1, case.depth), case.dtype)
    v = _rows((case.batch, case.keys, key_heads + 1, case.width), case.dtype)
    mask = _rows((case.batch, 1, case.queries, case.keys), compute.name)
    mask[:, :, :, : case.keys // 3] = np.finfo(compute.storage).min
    y = aligned((case.batch, case.heads, case.queries, case.width), q.dtype)
    y[...] = np.nan
    strides = []
    for tensor, shared in ((q, 1), (k, 0), (v, 0)):
        *_, rows, heads, size = tensor.shape
        group = case.heads_per_key if shared else 1
        strides += [size, rows * heads * size, group * size, shared * size, heads * size]
    product = case.queries * case.width
    strides += [0, case.heads * product, case.heads_per_key * product, product, case.width]
    mask_arguments = (mask, 0, case.queries * case.keys, 0, 0, case.keys) if case.mask else ()
    products = case.batch * case.heads
    rows_per_tile = rows_per_tile or attention_rows_per_tile(form, products, case.queries, HOST)
    arguments = (
        *(q, k, v, *mask_arguments, y, case.batch, key_heads, case.heads_per_key),
        *(case.queries, case.keys, case.depth, case.width, *strides),
        *((case.past,) if case.causal else ()),
        rows_per_tile,
    )
    tiles = form.tiles(products, case.queries, rows_per_tile)
    return (
        *(form, source, arguments, tiles, form.scratch(case.keys, case.depth, case.width)),
        *(y, _expected(case, q[:, :, 1:], k[:, :, 1:], v[:, :, 1:], mask)),
    )


def _expected(case: Case, q: Any, k: Any, v: Any, mask: Any) -> Any:
    q, k, v = (np.moveaxis(tensor.astype(np.float64), 1, 2) for tensor in (q, k, v))
    k, v = (np.repeat(tensor, case.heads_per_key, 1) for tensor in (k, v))
    scores = q @ np.swapaxes(k, -1, -2) * 0.25
    if case.softcap is not None:
        scores = case.softcap * np.tanh(scores / case.softcap)
    if case.mask:
        scores = scores + mask.astype(np.float64)
    if case.causal:
        position = np.arange(case.queries)[:, None] + case.past
        scores = np.where(np.arange(case.keys)[None, :] <= position, scores, -np.inf)
    with np.errstate(invalid="ignore"):
        weights = np.exp(scores - scores.max(-1, keepdims=True))
    return weights / weights.sum(-1, keepdims=True) @ v


@pytest.mark.parametrize("case", CASES, ids=str)
def test_attention(case: Case) -> None:
    _, source, arguments, tiles, scratch, y, expected = _problem(case)
    kernel = CompiledKernel(source)
    assert kernel(arguments, tiles, scratch, cuts=[tiles // 2]) == 0
    rtol = {"float16": 2e-3, "bfloat16": 2e-2}.get(case.dtype, 1e-4)
    np.testing.assert_allclose(y.astype(np.float64), expected, rtol=rtol, atol=max(2e-5, rtol / 100))
    first = y.copy()
    y[...] = np.nan
    few_rows = tile_shape(HOST, "float32").rows
    arguments = (*arguments[:-1], few_rows)
    tiles = case.batch * case.heads * -(-case.queries // few_rows)
    assert kernel(arguments, tiles, scratch) == 0
    np.testing.assert_array_equal(y, first)


@pytest.mark.parametrize("index", [3, 6])
def test_text_runs_uncompiled(index: int) -> None:
    _, source, arguments, tiles, scratch, y, expected = _problem(CASES[index])
    assert run_uncompiled(source, arguments, tiles, scratch) == 0
    np.testing.assert_allclose(y, expected, rtol=1e-4, atol=2e-5)


def test_panels_of_keys_are_filled_to_their_end() -> None:
    case = Case(1, 1, 20, 37, 16, 16)
    form, source, arguments, tiles, scratch, _, _ = _problem(case)
    kernel = CompiledKernel(source)
    assert kernel(arguments, tiles, scratch) == 0
    tile = form.tile
    depth_pitch, key_pitch = eval(form.pitch("16")), eval(form.pitch("37"))
    first = form.header_bytes // 4 + form.staged_rows * depth_pitch + tile.rows * key_pitch
    panels = -(-case.keys // tile.columns)
    assert not np.isnan(kernel.scratch.view(np.float32)[first:][: panels * tile.columns * case.depth]).any()


def test_a_query_without_keys_gives_zeros() -> None:
    case = Case(1, 1, 4, 4, 8, 8, causal=True, past=-2)
    _, source, arguments, tiles, scratch, y, _ = _problem(case)
    assert CompiledKernel(source)(arguments, tiles, scratch) == 0
    np.testing.assert_array_equal(y[0, 0, :2], 0)
    v = arguments[2]
    np.testing.assert_allclose(y[0, 0, 2], v[0, 0, 1], rtol=1e-6)


def test_not_a_number_goes_through() -> None:
    _, source, arguments, tiles, scratch, y, _ = _problem(CASES[0])
    arguments[0][0, 2, 1, 3] = np.nan
    assert CompiledKernel(source)(arguments, tiles, scratch) == 0
    assert np.isnan(y[0, 0, 2]).all()
    assert not np.isnan(y[0, 0, 3]).any()


def test_few_heads_are_cut_into_tiles_for_all_cores() -> None:
    form = AttentionForm(tile_shape(HOST, "float32"), "float32")
    rows = attention_rows_per_tile(form, 1, 2048, HOST)
    assert form.tiles(1, 2048, rows) >= 2 * HOST.cores
