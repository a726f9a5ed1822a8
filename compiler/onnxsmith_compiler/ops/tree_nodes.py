"""Decision trees as models describe them, and as nodes of one kind of test each: at most a bound, or above it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

Integers = npt.NDArray[np.int64]
Floats = npt.NDArray[np.floating]

LEQ, LT, GTE, GT, EQ, NEQ, MEMBER, LEAF = range(8)
"""Tests of a feature against the node's split, or its members. The first seven are TreeEnsemble's codes."""


class TreeError(ValueError):
    """Trees that cannot be walked; the message says which node is wrong."""


@dataclass(frozen=True, eq=False)
class Comparisons:
    """The nodes of all trees, one element of each array a node.

    A node goes to `true` where its test (`mode`) of `feature` against `split` holds, else to `false`; a NaN goes to
    `true` where `tracks` is set. Both are -1 at leaves. `members` are the values of each MEMBER node.
    """

    mode: Integers
    feature: Integers
    split: Floats
    tracks: npt.NDArray[np.bool_]
    true: Integers
    false: Integers
    members: Mapping[int, Floats] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class Nodes:
    """Nodes that go to `low` where a feature is at most `bound`, to `high` where it is above, and at a NaN to `low`
    where `nan_low` is set, else to `high`. Nothing is at most a bound of NaN. Both are -1 at leaves.

    `height`: the steps of the longest way to a leaf.
    """

    feature: Integers
    bound: Floats
    nan_low: npt.NDArray[np.bool_]
    low: Integers
    high: Integers
    height: Integers

    @property
    def is_leaf(self) -> npt.NDArray[np.bool_]:
        return self.low < 0


def trees_of(tests: Comparisons, roots: Integers) -> Integers | None:
    """The number of the tree that each node belongs to, -1 for those of none; None where a node has two parents."""
    tree = np.full(len(tests.mode), -1)
    level, owner = roots, np.arange(len(roots))
    while len(level):
        if (tree[level] >= 0).any() or len(np.unique(level)) < len(level):
            return None
        tree[level] = owner
        inner = tests.true[level] >= 0
        parents, owner = level[inner], np.repeat(owner[inner], 2)
        level = np.stack([tests.true[parents], tests.false[parents]], 1).reshape(-1)
    return tree


def below(values: Floats) -> Floats:
    """The next smaller number of each: x < t is x <= below(t). NaN for -inf and NaN."""
    smaller = np.nextafter(values, values.dtype.type(-np.inf))
    return np.where(np.isneginf(values), values.dtype.type(np.nan), smaller)


def nodes_of(tests: Comparisons) -> Nodes:
    """The same trees of one kind of test; node i remains node i. Raises TreeError where children form a cycle."""
    (equal,) = np.nonzero(np.isin(tests.mode, (EQ, NEQ)))
    members = {node: np.unique(values) for node, values in tests.members.items()}
    table = _Table(tests, len(equal) + sum(max(0, 3 * len(values) - 2) for values in members.values()))
    _compare(table, tests)
    _equal(table, tests, equal)
    for node, values in members.items():
        _member(table, tests, node, values)
    height = _heights(table.low, table.high)
    return Nodes(table.feature, table.bound, table.nan_low, table.low, table.high, height)


class _Table:
    """Nodes' fields, with room for `more` behind those of `tests`: equality and membership take several each."""

    def __init__(self, tests: Comparisons, more: int) -> None:
        self.count = len(tests.mode)
        self.feature = np.concatenate([tests.feature, np.zeros(more, np.int64)])
        self.bound = np.concatenate([tests.split, np.zeros(more, tests.split.dtype)])
        self.nan_low = np.concatenate([tests.tracks, np.zeros(more, bool)])
        self.low = np.concatenate([tests.true, np.full(more, -1)])
        self.high = np.concatenate([tests.false, np.full(more, -1)])

    def add(self, features: Integers) -> Integers:
        """New nodes that test these features."""
        new = np.arange(self.count, self.count + len(features))
        self.feature[new] = features
        self.count += len(features)
        return new

    def set(self, node: Any, bound: Any, nan_low: Any, low: Any, high: Any) -> None:
        self.bound[node], self.nan_low[node] = bound, nan_low
        self.low[node], self.high[node] = low, high


def _compare(table: _Table, tests: Comparisons) -> None:
    """LEQ, LT, GTE and GT: the false branch of GT is the low one. A split of NaN is passed by no number."""
    (strict,) = np.nonzero(np.isin(tests.mode, (LT, GTE)))
    table.bound[strict] = below(tests.split[strict])
    (turned,) = np.nonzero(np.isin(tests.mode, (GTE, GT)) & ~np.isnan(tests.split))
    table.low[turned], table.high[turned] = tests.false[turned], tests.true[turned]
    table.nan_low[turned] = ~tests.tracks[turned]


def _equal(table: _Table, tests: Comparisons, found: Integers) -> None:
    """x == t: not above t, and then not below it. NaN differs from everything, so that NEQ takes it as true."""
    differs = tests.mode[found] == NEQ
    same = np.where(differs, tests.false[found], tests.true[found])
    other = np.where(differs, tests.true[found], tests.false[found])
    second = table.add(tests.feature[found])
    table.set(found, tests.split[found], tests.tracks[found] & ~differs, second, other)
    table.set(second, below(tests.split[found]), False, other, same)


def _member(table: _Table, tests: Comparisons, node: int, members: Floats) -> None:
    """A search for the only member that x can be, which is then compared."""
    true, false, tracks = tests.true[node], tests.false[node], tests.tracks[node]
    if not len(members):
        table.set(node, np.nan, tracks, true, false)
        return
    feature = tests.feature[node]
    waiting = [(node, 0, len(members))]
    while waiting:
        place, start, stop = waiting.pop()
        middle = (start + stop - 1) // 2
        if stop - start == 1:
            (second,) = table.add(np.array([feature]))
            table.set(place, members[middle], tracks, second, false)
            table.set(second, below(members[middle:stop])[0], False, false, true)
            continue
        low, high = table.add(np.array([feature, feature]))
        table.set(place, members[middle], tracks, low, high)
        waiting += [(low, start, middle + 1), (high, middle + 1, stop)]


def _heights(low: Integers, high: Integers) -> Integers:
    """The longest way from each node to a leaf, leaves first, so that the nodes of a cycle never have their turn."""
    (inner,) = np.nonzero(low >= 0)
    children, parents = np.concatenate([low[inner], high[inner]]), np.concatenate([inner, inner])
    order = np.argsort(children, kind="stable")
    parents = parents[order]
    first = np.searchsorted(children[order], np.arange(len(low) + 1))
    waiting = np.zeros(len(low), np.int64)
    waiting[inner] = 2
    height = np.zeros(len(low), np.int64)
    (ready,) = np.nonzero(low < 0)
    step = 0
    while len(ready):
        step += 1
        reached = parents[ranges(first[ready], first[ready + 1])]
        np.subtract.at(waiting, reached, 1)
        height[reached] = step
        ready = np.unique(reached[waiting[reached] == 0])
    if waiting.any():
        raise TreeError(f"node {int(np.argmax(waiting > 0))} leads into a cycle of nodes")
    return height


def ranges(starts: Integers, stops: Integers) -> Integers:
    """The numbers of each range from a start up to its stop, one range after the other."""
    lengths = stops - starts
    ends = np.cumsum(lengths)
    total = int(ends[-1]) if len(ends) else 0
    shifts: Integers = np.repeat(starts - ends + lengths, lengths)
    return np.arange(total) + shifts
