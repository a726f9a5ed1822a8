"""scikit-learn's trees and support vector machines, converted by skl2onnx, against their own predictions."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import onnxruntime
import pytest
from skl2onnx import to_onnx
from sklearn.datasets import load_digits
from sklearn.ensemble import (
    ExtraTreesRegressor,
    GradientBoostingClassifier,
    GradientBoostingRegressor,
    RandomForestClassifier,
)
from sklearn.svm import SVC, SVR, NuSVC, OneClassSVM
from sklearn.tree import DecisionTreeClassifier

import onnxsmith

MODELS: dict[str, tuple[Callable[[], Any], int]] = {
    "forest": (lambda: RandomForestClassifier(20, random_state=0), 10),
    "forest of two classes": (lambda: RandomForestClassifier(20, random_state=0), 2),
    "tree": (lambda: DecisionTreeClassifier(random_state=0), 10),
    "boosting": (lambda: GradientBoostingClassifier(n_estimators=5, random_state=0), 10),
    "boosting of two classes": (lambda: GradientBoostingClassifier(n_estimators=5, random_state=0), 2),
    "extra trees": (lambda: ExtraTreesRegressor(9, random_state=0), 10),
    "boosted regression": (lambda: GradientBoostingRegressor(n_estimators=9, random_state=0), 10),
    "svc": (lambda: SVC(probability=True, random_state=0), 10),
    "svc without probabilities": (lambda: SVC(kernel="poly", degree=2), 5),
    "svc of two classes": (lambda: SVC(kernel="sigmoid", gamma=1e-4), 2),
    "nu-svc": (lambda: NuSVC(nu=0.1, kernel="linear"), 4),
    "svr": (lambda: SVR(), 10),
    "one class": (lambda: OneClassSVM(nu=0.1), 10),
}


@pytest.mark.parametrize("name", MODELS)
def test_predictions(name: str) -> None:
    make, classes = MODELS[name]
    data, labels = load_digits(return_X_y=True)
    chosen = labels < classes
    x, y = data[chosen].astype(np.float32), labels[chosen]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        trained = make().fit(x[:300], y[:300])
        choices = {id(trained): {"zipmap": False}} if hasattr(trained, "classes_") else None
        opsets = {"": 17, "ai.onnx.ml": 3}
        model = to_onnx(trained, x[:1], options=choices, target_opset=opsets).SerializeToString()
    outputs = onnxsmith.InferenceSession(model).run(None, {"X": x})
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1  # with more it adds trees up in another order, and ties fall otherwise
    theirs = onnxruntime.InferenceSession(model, options).run(None, {"X": x})
    for ours, wanted in zip(outputs, theirs, strict=True):
        assert ours.dtype == wanted.dtype
        assert ours.shape == wanted.shape
        np.testing.assert_allclose(ours, wanted, rtol=1e-4, atol=1e-5 * max(1.0, float(np.abs(wanted).max())))
    predicted = outputs[0].reshape(-1)
    if predicted.dtype == np.int64:
        assert np.mean(predicted == trained.predict(x)) > 0.998
    else:
        np.testing.assert_allclose(predicted, trained.predict(x), rtol=1e-3, atol=1e-3)
