"""ai.onnx.ml TreeEnsembleClassifier. Where the specification leaves labels and scores open, onnxruntime's rules hold:

of two classes the second one's score decides, by itself; where the leaves have weights for the first class only,
that is the score of the second.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from onnxsmith_compiler.ir import dtype as dtypes
from onnxsmith_compiler.ir.dtype import DType
from onnxsmith_compiler.ir.graph import Value
from onnxsmith_compiler.onnx.importers.ml import beside, class_labels, opposites, transform_scores, transform_single
from onnxsmith_compiler.onnx.importers.tree_attributes import Ensemble, classic_ensemble, compute_dtype, numbers
from onnxsmith_compiler.onnx.importers.trees import scored
from onnxsmith_compiler.onnx.node_import import NodeImport
from onnxsmith_compiler.ops.gather import Gather
from onnxsmith_compiler.ops.view import Slice


def tree_ensemble_classifier(node: NodeImport) -> list[Value | None]:
    """Outputs: int64 labels [N] and float32 scores [N, classes]."""
    labels = class_labels(node, "classlabels_int64s")
    count = len(labels)
    dtype = compute_dtype(node, "nodes_values", "class_weights", "base_values")
    ensemble = classic_ensemble(node, "class", count, dtype)
    base = numbers(node, "base_values", dtype)
    if len(base) not in ((0, 1, 2)[: count + 1] if count <= 2 else (0, count)):
        raise node.invalid(f"attribute 'base_values' has {len(base)} elements: expected none or {count}")
    sums, present = scored(node, ensemble, "sum", count, dtype)
    if count == 1:
        label, scores = _one_class(node, sums, base)
    elif count == 2:
        label, scores = _two_classes(node, _Pair.of(node, ensemble, sums, present), labels, base, dtype)
    else:
        label, scores = _many_classes(node, sums, present, labels, base, dtype)
    return [node.reshape(label, (label.shape[0],)), node.cast(scores, dtypes.FLOAT32)]


def _many_classes(
    node: NodeImport, sums: Value, present: Value | None, labels: list[int], base: np.ndarray, dtype: DType
) -> tuple[Value, Value]:
    """The first class of the highest score, among those that a leaf or a base value scores."""
    scores = node.add(sums, node.constant(base, dtype)) if len(base) else sums
    candidates = scores
    if present is not None and not len(base):
        candidates = node.select(present, scores, node.constant(-np.inf, dtype))
    best = node.reduce("argmax_first", candidates, [1], keepdims=False)
    label = node.emit(Gather(0), node.constant(labels, dtypes.INT64), best)
    return label, transform_scores(node, scores, node.string("post_transform", "NONE"))


def _one_class(node: NodeImport, sums: Value, base: np.ndarray) -> tuple[Value, Value]:
    """The label is 1 where the score is positive, else 0."""
    score = node.add(sums, float(base[0])) if len(base) else sums
    label = node.cast(node.map("gt", score, 0.0), dtypes.INT64)
    return label, transform_single(node, score, node.string("post_transform", "NONE"))


@dataclass(frozen=True, eq=False)
class _Pair:
    """Two classes' sums, [N, 1] each, and whether a reached leaf scores them: a bool, or [N, 1] where rows differ.

    `one_class`: the ensemble has weights for one class only. `positive`: none of its weights is negative.
    """

    sums: tuple[Value, Value]
    has: tuple[bool | Value, bool | Value]
    one_class: bool
    positive: bool

    @staticmethod
    def of(node: NodeImport, ensemble: Ensemble, sums: Value, present: Value | None) -> _Pair:
        first, second = (_column(node, sums, k) for k in (0, 1))
        entries = ensemble.entries
        used = [bool((entries.target == k).any()) for k in (0, 1)]
        has_first: bool | Value = used[0]
        has_second: bool | Value = used[1]
        if present is not None and present.data is None:
            has_first, has_second = (scores and _column(node, present, k) for k, scores in enumerate(used))
        return _Pair((first, second), (has_first, has_second), sum(used) == 1, not (entries.value < 0).any())


def _column(node: NodeImport, matrix: Value, number: int) -> Value:
    return node.emit(Slice((0, number), (1, 1), (matrix.shape[0], 1)), matrix)


def _choose(node: NodeImport, condition: bool | Value, a: Value, b: Value) -> Value:
    if isinstance(condition, bool):
        return a if condition else b
    return node.select(condition, a, b)


def _two_classes(
    node: NodeImport, pair: _Pair, labels: list[int], base: np.ndarray, dtype: DType
) -> tuple[Value, Value]:
    zero = node.constant(np.zeros((1, 1)), dtype)
    (first, second), (has_first, has_second) = pair.sums, pair.has
    if len(base) == 2:
        alone = node.add(first, float(base[0]))
        second = _choose(node, has_second, node.add(first, float(base[1])), zero)
        shown = _choose(node, has_second, node.map("neg", second), alone)
        scores = _transformed_pair(node, _choose(node, has_first, shown, zero), second)
        decisive = _choose(node, has_second, second, _choose(node, has_first, alone, zero))
    else:
        alone = node.add(first, float(base[0])) if len(base) else first
        alone = _choose(node, has_first, alone, zero)
        scores = _choose(
            node,
            has_second,
            _transformed_pair(node, alone, second),
            opposites(node, alone, sums_to_one=pair.one_class and pair.positive),
        )
        decisive = _choose(node, has_second, second, alone)
    return _decided(node, decisive, pair, labels), scores


def _decided(node: NodeImport, score: Value, pair: _Pair, labels: list[int]) -> Value:
    """Where the ensemble scores both classes, onnxruntime's labels are 1 and 0 whatever the classes are called."""
    threshold = 0.5 if pair.one_class and pair.positive else 0.0
    negative, positive = labels if pair.one_class else (0, 1)
    chosen = node.map("gt", score, threshold)
    return node.select(chosen, node.constant(positive, dtypes.INT64), node.constant(negative, dtypes.INT64))


def _transformed_pair(node: NodeImport, first: Value, second: Value) -> Value:
    return transform_scores(node, beside(node, first, second), node.string("post_transform", "NONE"))
