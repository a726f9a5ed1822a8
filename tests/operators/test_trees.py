"""Tree ensembles against onnxruntime, whatever their tests, leaves and sizes."""

from __future__ import annotations

import numpy as np
import pytest
from onnx import numpy_helper

import onnxsmith
from tests.operators.tree_models import MODES, SPLITS, features, forest, ml_case, ml_model, tolerance
from tests.support import Case, check

TRANSFORMS = ("NONE", "LOGISTIC", "SOFTMAX", "SOFTMAX_ZERO", "PROBIT")


def session(case: Case, threads: int = 1) -> onnxsmith.InferenceSession:
    options = onnxsmith.SessionOptions()
    options.intra_op_num_threads = threads
    return onnxsmith.InferenceSession(case.model.SerializeToString(), options)


def test_comparisons_and_missing_values() -> None:
    cases = []
    for number, modes in enumerate([*((mode,) for mode in MODES), MODES]):
        x = features(number, 60, special=True)
        for tracks in (False, True):
            attributes = forest(number, 9, 4, [[0]], modes=modes).attributes("target", tracks=tracks, n_targets=1)
            cases.append(ml_case("TreeEnsembleRegressor", x, attributes, name=f"{modes} {tracks}"))
    check(cases)
    check(cases[-2:], optimization_level=0)


def test_thresholds_that_are_no_ordinary_numbers() -> None:
    splits = (0.0, -0.0, float("inf"), float("-inf"), float("nan"), 1e-45, -1e-45, 3.4e38)
    x = np.array([[value] for value in (*splits, 1.0, -1.0, 2e-45, -3.4e38)], np.float32)
    cases = []
    for mode in MODES:
        for tracks in (False, True):
            grown = forest(3, 12, 3, [[0]], features=1, modes=(mode,), splits=splits)
            attributes = grown.attributes("target", tracks=tracks, n_targets=1)
            cases.append(ml_case("TreeEnsembleRegressor", x, attributes, name=f"{mode} {tracks}"))
    check(cases)


@pytest.mark.parametrize("dtype", [np.float64, np.int64, np.int32])
def test_other_types_of_features(dtype: type) -> None:
    splits = (0.1, -2.0, 1.0, 3.0)
    x = np.random.default_rng(1).integers(-4, 5, (40, 5)).astype(dtype)
    if dtype is np.float64:
        x[::3] += 0.1 - np.finfo(np.float32).eps / 8
    grown = forest(5, 10, 4, [[0]], modes=MODES, splits=splits)
    classes = forest(6, 10, 4, [[0, 1, 2]], splits=splits).attributes("class", classlabels_int64s=[4, 2, 9])
    regressor = grown.attributes("target", n_targets=1)
    wide = x.astype(np.float32) if dtype is not np.float64 else x  # onnxruntime's regressor takes no integers
    expected = ml_case("TreeEnsembleRegressor", wide, regressor).expected
    check(
        [
            ml_case("TreeEnsembleRegressor", x, regressor, expected=expected),
            ml_case("TreeEnsembleClassifier", x, classes, outputs=2),
        ]
    )


def test_attributes_of_doubles() -> None:
    x = features(2, 40).astype(np.float64)
    attributes = forest(7, 12, 4, [[0, 1]], splits=(0.1, 0.3, -0.7)).attributes("target", n_targets=2)
    for name in ("nodes_values", "target_weights"):
        doubles = np.array(attributes.pop(name), np.float64)
        attributes[f"{name}_as_tensor"] = numpy_helper.from_array(doubles)
    attributes["base_values_as_tensor"] = numpy_helper.from_array(np.array([0.1, 0.2]))
    x[::2] = np.array([0.1, 0.3, -0.7, 0.1, 0.3])
    check([ml_case("TreeEnsembleRegressor", x, attributes)])


@pytest.mark.parametrize("aggregate", ["SUM", "AVERAGE", "MIN", "MAX"])
def test_aggregates_and_transforms(aggregate: str) -> None:
    x = features(3, 30)
    cases = []
    for targets in (1, 3):
        grown = forest(8, 6, 3, [list(range(targets))])
        for base in (False, True):
            for transform in TRANSFORMS:
                more = {"base_values": [0.1, 0.2, 0.3][:targets]} if base else {}
                attributes = grown.attributes(
                    "target", n_targets=targets, aggregate_function=aggregate, post_transform=transform, **more
                )
                name = f"{targets} {base} {transform}"
                cases.append(ml_case("TreeEnsembleRegressor", x, attributes, name=name, **tolerance(transform)))
    check(cases)


@pytest.mark.parametrize("aggregate", ["SUM", "AVERAGE", "MIN", "MAX"])
def test_targets_without_weights(aggregate: str) -> None:
    """Some rows reach no leaf with a weight for a target, and one target has none at all."""
    grown = forest(9, 3, 3, [[0, 1, 3]])
    random = np.random.default_rng(0)
    kept = [entry for entry in grown.entries if random.random() < 0.6]
    leaves = {entry[:2] for entry in kept}
    grown.entries = kept + [(*node[:2], 0, 0.5) for node in grown.nodes if node[3] == "LEAF" and node[:2] not in leaves]
    attributes = grown.attributes("target", n_targets=4, aggregate_function=aggregate)
    x = features(4, 50)
    based = {**attributes, "base_values": [0.1, 0.2, 0.3, 0.4]}
    check([ml_case("TreeEnsembleRegressor", x, attributes), ml_case("TreeEnsembleRegressor", x, based)])


def forms() -> dict[str, Case]:
    """Ensembles by the form that their leaves take."""
    x = features(5, 150)
    single = forest(10, 21, 5, [[0], [1], [2]]).attributes("target", n_targets=3)
    dense = forest(11, 21, 5, [[0, 1, 2]]).attributes("target", n_targets=3)
    wide = 40
    dense_wide = forest(12, 9, 5, [list(range(wide))]).attributes("target", n_targets=wide)
    many = 900
    sparse = forest(13, 11, 6, [[5, 7], [899]], full=True).attributes("target", n_targets=many)
    named = {"single": single, "dense": dense, "dense-wide": dense_wide, "sparse": sparse}
    return {name: ml_case("TreeEnsembleRegressor", x, attributes) for name, attributes in named.items()}


@pytest.mark.parametrize("form", ["single", "dense", "dense-wide", "sparse"])
def test_the_same_bits_for_any_number_of_rows_and_threads(form: str) -> None:
    case = forms()[form]
    check([case])
    one, two = session(case), session(case, threads=2)
    x = case.feeds["x"]
    (whole,) = one.run(None, {"x": x})
    np.testing.assert_array_equal(two.run(None, {"x": x})[0], whole)
    for rows in (0, 1, 2, 7, 8, 9, 15, 63, 64, 65, 129):
        np.testing.assert_array_equal(one.run(None, {"x": x[:rows]})[0], whole[:rows])


def test_any_number_of_trees() -> None:
    x = features(6, 19)
    cases = []
    for trees in (1, 2, 7, 8, 9, 16, 17):
        for targets in ([[0]], [[0], [1]], [[0, 1]]):
            grown = forest(trees, trees, 5, targets)
            if len(grown.entries) and {entry[2] for entry in grown.entries} == set(range(max(map(max, targets)) + 1)):
                attributes = grown.attributes("target", n_targets=max(map(max, targets)) + 1)
                cases.append(ml_case("TreeEnsembleRegressor", x, attributes, name=f"{trees} {targets}"))
    assert len(cases) >= 20
    check(cases)


def test_more_features_and_nodes_than_narrow_records_hold() -> None:
    random = np.random.default_rng(0)
    x = random.normal(size=(9, 70_000)).astype(np.float32)
    many_features = forest(1, 5, 4, [[0]], features=70_000).attributes("target", n_targets=1)
    many_nodes = forest(2, 2, 16, [[0]], features=70_000, full=True).attributes("target", n_targets=1)
    check([ml_case("TreeEnsembleRegressor", x, many_features), ml_case("TreeEnsembleRegressor", x, many_nodes)])


def test_deep_trees() -> None:
    """A chain of nodes: each one's false branch is the next one."""
    depth = 700
    nodes = range(depth)
    attributes = {
        "nodes_treeids": [0] * (2 * depth + 1),
        "nodes_nodeids": list(range(2 * depth + 1)),
        "nodes_featureids": [0] * (2 * depth + 1),
        "nodes_modes": ["BRANCH_LEQ"] * depth + ["LEAF"] * (depth + 1),
        "nodes_values": [float(node) for node in nodes] + [0.0] * (depth + 1),
        "nodes_truenodeids": [depth + node for node in nodes] + [0] * (depth + 1),
        "nodes_falsenodeids": [node + 1 for node in range(depth - 1)] + [2 * depth] + [0] * (depth + 1),
        "target_treeids": [0] * (depth + 1),
        "target_nodeids": list(range(depth, 2 * depth + 1)),
        "target_ids": [0] * (depth + 1),
        "target_weights": [float(node) for node in range(depth + 1)],
        "n_targets": 1,
    }
    x = np.array([[-1.0], [0.0], [0.5], [300.0], [698.5], [699.0], [1e9], [3.0], [44.0]], np.float32)
    check([ml_case("TreeEnsembleRegressor", x, attributes)])


@pytest.mark.parametrize("count", [1, 2, 3, 5])
def test_classifiers(count: int) -> None:
    x = features(7, 40)
    cases = []
    scored = {"first": [[0]], "last": [[count - 1]], "all": [list(range(count))]}
    for name, targets in scored.items():
        for positive in (False, True):
            grown = forest(14, 4, 3, targets)
            if positive:
                grown.entries = [(*entry[:3], abs(entry[3]) / 3) for entry in grown.entries]
            for base in ((), (0.1,), (0.1, -0.2), (0.1, 0.2, -0.3), (0.5, 0.4, 0.3, 0.2, 0.1)):
                if len(base) not in ((0, count) if count > 2 else range(count + 1)):
                    continue
                for transform in TRANSFORMS:
                    more = {"base_values": list(base)} if base else {}
                    attributes = grown.attributes(
                        "class", classlabels_int64s=[3, 5, 7, -2, 11][:count], post_transform=transform, **more
                    )
                    case = ml_case(
                        "TreeEnsembleClassifier",
                        x,
                        attributes,
                        outputs=2,
                        name=f"{name} {positive} {base} {transform}",
                        **tolerance(transform),
                    )
                    if transform == "PROBIT" and count == 2 and name == "first" and len(base) < 2:
                        # onnxruntime leaves the second score as it finds it
                        case.expected[1][:, 1] = 0
                    cases.append(case)
    check(cases)


def test_a_class_that_no_leaf_scores_is_not_chosen() -> None:
    grown = forest(15, 3, 3, [[0], [1], [3]])
    grown.entries = [(*entry[:3], -abs(entry[3])) for entry in grown.entries]
    random = np.random.default_rng(0)
    leaves = {entry[:2] for entry in grown.entries if random.random() < 0.5}
    grown.entries = [(*entry[:2], 0 if entry[:2] in leaves else entry[2], entry[3]) for entry in grown.entries]
    attributes = grown.attributes("class", classlabels_int64s=[3, 5, 7, 9])
    check([ml_case("TreeEnsembleClassifier", features(8, 60), attributes, outputs=2)])


def test_class_labels_that_are_strings_are_refused() -> None:
    attributes = forest(17, 1, 2, [[0, 1, 2]]).attributes("class", classlabels_strings=["a", "b", "c"])
    model = ml_model("TreeEnsembleClassifier", features(0, 1), attributes, outputs=2)
    with pytest.raises(onnxsmith.errors.NotImplemented, match=r"the_node.*strings"):
        onnxsmith.InferenceSession(model.SerializeToString())


def test_splits_are_taken_at_their_exact_values() -> None:
    """float32 neighbours of each split fall on the right sides."""
    around = [np.nextafter(np.float32(split), np.float32(side)) for split in SPLITS for side in (-9, 9)]
    x = np.array([[value] * 5 for value in (*around, *SPLITS)], np.float32)
    cases = [
        ml_case("TreeEnsembleRegressor", x, forest(18, 8, 4, [[0]], modes=(mode,)).attributes("target", n_targets=1))
        for mode in MODES
    ]
    check(cases)
