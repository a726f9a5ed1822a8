"""ai.onnx.ml: ensembles of decision trees."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from onnxsmith_compiler.ir import dtype as dtypes
from onnxsmith_compiler.ir.dtype import DType
from onnxsmith_compiler.ir.graph import Relation, Value
from onnxsmith_compiler.onnx.importers.ml import as_matrix, transform_scores, transform_single
from onnxsmith_compiler.onnx.importers.tree_attributes import (
    Ensemble,
    classic_ensemble,
    compute_dtype,
    ensemble_of_version_5,
    numbers,
)
from onnxsmith_compiler.onnx.node_import import NodeImport
from onnxsmith_compiler.ops.gather import Gather
from onnxsmith_compiler.ops.tree_layout import Entries, lay_out
from onnxsmith_compiler.ops.tree_nodes import Integers, TreeError, nodes_of, trees_of
from onnxsmith_compiler.ops.trees import Aggregate
from onnxsmith_compiler.ops.view import Concat, Slice

_KINDS: Mapping[str, Aggregate] = {"AVERAGE": "sum", "SUM": "sum", "MIN": "min", "MAX": "max"}
_AGGREGATES = ("AVERAGE", "SUM", "MIN", "MAX")
"""By TreeEnsemble's codes."""
_TRANSFORMS = ("NONE", "SOFTMAX", "LOGISTIC", "SOFTMAX_ZERO", "PROBIT")


@dataclass(frozen=True, eq=False)
class Regression:
    """What is made of the trees' values for `targets`: an aggregate, plus a base value each (or none), transformed."""

    targets: int
    aggregate: str
    base: np.ndarray
    transform: str


def tree_ensemble(node: NodeImport) -> Value:
    """Version 5: attributes by position, and a result of x's type."""
    x = node.input(0)
    dtype = dtypes.FLOAT64 if x.dtype is dtypes.FLOAT64 else dtypes.FLOAT32
    rule = Regression(
        _targets(node),
        _coded(node, "aggregate_function", _AGGREGATES, 1),
        np.zeros(0),
        _coded(node, "post_transform", _TRANSFORMS, 0),
    )
    ensemble = ensemble_of_version_5(node, rule.targets, dtype)
    return node.cast(_regression(node, ensemble, rule, dtype), x.dtype)


def tree_ensemble_regressor(node: NodeImport) -> Value:
    dtype = compute_dtype(node, "nodes_values", "target_weights", "base_values")
    targets = _targets(node)
    aggregate = node.string("aggregate_function", "SUM")
    if aggregate not in _AGGREGATES:
        raise node.invalid(f"aggregate_function is '{aggregate}': expected one of {', '.join(_AGGREGATES)}")
    base = numbers(node, "base_values", dtype)
    if len(base) not in (0, targets):
        raise node.invalid(f"attribute 'base_values' has {len(base)} elements: expected none or {targets}")
    rule = Regression(targets, aggregate, base, node.string("post_transform", "NONE"))
    ensemble = classic_ensemble(node, "target", targets, dtype)
    return node.cast(_regression(node, ensemble, rule, dtype), dtypes.FLOAT32)


def _targets(node: NodeImport) -> int:
    targets = node.int("n_targets", 0)
    if not 0 < targets < 1 << 31:
        raise node.invalid(f"n_targets is {targets}: expected a positive number")
    return targets


def _coded(node: NodeImport, name: str, meanings: tuple[str, ...], default: int) -> str:
    code = node.int(name, default)
    if not 0 <= code < len(meanings):
        raise node.invalid(f"{name} is {code}: expected 0 to {len(meanings) - 1}")
    return meanings[code]


def _regression(node: NodeImport, ensemble: Ensemble, rule: Regression, dtype: DType) -> Value:
    """[N, targets]. onnxruntime gives 0, without a base value, for a target that no reached leaf has a weight for."""
    kind = _KINDS[rule.aggregate]
    scores, present = scored(node, ensemble, kind, rule.targets, dtype)
    if rule.aggregate == "AVERAGE":
        scores = node.div(scores, float(len(ensemble.roots)))
    if len(rule.base):
        scores = node.add(scores, node.constant(rule.base, dtype))
    if present is not None:
        scores = node.select(present, scores, node.constant(0, dtype))
    transform = transform_single if rule.targets == 1 else transform_scores
    return transform(node, scores, rule.transform)


def scored(
    node: NodeImport, ensemble: Ensemble, kind: Aggregate, targets: int, dtype: DType
) -> tuple[Value, Value | None]:
    """[N, targets] of numbers, and of whether a reached leaf has a weight; None where one always has.

    A target without any weight is 0; where that is the only reason for a second result, it is a constant [1, targets].
    """
    used, numbered = np.unique(ensemble.entries.target, return_inverse=True)
    if 0 < len(used) < targets:
        entries = replace(ensemble.entries, target=numbered)
        sums, present = scored(node, replace(ensemble, entries=entries), kind, len(used), dtype)
        return _spread(node, sums, used, targets), _spread_marks(node, present, used, targets)
    if _always_scored(ensemble, targets):
        return _walked(node, ensemble, kind, targets, dtype), None
    mark = -1.0 if kind == "min" else 1.0
    both = _walked(node, _marked(ensemble, targets, mark), kind, 2 * targets, dtype)
    sums, marks = (node.emit(Slice((0, start), (1, 1), (both.shape[0], targets)), both) for start in (0, targets))
    return sums, node.map("lt" if kind == "min" else "gt", marks, 0.0)


def _spread(node: NodeImport, columns: Value, places: Integers, targets: int) -> Value:
    """[N, targets] with these columns at `places`, zero elsewhere."""
    source = np.zeros(targets, np.int64)
    source[places] = np.arange(len(places))
    wide = node.emit(Gather(1), columns, node.constant(source, dtypes.INT64))
    return node.select(_mask(node, places, targets), wide, node.constant(0, columns.dtype))


def _spread_marks(node: NodeImport, present: Value | None, places: Integers, targets: int) -> Value:
    if present is None:
        return _mask(node, places, targets)
    return _spread(node, present, places, targets)


def _mask(node: NodeImport, places: Integers, targets: int) -> Value:
    mask = np.zeros((1, targets), bool)
    mask[0, places] = True
    return node.constant(mask, dtypes.BOOL)


def _always_scored(ensemble: Ensemble, targets: int) -> bool:
    """Whether every target has a tree all of whose leaves have a weight for it."""
    trees = trees_of(ensemble.tests, ensemble.roots)
    if trees is None:
        return False
    entries = ensemble.entries
    is_leaf = (ensemble.tests.true < 0) & (trees >= 0)
    leaves = np.bincount(trees[is_leaf], minlength=len(ensemble.roots))
    used = is_leaf[entries.leaf]
    leaf, target = np.divmod(np.unique(entries.leaf[used] * targets + entries.target[used]), targets)
    scored_by, times = np.unique(trees[leaf] * targets + target, return_counts=True)
    whole = times == leaves[scored_by // targets]
    return len(np.unique(scored_by[whole] % targets)) == targets


def _marked(ensemble: Ensemble, targets: int, mark: float) -> Ensemble:
    """The ensemble that also has `mark`, for each weight, for one of a second set of targets."""
    entries = ensemble.entries
    marks = Entries(
        np.concatenate([entries.leaf, entries.leaf]),
        np.concatenate([entries.target, entries.target + targets]),
        np.concatenate([entries.value, np.full_like(entries.value, mark)]),
    )
    return replace(ensemble, entries=marks)


def _walked(node: NodeImport, ensemble: Ensemble, aggregate: Aggregate, targets: int, dtype: DType) -> Value:
    try:
        nodes = nodes_of(ensemble.tests)
        layout = lay_out(nodes, ensemble.roots, ensemble.entries, aggregate, targets, ensemble.columns)
    except TreeError as error:
        raise node.invalid(str(error)) from error
    x = node.cast(as_matrix(node, node.input(0)), dtype)
    if isinstance(x.shape[1], int) and x.shape[1] < ensemble.columns:
        raise node.invalid(f"feature {ensemble.columns - 1} is compared, and x has {x.shape[1]} columns")
    node.builder.assume(ensemble.columns, x.shape[1], Relation.AT_MOST)
    if layout.negative:
        x = node.emit(Slice((0, 0), (1, 1), (x.shape[0], ensemble.columns)), x)
        turned = node.map("neg", x)
        x = node.emit(Concat(1), x, turned) if layout.positive else turned
    operands = (node.builder.constant(operand) for operand in layout.operands)
    return node.emit(layout.op, x, *operands)
