"""Operators of ai.onnx.ml beside onnxruntime."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnxruntime
import pytest
from onnx import ModelProto, TensorProto, helper

import onnxsmith

ROWS = 7
FEATURES = 4


def _model(op: str, outputs: dict[str, int], dtype: int = TensorProto.FLOAT, **attributes: Any) -> ModelProto:
    node = helper.make_node(op, ["x"], list(outputs), domain="ai.onnx.ml", **attributes)
    graph = helper.make_graph(
        [node],
        op,
        [helper.make_tensor_value_info("x", dtype, ["rows", FEATURES])],
        [helper.make_tensor_value_info(name, kind, None) for name, kind in outputs.items()],
    )
    imports = [helper.make_opsetid("", 17), helper.make_opsetid("ai.onnx.ml", 1)]
    return helper.make_model(graph, opset_imports=imports, ir_version=8)


def _compare(model: ModelProto, x: np.ndarray) -> None:
    expected = onnxruntime.InferenceSession(model.SerializeToString()).run(None, {"x": x})
    results = onnxsmith.InferenceSession(model.SerializeToString()).run(None, {"x": x})
    for result, wanted in zip(results, expected, strict=True):
        assert result.dtype == wanted.dtype
        np.testing.assert_allclose(result, wanted, rtol=1e-5, atol=1e-6)


def _random(seed: int, *shape: int) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


CLASSES = {"label": TensorProto.INT64, "scores": TensorProto.FLOAT}
SCORES = {"scores": TensorProto.FLOAT}


@pytest.mark.parametrize("transform", ["NONE", "SOFTMAX", "LOGISTIC", "SOFTMAX_ZERO", "PROBIT"])
def test_linear_classifier_of_three_classes(transform: str) -> None:
    model = _model(
        "LinearClassifier",
        CLASSES,
        coefficients=[float(value) for value in _random(0, 3 * FEATURES)],
        intercepts=[0.1, 0.2, 0.3],
        classlabels_ints=[5, 7, 9],
        post_transform=transform,
    )
    _compare(model, _random(1, ROWS, FEATURES) * (0.01 if transform == "PROBIT" else 1))


@pytest.mark.parametrize("transform", ["NONE", "SOFTMAX", "LOGISTIC", "SOFTMAX_ZERO"])
def test_linear_classifier_with_one_score(transform: str) -> None:
    model = _model(
        "LinearClassifier",
        CLASSES,
        coefficients=[float(value) for value in _random(2, FEATURES)],
        intercepts=[0.1],
        classlabels_ints=[5, 7],
        post_transform=transform,
    )
    _compare(model, _random(3, ROWS, FEATURES))


@pytest.mark.parametrize("transform", ["NONE", "SOFTMAX", "LOGISTIC", "SOFTMAX_ZERO"])
def test_linear_regressor(transform: str) -> None:
    coefficients = [float(value) for value in _random(4, 2 * FEATURES)]
    model = _model(
        "LinearRegressor", SCORES, coefficients=coefficients, intercepts=[0.1, 0.2], targets=2, post_transform=transform
    )
    _compare(model, _random(5, ROWS, FEATURES))


@pytest.mark.parametrize("norm", ["MAX", "L1", "L2"])
def test_normalizer(norm: str) -> None:
    _compare(_model("Normalizer", SCORES, norm=norm), _random(6, ROWS, FEATURES))


@pytest.mark.parametrize(
    ("offset", "scale"), [([1.0, 2.0, 3.0, 4.0], [2.0, 0.5, 1.0, 3.0]), ([1.0], [2.0])], ids=["features", "one"]
)
@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.int64, np.int32])
def test_scaler(offset: list[float], scale: list[float], dtype: type) -> None:
    kind = helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
    x = (_random(7, ROWS, FEATURES) * 10).astype(dtype)
    _compare(_model("Scaler", SCORES, kind, offset=offset, scale=scale), x)


def test_binarizer() -> None:
    _compare(_model("Binarizer", SCORES, threshold=0.25), _random(8, ROWS, FEATURES))


def test_imputer_replaces_nan() -> None:
    x = _random(9, ROWS, FEATURES)
    x[::2, 1] = np.nan
    model = _model("Imputer", SCORES, imputed_value_floats=[1.0, 2.0, 3.0, 4.0], replaced_value_float=float("nan"))
    _compare(model, x)
