"""ai.onnx.ml: ensembles of decision trees."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from onnxsmith_compiler.ir import dtype as dtypes
from onnxsmith_compiler.ir.dtype import DType
from onnxsmith_compiler.ir.graph import Relation, Value
from onnxsmith_compiler.onnx.importers.ml import as_matrix, class_labels, transform_scores
from onnxsmith_compiler.onnx.importers.tree_attributes import (
    Ensemble,
    classic_ensemble,
    compute_dtype,
    ensemble_of_version_5,
    integers,
    numbers,
)
from onnxsmith_compiler.onnx.node_import import NodeImport
from onnxsmith_compiler.ops.gather import Gather
from onnxsmith_compiler.ops.tree_layout import Entries, lay_out
from onnxsmith_compiler.ops.tree_nodes import TreeError, nodes_of
from onnxsmith_compiler.ops.trees import Aggregate
from onnxsmith_compiler.ops.view import Concat, Slice

_AGGREGATES = ("AVERAGE", "SUM", "MIN", "MAX")
"""By TreeEnsemble's codes."""
_TRANSFORMS = ("NONE", "SOFTMAX", "LOGISTIC", "SOFTMAX_ZERO", "PROBIT")


def tree_ensemble(node: NodeImport) -> Value:
    """Version 5: attributes by position, and a result of x's type."""
    x = node.input(0)
    dtype = dtypes.FLOAT64 if x.dtype is dtypes.FLOAT64 else dtypes.FLOAT32
    targets = _targets(node)
    aggregate = _coded(node, "aggregate_function", _AGGREGATES, 1)
    ensemble = ensemble_of_version_5(node, targets, dtype)
    scores = _aggregated(node, ensemble, aggregate, targets, dtype)
    transform = _coded(node, "post_transform", _TRANSFORMS, 0)
    return node.cast(transform_scores(node, scores, transform), x.dtype)


def tree_ensemble_regressor(node: NodeImport) -> Value:
    dtype = compute_dtype(node, "nodes_values", "target_weights", "base_values")
    targets = _targets(node)
    aggregate = node.string("aggregate_function", "SUM")
    if aggregate not in _AGGREGATES:
        raise node.invalid(f"aggregate_function is '{aggregate}': expected one of {', '.join(_AGGREGATES)}")
    ensemble = classic_ensemble(node, "target", targets, dtype)
    scores = _aggregated(node, ensemble, aggregate, targets, dtype)
    base = numbers(node, "base_values", dtype)
    if len(base) not in (0, targets):
        raise node.invalid(f"attribute 'base_values' has {len(base)} elements: expected none or {targets}")
    if len(base):
        scores = node.add(scores, node.constant(base, dtype))
    return node.cast(transform_scores(node, scores, node.string("post_transform", "NONE")), dtypes.FLOAT32)


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


def _aggregated(node: NodeImport, ensemble: Ensemble, aggregate: str, targets: int, dtype: DType) -> Value:
    """[N, targets]. A target that no reached leaf adds to is 0."""
    if aggregate in ("MIN", "MAX"):
        kind: Aggregate = "min" if aggregate == "MIN" else "max"
        best = _walked(node, ensemble, kind, targets, dtype)
        nothing = node.map("isinf", best)
        return node.select(nothing, node.constant(0, dtype), best)
    total = _walked(node, ensemble, "sum", targets, dtype)
    return node.div(total, float(len(ensemble.roots))) if aggregate == "AVERAGE" else total


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


def tree_ensemble_classifier(node: NodeImport) -> list[Value | None]:
    """Outputs: labels [N] and scores [N, classes], by onnxruntime's rules where the specification leaves them open."""
    labels = class_labels(node, "classlabels_int64s")
    dtype = compute_dtype(node, "nodes_values", "class_weights", "base_values")
    ensemble = classic_ensemble(node, "class", len(labels), dtype)
    base = numbers(node, "base_values", dtype)
    if len(labels) > 2:
        return _many_classes(node, ensemble, labels, base, dtype)
    return _two_classes(node, ensemble, labels, base, dtype)


def _many_classes(
    node: NodeImport, ensemble: Ensemble, labels: list[int], base: np.ndarray, dtype: DType
) -> list[Value | None]:
    """The label is that of the first highest score, among the classes that some leaf or base value scores."""
    count = len(labels)
    if len(base) not in (0, count):
        raise node.invalid(f"attribute 'base_values' has {len(base)} elements: expected none or {count}")
    if len(base):
        scores = candidates = node.add(_walked(node, ensemble, "sum", count, dtype), node.constant(base, dtype))
    elif _always_scored(node, ensemble, count):
        scores = candidates = _walked(node, ensemble, "sum", count, dtype)
    else:
        both = _walked(node, _with_presence(ensemble, count), "sum", 2 * count, dtype)
        rows = both.shape[0]
        scores = node.emit(Slice((0, 0), (1, 1), (rows, count)), both)
        present = node.map("gt", node.emit(Slice((0, count), (1, 1), (rows, count)), both), 0.0)
        candidates = node.select(present, scores, float("-inf"))
    best = node.reduce("argmax_first", candidates, [1], keepdims=False)
    label = node.emit(Gather(0), node.constant(labels, dtypes.INT64), best)
    transformed = transform_scores(node, scores, node.string("post_transform", "NONE"))
    return [label, node.cast(transformed, dtypes.FLOAT32)]


def _always_scored(node: NodeImport, ensemble: Ensemble, count: int) -> bool:
    """Whether every class has a tree all of whose leaves have a weight for it."""
    trees = np.unique(integers(node, "nodes_treeids"), return_inverse=True)[1]
    leaves = np.bincount(trees[ensemble.tests.true < 0], minlength=len(ensemble.roots))
    entries = ensemble.entries
    pairs = np.unique(np.stack([entries.leaf, entries.target]), axis=1)
    scored, times = np.unique(np.stack([trees[pairs[0]], pairs[1]]), axis=1, return_counts=True)
    whole = times >= leaves[scored[0]]
    return len(np.unique(scored[1][whole])) == count


def _with_presence(ensemble: Ensemble, count: int) -> Ensemble:
    """The ensemble that also adds 1, for each weight, to a second set of targets."""
    entries = ensemble.entries
    return replace(
        ensemble,
        entries=Entries(
            np.concatenate([entries.leaf, entries.leaf]),
            np.concatenate([entries.target, entries.target + count]),
            np.concatenate([entries.value, np.ones_like(entries.value)]),
        ),
    )


def _two_classes(
    node: NodeImport, ensemble: Ensemble, labels: list[int], base: np.ndarray, dtype: DType
) -> list[Value | None]:
    raise node.unsupported("two classes")
