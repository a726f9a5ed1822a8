"""LabelEncoder between numbers, against onnxruntime."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from onnx import numpy_helper

import onnxsmith
from tests.operators.tree_models import ml_case, ml_model
from tests.support import Case, check

NAN = float("nan")


def encoder(x: np.ndarray, version: int, **attributes: Any) -> Case:
    return ml_case("LabelEncoder", x, attributes, version=version, name=str(attributes))


def test_lists() -> None:
    whole = np.array([[3, -7, 0], [12, 4, 3]], np.int64)
    parts = np.array([1.5, NAN, -0.0, 0.0, float("inf"), 2.25], np.float32)
    check(
        [
            encoder(whole, 2, keys_int64s=[4, 3, -7], values_int64s=[10, 20, 30]),
            encoder(whole, 2, keys_int64s=[4, 3, -7], values_int64s=[10, 20, 30], default_int64=5),
            encoder(whole, 2, keys_int64s=[12], values_floats=[0.5]),
            encoder(whole, 2, keys_int64s=[12], values_floats=[0.5], default_float=9.25),
            encoder(parts, 2, keys_floats=[2.25, 0.0, 1.5], values_int64s=[1, 2, 3]),
            encoder(parts, 2, keys_floats=[2.25, NAN, float("inf")], values_floats=[1.0, 2.0, 3.0]),
            encoder(parts, 2, keys_floats=[NAN], values_int64s=[7]),
            encoder(whole, 2, keys_int64s=[3, 3, 4], values_int64s=[1, 2, 3]),
            encoder(whole[:0], 2, keys_int64s=[3], values_int64s=[1]),
        ]
    )


def test_nan_is_a_key_from_version_4_on() -> None:
    x = np.array([NAN, 1.0, 2.0, -NAN], np.float32)
    lists = {"keys_floats": [NAN, 1.0], "values_int64s": [7, 8]}
    only = {"keys_floats": [NAN], "values_int64s": [7]}
    check([encoder(x, version, **attributes) for attributes in (lists, only) for version in (2, 4)])


def test_many_keys() -> None:
    random = np.random.default_rng(0)
    keys = random.permutation(2000)[:777]
    x = random.integers(-5, 2005, 3000)
    check([encoder(x, 2, keys_int64s=keys.tolist(), values_int64s=random.integers(99, size=777).tolist())])


@pytest.mark.parametrize(("key", "value"), [(np.float64, np.float64), (np.int64, np.float32), (np.float32, np.int64)])
def test_tensors(key: type, value: type) -> None:
    keys, values = np.array([5, -2, 3]).astype(key), np.array([1, 4, 9]).astype(value)
    x = np.array([3, 3, 5, 8, -2]).astype(key)
    expected = np.array([9, 9, 1, 7, 4]).astype(value)
    attributes = {
        "keys_tensor": numpy_helper.from_array(keys),
        "values_tensor": numpy_helper.from_array(values),
        "default_tensor": numpy_helper.from_array(np.array([7], value)),
    }
    check([ml_case("LabelEncoder", x, attributes, version=4, expected=[expected])])


@pytest.mark.parametrize(
    ("attributes", "words"),
    [
        ({"keys_int64s": [1, 2], "values_int64s": [1]}, "2 keys and 1 values"),
        ({"keys_floats": [1.0], "values_int64s": [1]}, "keys are float32"),
        ({"keys_int64s": [1]}, "no values"),
    ],
)
def test_malformed_tables(attributes: dict[str, Any], words: str) -> None:
    model = ml_model("LabelEncoder", np.zeros(3, np.int64), attributes, version=2)
    with pytest.raises(onnxsmith.errors.InvalidGraph, match=f"the_node.*{words}"):
        onnxsmith.InferenceSession(model.SerializeToString())


def test_strings_are_refused() -> None:
    attributes = {"keys_int64s": [1], "values_strings": ["one"]}
    model = ml_model("LabelEncoder", np.zeros(3, np.int64), attributes, version=2)
    with pytest.raises(onnxsmith.errors.NotImplemented, match=r"the_node.*strings"):
        onnxsmith.InferenceSession(model.SerializeToString())
