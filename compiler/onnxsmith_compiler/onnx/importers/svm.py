"""ai.onnx.ml: support vector machines, as matrix products with a kernel function between."""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from onnxsmith_compiler.ir import dtype as dtypes
from onnxsmith_compiler.ir.graph import Value
from onnxsmith_compiler.onnx.importers.ml import (
    as_matrix,
    class_labels,
    opposites,
    post_transform,
    transform_scores,
    transform_single,
)
from onnxsmith_compiler.onnx.node_import import NodeImport
from onnxsmith_compiler.ops.contraction import MatMul
from onnxsmith_compiler.ops.coupling import PairwiseCoupling
from onnxsmith_compiler.ops.gather import Gather

Floats = npt.NDArray[np.float32]

_MARGIN = 1e-7
"""Probabilities of pairs keep this far from 0 and 1."""
_FLOAT32_SPREAD = 64.0
"""Up to this gamma times squared length, distances by way of products have the accuracy of float32 results."""


def svm_regressor(node: NodeImport) -> Value:
    """[N, 1]: sums over the support vectors plus rho, or of one class 1 and -1. post_transform has no meaning here."""
    coefficients, rho = _floats(node, "coefficients"), _floats(node, "rho")
    count = node.int("n_supports", 0)
    if not len(coefficients) or len(rho) < 1:
        raise node.invalid("coefficients and rho must have elements")
    x = _features(node)
    if count > 0:
        if len(coefficients) != count:
            raise node.invalid(f"coefficients has {len(coefficients)} elements, n_supports is {count}")
        similar = _similarities(node, x, _support_vectors(node, count))
        score = node.add(_product(node, similar, coefficients[:, None]), float(rho[0]))
    else:
        score = node.add(_product(node, x, coefficients[:, None]), float(rho[0]))
    if not node.flag("one_class"):
        return score
    return node.select(node.map("gt", score, 0.0), 1.0, node.constant(-1.0, dtypes.FLOAT32))


def svm_classifier(node: NodeImport) -> list[Value | None]:
    """Outputs: int64 labels [N] and float32 scores: of each class where there are probabilities, else of each pair."""
    labels = class_labels(node, "classlabels_ints")
    counts = node.ints("vectors_per_class") or []
    coefficients = _floats(node, "coefficients")
    if not len(coefficients):
        raise node.invalid("coefficients is empty")
    if not sum(counts):
        return _linear(node, labels, coefficients)
    machine = _Machine.of(node, len(labels), counts, coefficients)
    similar = _similarities(node, _features(node), machine.vectors)
    decisions = node.add(_product(node, similar, machine.decisions()), node.constant(machine.rho, dtypes.FLOAT32))
    label = _voted(node, decisions, machine, labels)
    return [label, _scores(node, decisions, machine)]


@dataclass(frozen=True, eq=False)
class _Machine:
    """One machine a pair of classes: pair (i, j) uses the vectors of both, with coefficients [classes - 1, vectors]."""

    counts: list[int]
    vectors: Floats
    coefficients: Floats
    rho: Floats

    @staticmethod
    def of(node: NodeImport, classes: int, counts: list[int], coefficients: Floats) -> _Machine:
        if len(counts) != classes or min(counts) < 0:
            raise node.invalid(f"vectors_per_class is {counts}: expected a number for each of {classes} classes")
        total, pairs = sum(counts), classes * (classes - 1) // 2
        rho = _floats(node, "rho")
        if len(coefficients) != (classes - 1) * total:
            raise node.invalid(f"coefficients has {len(coefficients)} elements: expected {classes - 1} times {total}")
        if len(rho) < pairs:
            raise node.invalid(f"rho has {len(rho)} elements: expected one for each of {pairs} pairs of classes")
        return _Machine(counts, _support_vectors(node, total), coefficients.reshape(classes - 1, total), rho[:pairs])

    @property
    def pairs(self) -> list[tuple[int, int]]:
        return list(itertools.combinations(range(len(self.counts)), 2))

    def decisions(self) -> Floats:
        """[vectors, pairs]: a class's vectors have the row j - 1 of coefficients against a class j behind it."""
        stops = np.cumsum(self.counts)
        weights = np.zeros((len(self.vectors), len(self.pairs)), np.float32)
        for number, (i, j) in enumerate(self.pairs):
            for own, row in ((i, j - 1), (j, i)):
                span = slice(stops[own] - self.counts[own], stops[own])
                weights[span, number] = self.coefficients[row, span]
        return weights

    def ballots(self) -> tuple[Floats, Floats]:
        """[pairs, classes] and [classes]: 0 or 1 of each pair times the first, plus the second, are the votes."""
        ballots = np.zeros((len(self.pairs), len(self.counts)), np.float32)
        start = np.zeros(len(self.counts), np.float32)
        for number, (i, j) in enumerate(self.pairs):
            ballots[number, i], ballots[number, j] = 1, -1
            start[j] += 1
        return ballots, start


def _voted(node: NodeImport, decisions: Value, machine: _Machine, labels: list[int]) -> Value:
    """The first class that most pairs decide for."""
    ballots, start = machine.ballots()
    positive = node.cast(node.map("gt", decisions, 0.0), dtypes.FLOAT32)
    votes = node.add(_product(node, positive, ballots), node.constant(start, dtypes.FLOAT32))
    return _label_of_highest(node, votes, labels)


def _label_of_highest(node: NodeImport, scores: Value, labels: list[int]) -> Value:
    best = node.reduce("argmax_first", scores, [1], keepdims=False)
    return node.emit(Gather(0), node.constant(labels, dtypes.INT64), best)


def _scores(node: NodeImport, decisions: Value, machine: _Machine) -> Value:
    pairs = len(machine.pairs)
    a, b = _floats(node, "prob_a"), _floats(node, "prob_b")
    if len(a) != len(b) or 0 < len(a) < pairs:
        raise node.invalid(f"prob_a and prob_b have {len(a)} and {len(b)} elements: expected {pairs} each, or none")
    if len(a):
        slope, shift = (node.constant(values[:pairs], dtypes.FLOAT32) for values in (a, b))
        raw = node.map("sigmoid", node.map("neg", node.add(node.mul(decisions, slope), shift)))
        likely = node.map("min", node.map("max", raw, _MARGIN), 1 - _MARGIN)
        return post_transform(node, node.emit(PairwiseCoupling(len(machine.counts)), likely))
    if pairs == 1:
        # onnxruntime takes a transformed score for a probability: its opposite is 1 less it
        untouched = node.string("post_transform", "NONE") == "NONE"
        return opposites(node, decisions, sums_to_one=not untouched)
    return post_transform(node, decisions)


def _linear(node: NodeImport, labels: list[int], coefficients: Floats) -> list[Value | None]:
    """Without support vectors: a score a class, coefficients [classes, features]; the kernel is taken to be linear."""
    rho = _floats(node, "rho")
    if len(rho) < 1 or len(coefficients) % len(labels):
        raise node.invalid(
            f"rho has {len(rho)} elements and coefficients {len(coefficients)}: "
            f"expected one at least, and a multiple of {len(labels)}"
        )
    weights = np.ascontiguousarray(coefficients.reshape(len(labels), -1).T)
    scores = node.add(_product(node, _features(node), weights), float(rho[0]))
    label = _label_of_highest(node, scores, labels)
    if len(labels) == 2 and not node.floats("prob_a"):
        label = _linear_binary(node, scores, labels, label, positive=bool((coefficients >= 0).all()))
    transform = transform_single if len(labels) == 1 else transform_scores
    return [label, transform(node, scores, node.string("post_transform", "NONE"))]


def _linear_binary(node: NodeImport, scores: Value, labels: list[int], label: Value, positive: bool) -> Value:
    """onnxruntime's rule: the second class where the highest score passes a threshold, whoever has it."""
    highest = node.reduce("max", scores, [1], keepdims=False)
    passes = node.map("ge", highest, 0.5) if positive else node.map("gt", highest, 0.0)
    return node.select(passes, node.constant(labels[1], dtypes.INT64), label)


def _floats(node: NodeImport, name: str) -> Floats:
    return np.asarray(node.floats(name) or [], np.float32)


def _features(node: NodeImport) -> Value:
    return node.cast(as_matrix(node, node.input(0)), dtypes.FLOAT32)


def _support_vectors(node: NodeImport, count: int) -> Floats:
    vectors = _floats(node, "support_vectors")
    if not len(vectors) or len(vectors) % count:
        raise node.invalid(f"support_vectors has {len(vectors)} elements: expected a multiple of {count}")
    return vectors.reshape(count, -1)


def _product(node: NodeImport, a: Value, b: npt.NDArray[np.floating]) -> Value:
    """Exact, because what follows magnifies errors: differences of squares, powers, votes."""
    return node.emit(MatMul(exact=True), a, node.builder.constant(np.ascontiguousarray(b)))


def _similarities(node: NodeImport, x: Value, vectors: Floats) -> Value:
    """[N, vectors]: the kernel function of every row of x and every support vector."""
    gamma, shift, degree = ((node.floats("kernel_params") or []) + [0.0, 0.0, 0.0])[:3]
    kind = node.string("kernel_type", "LINEAR")
    if kind == "RBF":
        return _rbf(node, x, vectors, gamma)
    products = _product(node, x, vectors.T)
    match kind:
        case "LINEAR":
            return products
        case "POLY":
            return node.map("pow", node.add(node.mul(products, gamma), shift), degree)
        case "SIGMOID":
            return node.map("tanh", node.add(node.mul(products, gamma), shift))
    raise node.invalid(f"kernel_type is '{kind}': expected LINEAR, POLY, RBF or SIGMOID")


def _rbf(node: NodeImport, x: Value, vectors: Floats, gamma: float) -> Value:
    """exp(-gamma |x - v|^2) by |x|^2 + |v|^2 - 2 x v, from the vectors' centre so that little cancels.

    In float64 where their lengths would still leave too few digits.
    """
    centre = vectors.mean(0, dtype=np.float64).astype(np.float32)
    moved = vectors.astype(np.float64) - centre
    lengths = (moved * moved).sum(1)
    wide = abs(gamma) * float(lengths.max(initial=0)) > _FLOAT32_SPREAD
    dtype = dtypes.FLOAT64 if wide else dtypes.FLOAT32
    x = node.sub(node.cast(x, dtype), node.constant(centre, dtype))
    own = node.reduce("sum", node.mul(x, x), [1])
    products = _product(node, x, (2 * moved.T).astype(dtype.storage))
    distance = node.map("max", node.sub(node.add(own, node.constant(lengths, dtype)), products), 0.0)
    return node.cast(node.map("exp", node.mul(distance, -gamma)), dtypes.FLOAT32)
