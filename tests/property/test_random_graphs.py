"""Random graphs against onnx's reference evaluator, and against themselves: threads, batches, optimisation."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import onnx.printer
import pytest
from hypothesis import HealthCheck, Phase, assume, given, note, settings
from hypothesis import strategies as st
from onnx.reference import ReferenceEvaluator

from onnxsmith_compiler.options import CompileOptions
from tests.compiling import Compiler, executor_of, run_named
from tests.property.graphs import Array, Draft, Real, elements, rounded
from tests.property.operators import draw_graph

_MOST_ELEMENTS = 200_000
_SIZES = (0, 1, 2, 3, 5, 17, 64)
_TRUST = 64
"""How many times the error of a single precision reference a result may have."""
_ROUNDINGS = 16
"""How many units in the last place of the largest element a result may be off where the reference is not."""

NARROW = (np.float16, ml_dtypes.bfloat16)

_FEW = settings(
    max_examples=25,
    deadline=None,
    derandomize=True,
    database=None,
    phases=[Phase.generate],  # a failure is printed as a model of a few nodes: shrinking it takes minutes
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow, HealthCheck.data_too_large],
)
_MANY = settings(_FEW, max_examples=1000, derandomize=False)


@pytest.fixture(scope="module")
def compiler(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Compiler]:
    cache = os.environ.get("ONNXSMITH_CACHE_DIR") or tmp_path_factory.mktemp("kernels")
    with Compiler(Path(cache), workers=2) as running:
        yield running


@st.composite
def drafts(draw: Any, batch: str = "", narrow: bool = False) -> Draft:
    draft = Draft(draw, ("m",) if batch else ("n", "m"), batch, narrow=narrow)
    draw_graph(draft, nodes=14)
    assume(draft.outputs)
    return draft


def run_sizes(draft: Draft) -> st.SearchStrategy[dict[str, int]]:
    names = (*draft.symbols, draft.batch) if draft.batch else draft.symbols
    return st.fixed_dictionaries({name: st.sampled_from(_SIZES) for name in names})


def reference(draft: Draft, real: Real, feed: Mapping[str, Array]) -> Sequence[Array] | None:
    """What the reference evaluator gives, None where it cannot (it fails for some tensors of size 0 and of rank 0)."""
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")
        try:
            return [np.asarray(result) for result in ReferenceEvaluator(draft.model(real)).run(None, dict(feed))]
        except (ArithmeticError, IndexError, RuntimeError, TypeError, ValueError):
            return None


def assert_close(found: Array, wide: Array, narrow: Array, real: Real, name: str) -> None:
    """`found`, computed in `real`, is as near to the double precision result as the reference's in it lets expect."""
    assert found.shape == wide.shape, name
    if found.dtype.kind in "biu":
        np.testing.assert_array_equal(found, narrow, err_msg=name)
        return
    assert found.dtype == real, name
    found, narrow = found.astype(np.float64), narrow.astype(np.float64)
    limits = ml_dtypes.finfo(real)
    # elsewhere the type overflows, or may
    trusted = (np.isfinite(narrow) == np.isfinite(wide)) & ~(np.abs(wide) > float(limits.max) / 4)
    finite = trusted & np.isfinite(wide)
    same = (found == narrow) | (np.isnan(found) & np.isnan(narrow))
    assert np.all(same | finite | ~trusted), f"{name}: {found} is not {narrow}"
    scale = np.where(finite, np.abs(wide), 0.0)
    with np.errstate(invalid="ignore"):
        noise = np.max(np.abs(np.where(finite, wide - narrow, 0.0)), initial=0.0)
    allowed = _TRUST * noise + _ROUNDINGS * float(limits.eps) * (scale + np.max(scale, initial=0.0))
    with np.errstate(invalid="ignore"):
        wrong = finite & ~(np.abs(found - wide) <= allowed)
    assert not np.any(wrong), f"{name}: {found[wrong][:4]}, expected {wide[wrong][:4]}, allowed {allowed}"


def assert_identical(a: Array, b: Array, name: str) -> None:
    """The same bits, NaN included."""
    assert a.dtype == b.dtype, name
    assert a.shape == b.shape, name
    assert a.tobytes() == b.tobytes(), f"{name}: {a} and {b} differ"


def check_against_reference(
    draft: Draft, runs: Sequence[tuple[dict[str, int], int, float]], compiler: Compiler, real: Real = np.float32
) -> None:
    model = draft.model(real)
    note(onnx.printer.to_text(model))
    optimised = compiler.compile(model)
    one, two = executor_of(optimised, 1), executor_of(optimised, 2)
    plain = executor_of(compiler.compile(model, CompileOptions(optimization_level=0)), 2)
    for sizes, seed, special in runs:
        if elements(draft, sizes) > _MOST_ELEMENTS:
            continue
        feed = draft.feed(sizes, seed, special)
        note(f"{sizes} {seed} {special}")
        results = run_named(one, rounded(feed, real))
        simple = run_named(plain, rounded(feed, real))
        for output, a, b in zip(draft.outputs, results, run_named(two, rounded(feed, real)), strict=True):
            assert_identical(a, b, f"{output} with 1 and 2 threads")
        wide, narrow = reference(draft, np.float64, feed), reference(draft, real, rounded(feed, real))
        if wide is None or narrow is None:
            continue
        for output, found, level0, a, b in zip(draft.outputs, results, simple, wide, narrow, strict=True):
            assert_close(found, a, b, real, f"{output}")
            assert_close(level0, a, b, real, f"{output}, not optimised")


def check_rows(draft: Draft, rows: int, seed: int, compiler: Compiler, other: int) -> None:
    """Every row of a batch has the bits that it has alone."""
    model = draft.model(np.float32)
    note(onnx.printer.to_text(model))
    executor = executor_of(compiler.compile(model), 2)
    sizes = {draft.batch: rows, "m": other}
    assume(elements(draft, sizes) <= _MOST_ELEMENTS)
    feed = rounded(draft.feed(sizes, seed, 0.02), np.float32)
    together = run_named(executor, feed)
    for row in sorted({0, rows // 2, rows - 1}):
        alone = run_named(executor, {name: value[row : row + 1] for name, value in feed.items()})
        for output, batch, one in zip(draft.outputs, together, alone, strict=True):
            assert_identical(batch[row : row + 1], one, f"{output} of row {row}")


def runs_of(data: Any, draft: Draft) -> list[tuple[dict[str, int], int, float]]:
    run = st.tuples(run_sizes(draft), st.integers(0, 1000), st.sampled_from((0.0, 0.0, 0.1)))
    return [data.draw(run) for _ in range(3)]


@_FEW
@given(st.data())
def test_a_few_graphs(compiler: Compiler, data: Any) -> None:
    draft = data.draw(drafts())
    check_against_reference(draft, runs_of(data, draft), compiler)


@pytest.mark.parametrize("real", NARROW)
@settings(_FEW, max_examples=12)
@given(data=st.data())
def test_a_few_graphs_of_narrow_floats(compiler: Compiler, data: Any, real: Real) -> None:
    draft = data.draw(drafts(narrow=True))
    check_against_reference(draft, runs_of(data, draft), compiler, real)


@_FEW
@given(st.data())
def test_rows_of_a_few_batches(compiler: Compiler, data: Any) -> None:
    draft = data.draw(drafts(batch="b"))
    check_rows(draft, data.draw(st.integers(2, 20)), data.draw(st.integers(0, 1000)), compiler, data.draw(_OTHER))


_OTHER = st.sampled_from((1, 3, 17))


@pytest.mark.slow
@_MANY
@given(st.data())
def test_many_graphs(compiler: Compiler, data: Any) -> None:
    draft = data.draw(drafts())
    check_against_reference(draft, runs_of(data, draft), compiler)


@pytest.mark.slow
@pytest.mark.parametrize("real", NARROW)
@_MANY
@given(data=st.data())
def test_many_graphs_of_narrow_floats(compiler: Compiler, data: Any, real: Real) -> None:
    draft = data.draw(drafts(narrow=True))
    check_against_reference(draft, runs_of(data, draft), compiler, real)


@pytest.mark.slow
@_MANY
@given(st.data())
def test_rows_of_many_batches(compiler: Compiler, data: Any) -> None:
    draft = data.draw(drafts(batch="b"))
    check_rows(draft, data.draw(st.integers(2, 20)), data.draw(st.integers(0, 1000)), compiler, data.draw(_OTHER))
