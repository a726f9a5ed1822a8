"""The attributes of tree ensembles, checked: what comes out can be laid out and walked."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from onnxsmith_compiler.ir import dtype as dtypes
from onnxsmith_compiler.ir.dtype import DType
from onnxsmith_compiler.onnx.node_import import NodeImport
from onnxsmith_compiler.ops.tree_layout import Entries
from onnxsmith_compiler.ops.tree_nodes import EQ, GT, GTE, LEAF, LEQ, LT, MEMBER, NEQ, Comparisons, Floats, Integers

_MODES = {
    "BRANCH_LEQ": LEQ, "BRANCH_LT": LT, "BRANCH_GTE": GTE, "BRANCH_GT": GT, "BRANCH_EQ": EQ, "BRANCH_NEQ": NEQ,
    "LEAF": LEAF,
}  # fmt: skip
_FEATURE_LIMIT = 1 << 30


@dataclass(frozen=True, eq=False)
class Ensemble:
    """Trees by their roots' positions in `tests`, and what their leaves add. Numbers are of one dtype."""

    tests: Comparisons
    roots: Integers
    entries: Entries

    @property
    def columns(self) -> int:
        """How many columns of x are named: the highest and all before it, one at least."""
        inner = self.tests.true >= 0
        return int(self.tests.feature[inner].max(initial=0)) + 1


def compute_dtype(node: NodeImport, *names: str) -> DType:
    """float64 where x is, or one of these attributes is given as a tensor of doubles; else float32."""
    tensors = (node.attribute(f"{name}_as_tensor") for name in names)
    doubles = any(isinstance(tensor, np.ndarray) and tensor.dtype == np.float64 for tensor in tensors)
    return dtypes.FLOAT64 if doubles or node.input(0).dtype is dtypes.FLOAT64 else dtypes.FLOAT32


def numbers(node: NodeImport, name: str, dtype: DType) -> Floats:
    """The floats of an attribute, or of the tensor attribute of that name and `_as_tensor`; empty where neither is."""
    tensor, values = node.attribute(f"{name}_as_tensor"), node.floats(name)
    if tensor is not None and values:
        raise node.invalid(f"attributes '{name}' and '{name}_as_tensor' are both given")
    if tensor is None:
        return np.asarray(values or [], np.float32).astype(dtype.storage)
    return tensor_numbers(node, f"{name}_as_tensor", dtype)


def tensor_numbers(node: NodeImport, name: str, dtype: DType) -> Floats:
    tensor = node.attribute(name)
    if tensor is None:
        return np.zeros(0, dtype.storage)
    if not isinstance(tensor, np.ndarray) or tensor.ndim != 1:
        raise node.invalid(f"attribute '{name}' is no vector")
    return tensor.astype(dtype.storage)


def integers(node: NodeImport, name: str) -> Integers:
    return np.asarray(node.ints(name) or [], np.int64)


def same_lengths(node: NodeImport, names: Sequence[str], arrays: Sequence[np.ndarray]) -> None:
    for name, array in zip(names, arrays, strict=True):
        if len(array) != len(arrays[0]):
            raise node.invalid(
                f"attribute '{name}' has {len(array)} elements, '{names[0]}' has {len(arrays[0])}: expected as many"
            )


def tracks_of(node: NodeImport, count: int) -> np.ndarray:
    """Whether a NaN goes to the true branch, of each of `count` nodes."""
    tracks = integers(node, "nodes_missing_value_tracks_true")
    if len(tracks) not in (0, count):
        raise node.invalid(
            f"attribute 'nodes_missing_value_tracks_true' has {len(tracks)} elements: expected none or {count}"
        )
    return tracks != 0 if len(tracks) else np.zeros(count, bool)


def check_range(node: NodeImport, what: str, values: np.ndarray, limit: int) -> None:
    wrong = (values < 0) | (values >= limit)
    if wrong.any():
        at = int(np.argmax(wrong))
        raise node.invalid(f"{what} at position {at} is {values[at]}: expected 0 to {limit - 1}")


def classic_ensemble(node: NodeImport, prefix: str, targets: int, dtype: DType) -> Ensemble:
    """The nodes_* attributes, and those of entries: `prefix` is "class" or "target"."""
    names = ["nodes_treeids", "nodes_nodeids", "nodes_featureids", "nodes_truenodeids", "nodes_falsenodeids"]
    trees, ids, features, true, false = arrays = [integers(node, name) for name in names]
    modes = np.asarray([_mode(node, mode) for mode in node.strings("nodes_modes") or []], np.int64)
    splits = numbers(node, "nodes_values", dtype)
    same_lengths(node, [*names, "nodes_modes", "nodes_values"], [*arrays, modes, splits])
    if not len(trees):
        raise node.invalid("there are no trees")
    index = _NodeIndex(trees, ids)
    if index.repeated is not None:
        at = index.repeated
        raise node.invalid(f"node {ids[at]} of tree {trees[at]} is there twice")
    inner = modes != LEAF
    check_range(node, "attribute 'nodes_featureids': the feature", np.where(inner, features, 0), _FEATURE_LIMIT)
    branches = [np.where(inner, index.find(trees, child), -1) for child in (true, false)]
    for name, found, child in zip(("true", "false"), branches, (true, false), strict=True):
        missing = inner & (found < 0)
        if missing.any():
            at = int(np.argmax(missing))
            raise node.invalid(
                f"node {ids[at]} of tree {trees[at]} has node {child[at]} as its {name} branch: there is no such node"
            )
    tests = Comparisons(modes, features, splits, tracks_of(node, len(trees)), branches[0], branches[1])
    roots = np.sort(np.unique(trees, return_index=True)[1])
    return Ensemble(tests, roots, _entries(node, prefix, targets, dtype, index))


def _mode(node: NodeImport, name: str) -> int:
    if name not in _MODES:
        raise node.invalid(f"a node's mode is '{name}': expected one of {', '.join(_MODES)}")
    return _MODES[name]


def _entries(node: NodeImport, prefix: str, targets: int, dtype: DType, index: _NodeIndex) -> Entries:
    names = [f"{prefix}_treeids", f"{prefix}_nodeids", f"{prefix}_ids"]
    trees, nodes, ids = arrays = [integers(node, name) for name in names]
    weights = numbers(node, f"{prefix}_weights", dtype)
    same_lengths(node, [*names, f"{prefix}_weights"], [*arrays, weights])
    check_range(node, f"attribute '{prefix}_ids': the {prefix}", ids, targets)
    leaves = index.find(trees, nodes)
    if (leaves < 0).any():
        at = int(np.argmax(leaves < 0))
        raise node.invalid(f"a weight is for node {nodes[at]} of tree {trees[at]}: there is no such node")
    return Entries(leaves, ids, weights)


class _NodeIndex:
    """Finds the position of a node by its tree's and its own id."""

    def __init__(self, trees: Integers, ids: Integers) -> None:
        self._trees, tree = np.unique(trees, return_inverse=True)
        self._ids, number = np.unique(ids, return_inverse=True)
        keys = tree * len(self._ids) + number
        self._order = np.argsort(keys, kind="stable")
        self._keys = keys[self._order]
        (again,) = np.nonzero(self._keys[1:] == self._keys[:-1])
        self.repeated = int(self._order[again[0] + 1]) if len(again) else None

    def find(self, trees: Integers, ids: Integers) -> Integers:
        """Positions, -1 for those that there are not."""
        tree, has_tree = _search(self._trees, trees)
        number, has_id = _search(self._ids, ids)
        at, has_key = _search(self._keys, tree * len(self._ids) + number)
        return np.where(has_tree & has_id & has_key, self._order[at], -1)


def _search(sorted_values: Integers, values: Integers) -> tuple[Integers, np.ndarray]:
    at = np.minimum(np.searchsorted(sorted_values, values), len(sorted_values) - 1)
    return at, sorted_values[at] == values


def ensemble_of_version_5(node: NodeImport, targets: int, dtype: DType) -> Ensemble:
    """TreeEnsemble's attributes. Its leaves become nodes behind the others."""
    names = ["nodes_featureids", "nodes_truenodeids", "nodes_falsenodeids", "nodes_trueleafs", "nodes_falseleafs"]
    features, true, false, true_leaf, false_leaf = arrays = [integers(node, name) for name in names]
    splits = tensor_numbers(node, "nodes_splits", dtype)
    modes = np.asarray(node.attribute("nodes_modes"))
    if modes.ndim != 1 or modes.dtype.kind not in "iu":
        raise node.invalid("attribute 'nodes_modes' is no vector of integers")
    modes = modes.astype(np.int64)
    same_lengths(node, [*names, "nodes_splits", "nodes_modes"], [*arrays, splits, modes])
    count = len(features)
    weights, ids = tensor_numbers(node, "leaf_weights", dtype), integers(node, "leaf_targetids")
    same_lengths(node, ["leaf_weights", "leaf_targetids"], [weights, ids])
    roots = integers(node, "tree_roots")
    if not len(roots):
        raise node.invalid("there are no trees")
    check_range(node, "attribute 'nodes_featureids': the feature", features, _FEATURE_LIMIT)
    check_range(node, "attribute 'nodes_modes': the mode", modes, MEMBER + 1)
    check_range(node, "attribute 'leaf_targetids': the target", ids, targets)
    check_range(node, "attribute 'tree_roots': the node", roots, count)
    branches = []
    for name, child, leaf in (("true", true, true_leaf != 0), ("false", false, false_leaf != 0)):
        check_range(node, f"attribute 'nodes_{name}nodeids': the leaf", np.where(leaf, child, 0), max(len(ids), 1))
        check_range(node, f"attribute 'nodes_{name}nodeids': the node", np.where(leaf, 0, child), count)
        branches.append(np.concatenate([child + np.where(leaf, count, 0), np.full(len(ids), -1)]))
    leaves = np.arange(count, count + len(ids))
    tests = Comparisons(
        np.concatenate([modes, np.full(len(ids), LEAF)]),
        np.concatenate([features, np.zeros(len(ids), np.int64)]),
        np.concatenate([splits, np.zeros(len(ids), dtype.storage)]),
        np.concatenate([tracks_of(node, count), np.zeros(len(ids), bool)]),
        branches[0],
        branches[1],
        _members(node, modes, dtype),
    )
    return Ensemble(tests, roots, Entries(leaves, ids, weights))


def _members(node: NodeImport, modes: Integers, dtype: DType) -> dict[int, Floats]:
    """The members of each MEMBER node: they stand one set after the other, each ended by a NaN."""
    values = tensor_numbers(node, "membership_values", dtype)
    (nodes,) = np.nonzero(modes == MEMBER)
    (ends,) = np.nonzero(np.isnan(values))
    if len(values) and not np.isnan(values[-1]):
        ends = np.append(ends, len(values))
    if len(ends) != len(nodes):
        raise node.invalid(
            f"attribute 'membership_values' has {len(ends)} sets, and {len(nodes)} nodes have the mode BRANCH_MEMBER"
        )
    starts = np.append(0, ends[:-1] + 1)
    return {int(at): values[start:end] for at, start, end in zip(nodes, starts, ends, strict=False)}
