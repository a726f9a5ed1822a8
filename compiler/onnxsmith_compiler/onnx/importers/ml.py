"""ai.onnx.ml: scaling, normalising and linear models."""

from __future__ import annotations

import numpy as np

from onnxsmith_compiler.ir import dim as dims
from onnxsmith_compiler.ir import dtype as dtypes
from onnxsmith_compiler.ir.graph import Value
from onnxsmith_compiler.onnx.importers.activation import softmax_along
from onnxsmith_compiler.onnx.node_import import NodeImport
from onnxsmith_compiler.ops.contraction import MatMul
from onnxsmith_compiler.ops.gather import Gather
from onnxsmith_compiler.ops.view import Concat

_TINY = 1e-7
_PI = 3.14159
"""As onnxruntime has it: what follows cancels digits, so that more of them would make other results."""
_OF_SEVERAL = ("LOGISTIC", "SOFTMAX", "SOFTMAX_ZERO")


def as_matrix(node: NodeImport, x: Value) -> Value:
    """x of shape [N, C], a vector as one row."""
    return node.unsqueeze(x, [0]) if x.rank == 1 else x


def _vector(node: NodeImport, values: list[float]) -> Value:
    return node.constant(values, dtypes.FLOAT32)


def scaler(node: NodeImport) -> Value:
    """(x - offset) * scale as float32; each of the two has one element or one a feature."""
    x = node.cast(node.input(0), dtypes.FLOAT32)
    offset, scale = node.floats("offset"), node.floats("scale")
    if offset:
        x = node.sub(x, _vector(node, offset))
    return node.mul(x, _vector(node, scale)) if scale else x


def normalizer(node: NodeImport) -> Value:
    """Rows divided by their largest element, the sum of sizes, or the Euclidean norm; 0 stays 0."""
    x = node.cast(node.input(0), dtypes.FLOAT32)
    axes = [x.rank - 1]
    match node.string("norm", "MAX"):
        case "MAX":
            size = node.reduce("max", x, axes)
        case "L1":
            size = node.reduce("sum", node.map("abs", x), axes)
        case "L2":
            size = node.map("sqrt", node.reduce("sum", node.mul(x, x), axes))
        case other:
            raise node.invalid(f"norm is '{other}': expected MAX, L1 or L2")
    return node.select(node.map("eq", size, 0), x, node.div(x, size))


def _scores(node: NodeImport, targets: int) -> Value:
    """x times the transposed [targets, C] coefficients, plus the intercepts."""
    x = as_matrix(node, node.cast(node.input(0), dtypes.FLOAT32))
    coefficients = node.floats("coefficients") or []
    weights = np.asarray(coefficients, np.float32).reshape(targets, -1).T
    scores = node.emit(MatMul(), x, node.builder.constant(np.ascontiguousarray(weights)))
    intercepts = node.floats("intercepts")
    return node.add(scores, _vector(node, intercepts)) if intercepts else scores


def linear_regressor(node: NodeImport) -> Value:
    return post_transform(node, _scores(node, node.int("targets", 1)))


def linear_classifier(node: NodeImport) -> list[Value | None]:
    """Outputs: labels [N] and scores [N, classes]. A single score stands for the second of two classes."""
    labels = class_labels(node, "classlabels_ints")
    width = node.input(0).shape[-1]
    coefficients = node.floats("coefficients") or []
    targets = len(node.floats("intercepts") or []) or (len(coefficients) // width if isinstance(width, int) else 0)
    if not targets:
        raise node.unsupported("neither intercepts nor the number of features are known")
    scores = _scores(node, targets)
    return classified(node, scores, labels)


def classified(node: NodeImport, scores: Value, labels: list[int]) -> list[Value | None]:
    names = node.constant(labels, dtypes.INT64)
    if scores.shape[1] == 1 and len(labels) <= 2:
        return _binary(node, scores, labels)
    best = node.reduce("argmax_first", scores, [1], keepdims=False)
    return [node.emit(Gather(0), names, best), post_transform(node, scores)]


def _binary(node: NodeImport, scores: Value, labels: list[int]) -> list[Value | None]:
    """One score: the second class where it is positive. With two labels the first class has the score 1 - s.

    That is onnxruntime's reading, which takes no softmax of a single score; the specification leaves it open.
    """
    positive = node.map("gt", scores, 0.0)
    if len(labels) == 1:
        chosen = node.select(positive, float(labels[0]), node.constant(0, dtypes.INT64))
        return [node.reshape(chosen, (scores.shape[0],)), post_transform(node, scores)]
    first, second = (node.constant(label, dtypes.INT64) for label in labels)
    chosen = node.reshape(node.select(positive, second, first), (scores.shape[0],))
    transform = node.string("post_transform", "NONE")
    score = scores if transform == "NONE" or transform.startswith("SOFTMAX") else post_transform(node, scores)
    first_score = node.sub(node.constant(1, dtypes.FLOAT32), score)
    return [chosen, node.emit(Concat(1), first_score, score)]


def class_labels(node: NodeImport, name: str) -> list[int]:
    labels = node.ints(name)
    if labels:
        return labels
    if node.attribute("classlabels_strings"):
        raise node.unsupported("class labels that are strings")
    raise node.invalid(f"attribute '{name}' is missing")


def post_transform(node: NodeImport, scores: Value) -> Value:
    """The `post_transform` attribute applied to scores [N, classes]."""
    return transform_scores(node, scores, node.string("post_transform", "NONE"))


def transform_scores(node: NodeImport, scores: Value, transform: str) -> Value:
    match transform:
        case "NONE":
            return scores
        case "LOGISTIC":
            return node.map("sigmoid", scores)
        case "SOFTMAX":
            return softmax_along(node, scores, [1])
        case "SOFTMAX_ZERO":
            return _softmax_zero(node, scores)
        case "PROBIT":
            return _probit(node, scores)
    raise node.invalid(f"post_transform is '{transform}'")


def transform_single(node: NodeImport, score: Value, transform: str) -> Value:
    """Scores [N, 1] of a single class or target, to which onnxruntime applies only PROBIT."""
    return transform_scores(node, score, transform if transform not in _OF_SEVERAL else "NONE")


def opposites(node: NodeImport, score: Value, sums_to_one: bool) -> Value:
    """[N, 2] from the second class's scores [N, 1], transformed as onnxruntime does: the first one's is 1 less that, or
    its opposite. A softmax of two opposites is not taken, and PROBIT leaves the second one empty."""
    match node.string("post_transform", "NONE"):
        case "PROBIT":
            return beside(node, _probit(node, score), node.constant(np.zeros((1, 1)), score.dtype))
        case "LOGISTIC":
            return beside(node, *(node.map("sigmoid", side) for side in (node.map("neg", score), score)))
    if sums_to_one:
        return beside(node, node.sub(node.constant(1, score.dtype), score), score)
    return beside(node, node.map("neg", score), score)


def beside(node: NodeImport, first: Value, second: Value) -> Value:
    """[N, 1] and [N, 1] as [N, 2]; either may be one number, [1, 1]."""
    rows = second.shape[0] if first.shape[0] == 1 else first.shape[0]
    return node.emit(Concat(1), *(node.expand(side, (rows, 1)) for side in (first, second)))


def _softmax_zero(node: NodeImport, scores: Value) -> Value:
    """A softmax in which scores of 0 stay 0."""
    top = node.reduce("max", scores, [1])
    is_zero = node.map("le", node.map("abs", scores), _TINY)
    powers = node.select(
        is_zero, node.mul(scores, node.map("exp", node.map("neg", top))), node.map("exp", node.sub(scores, top))
    )
    return node.div(powers, node.reduce("sum", powers, [1]))


def _probit(node: NodeImport, scores: Value) -> Value:
    """sqrt(2) * erfinv(2 x - 1), by Winitzki's approximation of the inverse error function."""
    x = node.sub(node.mul(scores, 2.0), 1.0)
    logarithm = node.map("log", node.mul(node.sub(node.constant(1, x.dtype), x), node.add(x, 1.0)))
    a = node.add(node.mul(logarithm, 0.5), 2.0 / (_PI * 0.147))
    b = node.mul(logarithm, 1.0 / 0.147)
    size = node.map("sqrt", node.sub(node.map("sqrt", node.sub(node.mul(a, a), b)), a))
    return node.mul(node.select(node.map("lt", x, 0.0), node.map("neg", size), size), 1.41421356)


def array_feature_extractor(node: NodeImport) -> Value:
    """The columns of x that the second input names, along the last axis."""
    x, columns = node.input(0), node.input(1)
    flat = node.reshape(columns, (columns.type.size,))
    taken = node.emit(Gather(x.rank - 1), x, flat)
    return node.reshape(taken, (1, columns.type.size)) if x.rank == 1 else taken


def binarizer(node: NodeImport) -> Value:
    x = node.input(0)
    return node.cast(node.map("gt", x, node.float("threshold", 0.0)), x.dtype)


def imputer(node: NodeImport) -> Value:
    """Elements equal to the replaced value (NaN included) become the imputed ones, one in all or one a feature."""
    x = node.input(0)
    integers = node.ints("imputed_value_int64s")
    if integers:
        imputed, replaced = (
            node.constant(integers, x.dtype),
            node.constant(node.int("replaced_value_int64", 0), x.dtype),
        )
        return node.select(node.map("eq", x, replaced), imputed, x)
    values = node.constant(node.floats("imputed_value_floats") or [], x.dtype)
    number = node.float("replaced_value_float", 0.0)
    missing = node.map("isnan", x) if number != number else node.map("eq", x, number)
    return node.select(missing, values, x)


def feature_vectorizer(node: NodeImport) -> Value:
    """The inputs, each cut or filled up with zeros to its `inputdimensions`, side by side as float32."""
    columns = []
    widths = node.ints("inputdimensions") or []
    for number, value in enumerate(value for value in node.inputs if value is not None):
        matrix = node.cast(as_matrix(node, value), dtypes.FLOAT32)
        matrix = node.reshape(matrix, (matrix.shape[0], dims.product(matrix.shape[1:])))
        if number < len(widths) and matrix.shape[1] != widths[number]:
            raise node.invalid(f"input {number} has {matrix.shape[1]} columns, inputdimensions says {widths[number]}")
        columns.append(matrix)
    return columns[0] if len(columns) == 1 else node.emit(Concat(1), *columns)
