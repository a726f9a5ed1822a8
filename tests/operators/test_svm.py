"""Support vector machines against onnxruntime."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import onnxsmith
from tests.operators.tree_models import Attributes, features, ml_case, ml_model, tolerance
from tests.support import Case, check

KERNELS = {
    "LINEAR": (0.0, 0.0, 0.0),
    "POLY": (0.5, 0.3, 3.0),
    "RBF": (0.5, 0.0, 0.0),
    "SIGMOID": (0.3, 0.2, 0.0),
}
TRANSFORMS = ("NONE", "LOGISTIC", "SOFTMAX", "SOFTMAX_ZERO", "PROBIT")
LABELS = [5, 7, -1, 11, 13]


def numbers(random: np.random.Generator, *shape: int, positive: bool = False) -> list[float]:
    values = random.normal(size=shape).astype(np.float32)
    return [float(value) for value in (abs(values) if positive else values).ravel()]


def machine(classes: int, kernel: str, *, probabilities: bool, positive: bool = False, **more: Any) -> Attributes:
    random = np.random.default_rng(classes)
    counts = [1 + number % 3 for number in range(classes)]
    pairs = classes * (classes - 1) // 2
    attributes = {
        "kernel_type": kernel,
        "kernel_params": list(KERNELS[kernel]),
        "vectors_per_class": counts,
        "support_vectors": numbers(random, sum(counts), 5),
        "coefficients": numbers(random, classes - 1, sum(counts), positive=positive),
        "rho": numbers(random, pairs),
        "classlabels_ints": LABELS[:classes],
        **more,
    }
    if probabilities:
        attributes |= {"prob_a": [-1.5 - 0.1 * pair for pair in range(pairs)], "prob_b": [0.1] * pairs}
    return attributes


def two_scores(case: Case, transform: str) -> Case:
    if transform == "PROBIT":
        case.expected[1][:, 1] = 0  # onnxruntime leaves the second score as it finds it
    return case


@pytest.mark.parametrize("kernel", KERNELS)
def test_classifiers(kernel: str) -> None:
    x = features(0, 23)
    cases = []
    for classes in (2, 3, 5):
        for probabilities in (False, True):
            # PROBIT of what is nearly 0 or 1 has no digit in common with onnxruntime's
            for transform in TRANSFORMS[:4] if probabilities else TRANSFORMS:
                attributes = machine(classes, kernel, probabilities=probabilities, post_transform=transform)
                name = f"{classes} {probabilities} {transform}"
                near = {"rtol": 1e-4, "atol": 1e-5, **tolerance(transform)}
                case = ml_case("SVMClassifier", x, attributes, version=1, outputs=2, name=name, **near)
                cases.append(two_scores(case, transform) if classes == 2 and not probabilities else case)
    check(cases)


def test_classifiers_without_support_vectors() -> None:
    x = features(1, 23)
    random = np.random.default_rng(0)
    cases = []
    for classes in (1, 2, 3):
        for positive in (False, True):
            for probabilities in (False, True):
                for transform in TRANSFORMS:
                    attributes = {
                        "kernel_type": "RBF",
                        "kernel_params": [0.5, 0.0, 0.0],
                        "coefficients": numbers(random, classes, 5, positive=positive),
                        "rho": [0.25] * classes,
                        "classlabels_ints": LABELS[:classes],
                        "post_transform": transform,
                    }
                    if probabilities:
                        attributes |= {"prob_a": [-1.5] * classes, "prob_b": [0.1] * classes}
                    cases.append(
                        ml_case("SVMClassifier", x, attributes, version=1, outputs=2, rtol=1e-4, atol=1e-5,
                                name=f"{classes} {positive} {probabilities} {transform}")
                    )  # fmt: skip
    check(cases)


def regressor(kernel: str, vectors: int, **more: Any) -> Attributes:
    random = np.random.default_rng(vectors)
    some = {"support_vectors": numbers(random, vectors, 5)} if vectors else {}
    return {
        "kernel_type": kernel,
        "kernel_params": list(KERNELS[kernel]),
        "n_supports": vectors,
        **some,
        "coefficients": numbers(random, vectors or 5),
        "rho": [0.3],
        **more,
    }


def test_regressors() -> None:
    x = features(2, 23)
    cases = []
    for kernel in KERNELS:
        for vectors in (1, 7, 0):
            for one_class in (0, 1):
                if vectors or kernel == "LINEAR":
                    attributes = regressor(kernel, vectors, one_class=one_class)
                    cases.append(
                        ml_case("SVMRegressor", x, attributes, version=1, name=f"{kernel} {vectors} {one_class}")
                    )
    check(cases)


@pytest.mark.parametrize("dtype", [np.float64, np.int64, np.int32])
def test_other_types_of_features(dtype: type) -> None:
    x = np.random.default_rng(3).integers(-3, 4, (11, 5)).astype(dtype)
    attributes = machine(3, "RBF", probabilities=True)
    regression = regressor("POLY", 4)
    expected = ml_case("SVMRegressor", x.astype(np.float32), regression, version=1).expected
    check(
        [
            ml_case("SVMClassifier", x, attributes, version=1, outputs=2, rtol=1e-4, atol=1e-5),
            ml_case("SVMRegressor", x, regression, version=1, expected=expected, rtol=1e-4),
        ]
    )


@pytest.mark.parametrize("gamma", [0.5, 500.0])
def test_distances_far_from_the_origin(gamma: float) -> None:
    """Vectors around 1000: the digits that matter are those of the differences."""
    random = np.random.default_rng(4)
    vectors = (1000 + random.normal(size=(6, 5))).astype(np.float32)
    x = (vectors[random.integers(6, size=40)] + random.normal(size=(40, 5)) / np.sqrt(gamma * 10)).astype(np.float32)
    attributes = {**regressor("RBF", 6), "kernel_params": [gamma, 0.0, 0.0]}
    attributes["support_vectors"] = [float(value) for value in vectors.ravel()]
    distances = ((x[:, None].astype(np.float64) - vectors[None]) ** 2).sum(2)
    expected = np.exp(-gamma * distances) @ np.array(attributes["coefficients"])[:, None] + 0.3
    check([ml_case("SVMRegressor", x, attributes, version=1, expected=[expected.astype(np.float32)], rtol=1e-4)])


def test_the_same_bits_for_any_number_of_rows_and_threads() -> None:
    x = features(5, 100)
    model = ml_model("SVMClassifier", x, machine(5, "RBF", probabilities=True), version=1, outputs=2)
    results = []
    for threads in (1, 2):
        options = onnxsmith.SessionOptions()
        options.intra_op_num_threads = threads
        session = onnxsmith.InferenceSession(model.SerializeToString(), options)
        results.append(session.run(None, {"x": x}))
        for rows in (0, 1, 2, 17):
            for part, whole in zip(session.run(None, {"x": x[:rows]}), results[-1], strict=True):
                np.testing.assert_array_equal(part, whole[:rows])
    for one, two in zip(*results, strict=True):
        np.testing.assert_array_equal(one, two)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"vectors_per_class": [1, 2]}, "vectors_per_class"),
        ({"vectors_per_class": [3, 4, -1]}, "vectors_per_class"),
        ({"coefficients": [1.0, 2.0]}, "coefficients has 2"),
        ({"coefficients": []}, "coefficients"),
        ({"rho": [1.0]}, "rho has 1"),
        ({"support_vectors": [1.0]}, "support_vectors"),
        ({"prob_a": [1.0]}, "prob_a"),
        ({"prob_a": [1.0], "prob_b": [1.0]}, "prob_a"),
        ({"kernel_type": "SPLINE"}, "kernel_type is 'SPLINE'"),
        ({"post_transform": "TWICE"}, "post_transform"),
        ({"classlabels_ints": []}, "classlabels_ints"),
    ],
)
def test_malformed_machines(changes: dict[str, Any], words: str) -> None:
    attributes = {**machine(3, "POLY", probabilities=False), **changes}
    model = ml_model(
        "SVMClassifier", features(0, 2), {k: v for k, v in attributes.items() if v != []}, version=1, outputs=2
    )
    with pytest.raises(onnxsmith.errors.InvalidGraph, match=f"the_node.*{words}"):
        onnxsmith.InferenceSession(model.SerializeToString())
