"""Tree ensembles that no walk could finish, or that would read beside their tables, are refused by name."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from onnx import numpy_helper

import onnxsmith
from tests.operators.test_tree_version_5 import five
from tests.operators.tree_models import Attributes, features, forest, ml_model

Change = Callable[[Attributes], Any]


def regressor() -> Attributes:
    return forest(0, 3, 2, [[0, 1]], full=True).attributes("target", n_targets=2)


def put(name: str, place: int, value: Any) -> Change:
    return lambda attributes: attributes[name].__setitem__(place, value)


def replaced(**values: Any) -> Change:
    return lambda attributes: attributes.update(values)


def cut(name: str) -> Change:
    return lambda attributes: attributes[name].pop()


# the first tree has the nodes 0 to 6, of which 0, 1 and 2 are inner ones
CHANGES: list[tuple[Change, str]] = [
    (put("nodes_truenodeids", 0, 99), "node 0 of tree 0 has node 99 as its true branch"),
    (put("nodes_falsenodeids", 2, -1), "node 2 of tree 0 has node -1 as its false branch"),
    (put("nodes_truenodeids", 1, 0), "cycle"),
    (put("nodes_falsenodeids", 0, 0), "cycle"),
    (put("nodes_nodeids", 5, 4), "node 4 of tree 0 is there twice"),
    (put("nodes_featureids", 0, -1), "feature at position 0 is -1"),
    (put("nodes_featureids", 0, 5), "feature 5 is compared, and x has 5 columns"),
    (put("nodes_featureids", 0, 2**62), "feature at position 0"),
    (put("nodes_modes", 0, "BRANCH_UP"), "mode is 'BRANCH_UP'"),
    (put("target_ids", 3, 2), "target at position 3 is 2"),
    (put("target_ids", 0, -1), "target at position 0 is -1"),
    (put("target_nodeids", 0, 50), "node 50 of tree 0"),
    (put("target_treeids", 0, 50), "tree 50"),
    *(
        (cut(name), f"'{name}' has|'{other}' has")
        for name, other in (
            ("nodes_treeids", "nodes_nodeids"),
            ("nodes_nodeids", "nodes_nodeids"),
            ("nodes_featureids", "nodes_featureids"),
            ("nodes_modes", "nodes_modes"),
            ("nodes_values", "nodes_values"),
            ("nodes_truenodeids", "nodes_truenodeids"),
            ("target_ids", "target_ids"),
            ("target_weights", "target_weights"),
        )
    ),
    (replaced(nodes_missing_value_tracks_true=[1, 0]), "nodes_missing_value_tracks_true"),
    (replaced(base_values=[0.5]), "base_values"),
    (replaced(n_targets=0), "n_targets"),
    (replaced(n_targets=-3), "n_targets"),
    (replaced(aggregate_function="MEDIAN"), "aggregate_function"),
    (replaced(post_transform="TWICE"), "post_transform"),
    (replaced(nodes_values_as_tensor=numpy_helper.from_array(np.zeros(21))), "nodes_values"),
]


@pytest.mark.parametrize("change", CHANGES, ids=[words for _, words in CHANGES])
def test_malformed_ensembles(change: tuple[Change, str]) -> None:
    attributes = regressor()
    change[0](attributes)
    model = ml_model("TreeEnsembleRegressor", features(0, 2), attributes)
    with pytest.raises(onnxsmith.errors.InvalidGraph, match=f"the_node.*({change[1]})"):
        onnxsmith.InferenceSession(model.SerializeToString())


FIVE: list[tuple[dict[str, Any], str]] = [
    ({"tree_roots": [7]}, "node at position 0 is 7"),
    ({"nodes_truenodeids": [9, 0, 2]}, "node at position 0 is 9"),
    ({"nodes_truenodeids": [0, 0, 2]}, "cycle"),
    ({"nodes_falsenodeids": [2, 9, 3]}, "leaf at position 1 is 9"),
    ({"nodes_featureids": [0, 1]}, "nodes_truenodeids"),
    ({"leaf_targetids": [0, 0, 4, 1]}, "target at position 2 is 4"),
    ({"leaf_targetids": [0, 0]}, "leaf_targetids"),
    ({"aggregate_function": 9}, "aggregate_function is 9"),
    ({"post_transform": -1}, "post_transform is -1"),
    ({"nodes_modes": numpy_helper.from_array(np.array([0, 1, 7], np.uint8))}, "mode at position 2 is 7"),
    ({"nodes_modes": numpy_helper.from_array(np.array([0, 6, 6], np.uint8))}, "membership_values"),
]


@pytest.mark.parametrize(("changes", "words"), FIVE, ids=[words for _, words in FIVE])
def test_malformed_ensembles_of_version_5(changes: dict[str, Any], words: str) -> None:
    model = ml_model("TreeEnsemble", features(0, 2), {**five(np.float32), **changes}, version=5)
    with pytest.raises(onnxsmith.errors.InvalidGraph, match=f"the_node.*{words}"):
        onnxsmith.InferenceSession(model.SerializeToString())


def test_too_few_features_of_an_unknown_number() -> None:
    model = ml_model("TreeEnsembleRegressor", features(0, 2), regressor())
    model.graph.input[0].type.tensor_type.shape.dim[1].dim_param = "width"
    session = onnxsmith.InferenceSession(model.SerializeToString())
    (expected,) = session.run(None, {"x": features(0, 9)})
    (wider,) = session.run(None, {"x": np.pad(features(0, 9), ((0, 0), (0, 3)))})
    np.testing.assert_array_equal(wider, expected)
    with pytest.raises(onnxsmith.errors.Fail, match="the_node"):
        session.run(None, {"x": features(0, 9)[:, :3]})
