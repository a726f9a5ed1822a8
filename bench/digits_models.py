"""Trains classifiers of scikit-learn's digits (8x8 images, ten classes) and converts them to ONNX."""

from __future__ import annotations

from pathlib import Path

from skl2onnx import to_onnx
from skl2onnx.common.data_types import FloatTensorType
from sklearn.base import ClassifierMixin
from sklearn.datasets import load_digits
from sklearn.ensemble import GradientBoostingClassifier, RandomForestClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import train_test_split
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC

from bench.catalog import ZooModel

OPSET = {"": 17, "ai.onnx.ml": 3}


def classifier(name: str) -> ClassifierMixin:
    """The untrained classifier behind a digits model's name."""
    if name == "digits-linear":
        return make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000))
    if name == "digits-mlp":
        return make_pipeline(StandardScaler(), MLPClassifier((64, 32), max_iter=500, random_state=0))
    if name == "digits-forest":
        return RandomForestClassifier(100, random_state=0)
    if name == "digits-boosting":
        return GradientBoostingClassifier(random_state=0)
    if name == "digits-svc":
        return SVC(probability=True, random_state=0)
    raise KeyError(f"no digits model is called {name}")


def export(model: ZooModel, path: Path) -> None:
    """Trains `model` on three quarters of the digits and writes it to `path`.

    The ONNX model maps "image" float32 [batch, 64] to "label" int64 [batch] and "probabilities" float32
    [batch, 10].
    """
    data, labels = load_digits(return_X_y=True)
    train_data, _, train_labels, _ = train_test_split(data, labels, random_state=0)
    trained = classifier(model.file or model.name).fit(train_data, train_labels)
    converted = to_onnx(
        trained,
        initial_types=[("image", FloatTensorType([None, data.shape[1]]))],
        options={id(trained): {"zipmap": False}},
        target_opset=OPSET,
    )
    for value in (*converted.graph.input, *converted.graph.output):
        value.type.tensor_type.shape.dim[0].dim_param = "batch"
    path.write_bytes(converted.SerializeToString())
