"""Layouts of trees, walked by printed kernels uncompiled, beside a plain walk of the nodes as the model has them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from tests.graphs import Sketch

from onnxsmith_compiler.ops import tree_layout
from onnxsmith_compiler.ops.tree_layout import Entries, Layout, lay_out
from onnxsmith_compiler.ops.tree_nodes import (
    EQ,
    GT,
    GTE,
    LEAF,
    LEQ,
    LT,
    MEMBER,
    NEQ,
    Comparisons,
    TreeError,
    below,
    nodes_of,
    ranges,
    trees_of,
)
from onnxsmith_compiler.ops.trees import Aggregate

Array = np.ndarray[Any, np.dtype[Any]]
FEATURES = 3
MODES = (LEQ, LT, GTE, GT, EQ, NEQ, MEMBER)
COMBINE: dict[str, Callable[[list[float]], float]] = {
    "sum": sum,
    "min": lambda values: min(values, default=np.inf),
    "max": lambda values: max(values, default=-np.inf),
}


def random_tests(seed: int, trees: int, dtype: Any, modes: tuple[int, ...] = MODES) -> tuple[Comparisons, Array]:
    """Full binary trees of random depth; nodes of a tree stand in order of their levels."""
    random = np.random.default_rng(seed)
    rows: list[tuple[int, int, int]] = []
    roots = []
    for _ in range(trees):
        first, inner = len(rows), int(random.choice([0, 1, 3, 7, 15]))
        roots.append(first)
        for node in range(2 * inner + 1):
            is_inner = node < inner
            children = (first + 2 * node + 1, first + 2 * node + 2) if is_inner else (-1, -1)
            rows.append((int(random.choice(modes)) if is_inner else LEAF, *children))
    mode, true, false = np.array(rows).T
    count = len(rows)
    split = random.choice([-1.0, 0.0, 0.5, 2.0], count).astype(dtype)
    members = {
        int(node): random.choice([-1.0, 0.0, 0.5, 2.0, 3.0], random.integers(5)).astype(dtype)
        for node in np.nonzero(mode == MEMBER)[0]
    }
    tracks = random.random(count) < 0.5
    return Comparisons(mode, random.integers(FEATURES, size=count), split, tracks, true, false, members), np.array(
        roots
    )


def reached(tests: Comparisons, node: int, row: Array) -> int:
    """The leaf where a row ends."""
    while tests.true[node] >= 0:
        x, split = row[tests.feature[node]], tests.split[node]
        holds = {
            LEQ: x <= split, LT: x < split, GTE: x >= split, GT: x > split, EQ: x == split, NEQ: x != split,
            MEMBER: x in tests.members.get(node, ()),
        }[int(tests.mode[node])]  # fmt: skip
        node = int(tests.true[node] if holds or (np.isnan(x) and tests.tracks[node]) else tests.false[node])
    return node


def expected(tests: Comparisons, roots: Array, entries: Entries, aggregate: str, targets: int, x: Array) -> Array:
    result = np.zeros((len(x), targets))
    for number, row in enumerate(x):
        leaves = [reached(tests, int(root), row) for root in roots]
        for target in range(targets):
            found = [
                value for leaf in leaves for value in entries.value[(entries.leaf == leaf) & (entries.target == target)]
            ]
            result[number, target] = COMBINE[aggregate](found)
    return result.astype(x.dtype)


def check(tests: Comparisons, roots: Array, entries: Entries, aggregate: Aggregate, targets: int, x: Array) -> Layout:
    layout = lay_out(nodes_of(tests), roots, entries, aggregate, targets, FEATURES)
    sides = [x] * layout.positive + [-x] * layout.negative
    sketch = Sketch()
    operands = [sketch.builder.constant(operand) for operand in layout.operands]
    sketch.output(sketch.emit(layout.op, sketch.fed(np.concatenate(sides, 1), "n"), *operands))
    sketch.check(expected(tests, roots, entries, aggregate, targets, x))
    return layout


def some_rows(dtype: Any, count: int = 11) -> Array:
    random = np.random.default_rng(count)
    return random.choice([-1.0, 0.0, 0.5, 0.75, 2.0, -0.0, np.nan, np.inf, -np.inf], (count, FEATURES)).astype(dtype)


def weights(tests: Comparisons, roots: Array, form: str, dtype: Any) -> tuple[Entries, int]:
    random = np.random.default_rng(7)
    (leaves,) = np.nonzero(tests.mode == LEAF)
    tree = np.searchsorted(roots, leaves, "right") - 1
    if form == "single":
        leaf, target, targets = leaves, tree % 2, 2
    elif form == "dense":
        leaf, target, targets = np.repeat(leaves, 3), np.tile(np.arange(3), len(leaves)), 3
    else:
        leaf, target, targets = np.repeat(leaves, 2), random.integers(40, size=2 * len(leaves)), 40
    return Entries(leaf, target, random.normal(size=len(leaf)).astype(dtype)), targets


@pytest.mark.parametrize("aggregate", ["sum", "min", "max"])
@pytest.mark.parametrize("form", ["single", "dense", "sparse"])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_walks_end_where_the_model_says(
    form: str, aggregate: Aggregate, dtype: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tree_layout, "_DENSE_BYTES", 0)
    tests, roots = random_tests(1, 11, dtype)
    entries, targets = weights(tests, roots, form, dtype)
    layout = check(tests, roots, entries, aggregate, targets, some_rows(dtype))
    assert layout.op.leaves == form
    assert layout.op.narrow == (dtype is np.float32)
    assert layout.positive and layout.negative


@pytest.mark.parametrize("mode", MODES)
def test_tests_of_one_kind(mode: int) -> None:
    tests, roots = random_tests(2, 9, np.float32, (mode,))
    entries, targets = weights(tests, roots, "single", np.float32)
    check(tests, roots, entries, "sum", targets, some_rows(np.float32, 20))


def test_only_turned_comparisons_need_no_second_set_of_columns() -> None:
    tests, roots = random_tests(3, 9, np.float32, (LEQ,))
    tracking = Comparisons(
        tests.mode, tests.feature, tests.split, np.ones(len(tests.mode), bool), tests.true, tests.false
    )
    entries, targets = weights(tests, roots, "single", np.float32)
    layout = check(tracking, roots, entries, "sum", targets, some_rows(np.float32))
    assert (layout.positive, layout.negative) == (False, True)


def test_shared_nodes_are_walked_from_every_parent() -> None:
    """Twelve levels of two nodes, each of which leads to both of the next level: 4096 ways, 25 nodes."""
    levels = 12
    true = [1, *(3 + 2 * (node // 2) for node in range(2 * levels - 2)), -1, -1]
    count = len(true)
    random = np.random.default_rng(0)
    inner = np.array(true) >= 0
    tests = Comparisons(
        np.where(inner, GT, LEAF),
        random.integers(FEATURES, size=count),
        random.choice([0.0, 0.5, -1.0], count).astype(np.float32),
        np.zeros(count, bool),
        np.array(true),
        np.where(inner, np.array(true) + 1, -1),
    )
    roots = np.array([0, 0, 1])
    assert trees_of(tests, roots) is None
    leaves = np.nonzero(~inner)[0]
    entries = Entries(leaves, np.zeros(2, np.int64), np.array([1.0, 10.0], np.float32))
    layout = check(tests, roots, entries, "sum", 1, some_rows(np.float32))
    assert len(layout.operands[0]) <= 2 * count + len(roots) + 1


def test_a_cycle_is_refused() -> None:
    true, false = np.array([1, 2, -1]), np.array([2, 0, -1])
    zeros = np.zeros(3, np.int64)
    tests = Comparisons(np.array([LEQ, LEQ, LEAF]), zeros, zeros.astype(np.float32), zeros != 0, true, false)
    assert trees_of(tests, np.array([0])) is None
    with pytest.raises(TreeError, match="cycle"):
        nodes_of(tests)


def test_below_is_the_next_smaller_number() -> None:
    values = np.array([1.0, 0.0, -0.0, np.inf, -np.inf, np.nan], np.float32)
    found = below(values)
    assert found.dtype == np.float32
    assert found[0] < 1 and np.nextafter(found[0], np.float32(2)) == 1
    assert (found[1:3] == -np.float32(1e-45)).all()
    assert found[3] == np.finfo(np.float32).max
    assert np.isnan(found[4:]).all()


def test_ranges() -> None:
    assert ranges(np.array([3, 5, 9]), np.array([5, 5, 12])).tolist() == [3, 4, 9, 10, 11]
    assert ranges(np.zeros(0, np.int64), np.zeros(0, np.int64)).tolist() == []
