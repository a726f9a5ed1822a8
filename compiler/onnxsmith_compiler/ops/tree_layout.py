"""Lays an ensemble of trees out for walking: `ops.trees.TreeEnsemble` says what is done with it.

A record is one node: the column of x to compare, a bound, and how far on its children stand. Where the column is at
most the bound the walk goes `move + 1` records on, else (at a NaN too) `move`, so that two children stand side by
side, and a leaf, whose bound is NaN and whose move is 0, stays where it is. The records of a tree stand together, level
by level. Narrow records are uint16 column, int16 move, float32 bound; others int64-aligned: the bound (float32 or
float64) in 8 bytes, int32 column, int32 move.

Leaves are "single" where a tree adds to one target only: the trees stand in rounds of one tree a target, and
`values` has an element a record. "dense": `values` [leaves, targets], and the leaf of each record. "sparse": one
value and one target an entry, and besides the first entry of each leaf.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from onnxsmith_compiler.ops.tree_nodes import Floats, Integers, Nodes, TreeError, below
from onnxsmith_compiler.ops.trees import Aggregate, Leaves, TreeEnsemble

_IDENTITY = {"sum": 0.0, "min": np.inf, "max": -np.inf}
_COMBINE = {"sum": np.add, "min": np.minimum, "max": np.maximum}
_NARROW_COLUMNS = 1 << 16
_NARROW_MOVES = 1 << 15
_MOVES = 1 << 31
_DENSE_BYTES = 1 << 20
"""Up to this size leaves are dense whatever they hold; beyond it where a quarter of it is entries."""


@dataclass(frozen=True, eq=False)
class Entries:
    """What leaves add: `value` to `target` where a walk ends at the node `leaf`."""

    leaf: Integers
    target: Integers
    value: Floats


@dataclass(frozen=True, eq=False)
class Layout:
    """The operator and its operands behind x: records, trees, values, tables of leaves.

    The columns compared are those of x where `positive`, then those of -x where `negative`, `columns` of each.
    """

    op: TreeEnsemble
    operands: tuple[np.ndarray, ...]
    positive: bool
    negative: bool


@dataclass(frozen=True, eq=False)
class _Placed:
    """`node` of each record; the first record of each node's children; each tree's root record; each record's tree."""

    node: Integers
    children: Integers
    roots: Integers
    tree: Integers


def lay_out(
    nodes: Nodes, roots: Integers, entries: Entries, aggregate: Aggregate, targets: int, columns: int
) -> Layout:
    """`columns` are those of x that nodes may name. Raises TreeError where a tree is too large."""
    inner = ~nodes.is_leaf
    turned = nodes.nan_low & inner
    negative = bool(turned.any())
    positive = bool((inner & ~turned).any()) or not negative
    inside, outside = np.where(turned, nodes.high, nodes.low), np.where(turned, nodes.low, nodes.high)
    placed = _place(inside, outside, roots)
    column = np.where(inner, nodes.feature + np.where(turned & positive, columns, 0), 0)
    # x > t is -x < -t: a NaN is in neither, and goes where the walk goes that is not inside
    bound = np.where(turned, _above(nodes.bound), nodes.bound)
    bound[~inner] = np.nan
    records, narrow = _records(placed, column, bound)
    trees = np.stack([placed.roots, nodes.height[roots], np.zeros_like(roots)], 1)
    leaves, trees, tables = _leaves(placed, nodes.is_leaf, trees, entries, aggregate, targets)
    width = columns * (int(positive) + int(negative))
    op = TreeEnsemble(aggregate, leaves, narrow, targets, width, int(trees[:, 1].sum()) + len(trees))
    return Layout(op, (records, trees, *tables), positive, negative)


def _above(bound: Floats) -> Floats:
    """The bound on -x that says x > bound; every number is above a bound of NaN."""
    return np.where(np.isnan(bound), bound.dtype.type(np.inf), below(-bound))


def _place(inside: Integers, outside: Integers, roots: Integers) -> _Placed:
    """Level by level, then tree by tree. Where nodes share children, these are placed once for each parent."""
    children = np.full(len(inside), -1)
    level, tree = roots, np.arange(len(roots))
    levels, trees, count = [], [], 0
    while len(level):
        levels.append(level)
        trees.append(tree)
        count += len(level)
        (new,) = np.nonzero((inside[level] >= 0) & (children[level] < 0))
        new = new[np.sort(np.unique(level[new], return_index=True)[1])]
        parents = level[new]
        children[parents] = count + 2 * np.arange(len(parents))
        level = np.stack([outside[parents], inside[parents]], 1).reshape(-1)
        tree = np.repeat(tree[new], 2)
    node, tree = np.concatenate(levels), np.concatenate(trees)
    order = np.argsort(tree, kind="stable")
    position = np.empty_like(order)
    position[order] = np.arange(count)
    return _Placed(node[order], np.where(children < 0, -1, position[children]), position[: len(roots)], tree[order])


def _records(placed: _Placed, column: Integers, bound: Floats) -> tuple[np.ndarray, bool]:
    """The records, and whether they are narrow. The last one is a leaf of no tree."""
    places = np.arange(len(placed.node))
    start = placed.children[placed.node]
    moves = np.append(np.where(start < 0, 0, start - places), 0)
    columns = np.append(column[placed.node], 0)
    bounds = np.append(bound[placed.node], bound.dtype.type(np.nan))
    farthest = int(np.abs(moves).max())
    if farthest >= _MOVES or int(columns.max()) >= _MOVES:
        raise TreeError(f"{len(placed.node)} nodes are more than trees may have")
    narrow = bound.dtype == np.float32 and int(columns.max()) < _NARROW_COLUMNS and farthest < _NARROW_MOVES
    integer, size = ("i2", 8) if narrow else ("i4", 16)
    at = (4, 0, 2) if narrow else (0, 8, 12)
    record = np.dtype(
        {
            "names": ["bound", "column", "move"],
            "formats": [bound.dtype, integer.replace("i", "u"), integer],
            "offsets": list(at),
            "itemsize": size,
        }
    )
    records = np.zeros(len(moves), record)
    records["bound"], records["column"], records["move"] = bounds, columns, moves
    return records.view(np.int64), narrow


def _leaves(
    placed: _Placed, is_leaf: np.ndarray, trees: Integers, entries: Entries, aggregate: Aggregate, targets: int
) -> tuple[Leaves, Integers, tuple[np.ndarray, ...]]:
    """The form of the leaves, the trees in the order in which they are walked, and values with their tables."""
    record = np.full(len(is_leaf), -1)
    record[placed.node] = np.arange(len(placed.node))
    used = (record[entries.leaf] >= 0) & is_leaf[entries.leaf]
    entries = Entries(entries.leaf[used], entries.target[used], entries.value[used])
    rounds = None
    if not _crosses(placed):
        rounds = _rounds(placed.tree[record[entries.leaf]], entries.target, trees, targets)
    if rounds is not None:
        of_node = np.full(len(is_leaf), _IDENTITY[aggregate], entries.value.dtype)
        _COMBINE[aggregate].at(of_node, entries.leaf, entries.value)
        values = np.append(of_node[placed.node], of_node.dtype.type(_IDENTITY[aggregate]))
        rounds[rounds[:, 0] < 0, 0] = len(placed.node)
        return "single", rounds, (values,)
    number = np.full(len(is_leaf), 0)
    number[is_leaf] = np.arange(int(is_leaf.sum()))
    slots = number[placed.node].astype(np.int32)
    count = int(is_leaf.sum())
    leaf = number[entries.leaf]
    dense = count * targets
    if dense * entries.value.itemsize <= _DENSE_BYTES or dense <= 4 * len(leaf):
        values = np.full(dense, _IDENTITY[aggregate], entries.value.dtype)
        _COMBINE[aggregate].at(values, leaf * targets + entries.target, entries.value)
        return "dense", trees, (values, slots)
    order = np.argsort(leaf, kind="stable")
    starts = np.searchsorted(leaf[order], np.arange(count + 1)).astype(np.int32)
    return "sparse", trees, (entries.value[order], slots, starts, entries.target[order].astype(np.int32))


def _crosses(placed: _Placed) -> bool:
    """Whether a tree leads into another one."""
    children = placed.children[placed.node]
    inner = children >= 0
    return bool((placed.tree[children[inner]] != placed.tree[inner]).any())


def _rounds(tree: Integers, target: Integers, trees: Integers, targets: int) -> Integers | None:
    """The trees in rounds of one a target, those of each target in order; -1 for the root of one that is missing.

    `tree` and `target` are those of each entry. None where a tree has several targets, or where rounds have many gaps.
    """
    lowest, highest = np.full(len(trees), targets), np.full(len(trees), -1)
    np.minimum.at(lowest, tree, target)
    np.maximum.at(highest, tree, target)
    if not np.array_equal(lowest, highest):
        return None
    order = np.argsort(lowest, kind="stable")
    sizes = np.bincount(lowest, minlength=targets)
    rank = np.empty_like(order)
    rank[order] = np.arange(len(trees)) - np.repeat(np.cumsum(sizes) - sizes, sizes)
    grid = int(sizes.max()) * targets
    if grid > len(trees) + len(trees) // 4 + 8:
        return None
    rounds = np.zeros((grid, 3), np.int64)
    rounds[:, 0] = -1
    rounds[:, 2] = np.arange(grid) % targets
    rounds[rank * targets + lowest, :2] = trees[:, :2]
    return rounds
