"""TreeEnsemble of ai.onnx.ml 5: modes by number, members, leaves apart from nodes."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from onnx import numpy_helper

from tests.operators.tree_models import Attributes, features, ml_case, tolerance
from tests.support import Array, Case, check

LEQ, LT, GTE, GT, EQ, NEQ, MEMBER = range(7)


def five(dtype: Any, modes: tuple[int, ...] = (LEQ, LT, GTE), **more: Any) -> Attributes:
    """A tree of three nodes and four leaves of two targets; node 0 leads to 1 and 2."""
    return {
        "tree_roots": [0],
        "n_targets": 2,
        "nodes_featureids": [0, 1, 2],
        "nodes_modes": numpy_helper.from_array(np.array(modes, np.uint8)),
        "nodes_splits": numpy_helper.from_array(np.array([0.25, -0.5, 1.0], dtype)),
        "nodes_truenodeids": [1, 0, 2],
        "nodes_falsenodeids": [2, 1, 3],
        "nodes_trueleafs": [0, 1, 1],
        "nodes_falseleafs": [0, 1, 1],
        "leaf_targetids": [0, 1, 0, 1],
        "leaf_weights": numpy_helper.from_array(np.array([0.5, -1.25, 2.0, 3.5], dtype)),
        **more,
    }


def case(x: Array, attributes: Attributes, name: str = "", expected: list[Array] | None = None) -> Case:
    return ml_case("TreeEnsemble", x, attributes, version=5, name=name, expected=expected)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_against_onnxruntime(dtype: type) -> None:
    x = features(0, 40, special=True).astype(dtype)
    cases = []
    for mode in (LEQ, LT, GTE, GT, EQ, NEQ):
        for tracks in ([0, 0, 0], [1, 1, 0]):
            attributes = five(dtype, (mode,) * 3, nodes_missing_value_tracks_true=tracks)
            cases.append(case(x, attributes, f"{mode} {tracks}"))
    for aggregate in range(4):
        for transform in range(5):
            attributes = five(dtype, aggregate_function=aggregate, post_transform=transform)
            # onnxruntime takes SOFTMAX and LOGISTIC for each other
            theirs = five(dtype, aggregate_function=aggregate, post_transform=(0, 2, 1, 3, 4)[transform])
            near = tolerance("PROBIT" if transform == 4 else "")
            expected = list(case(x, theirs).expected)
            cases.append(replace(case(x, attributes, f"{aggregate} {transform}", expected), **near))
    check(cases)


def test_a_half_precision_result() -> None:
    x = features(1, 20).astype(np.float16)
    attributes = five(np.float16)
    wide = case(x.astype(np.float32), five(np.float32)).expected
    check([case(x, attributes, expected=[array.astype(np.float16) for array in wide])])


def members(x: Array, sets: list[list[float]], tracks: bool) -> Array:
    """What the tree of `five` gives where all nodes are MEMBER nodes."""
    result = np.zeros((len(x), 2), x.dtype)
    for row, values in enumerate(x):
        inside = [bool(np.isin(values[k], sets[k])) or (tracks and bool(np.isnan(values[k]))) for k in range(3)]
        leaf = (0 if inside[1] else 1) if inside[0] else (2 if inside[2] else 3)
        result[row, leaf % 2] = (0.5, -1.25, 2.0, 3.5)[leaf]
    return result


@pytest.mark.parametrize("tracks", [False, True])
@pytest.mark.parametrize("ended", [False, True])
def test_membership(tracks: bool, ended: bool) -> None:
    """onnxruntime takes members and features for integers, so that the expected values are computed here."""
    x = features(2, 80, special=True)
    sets = [[0.5, -1.0, 0.25, 0.0, 1.0], [float("inf"), 0.5], [-0.5]]
    values = [number for numbers in sets for number in (*numbers, float("nan"))]
    attributes = five(
        np.float32,
        (MEMBER,) * 3,
        membership_values=numpy_helper.from_array(np.array(values if ended else values[:-1], np.float32)),
        nodes_missing_value_tracks_true=[int(tracks)] * 3,
    )
    expected = members(x, sets, tracks)
    assert {tuple(row) for row in expected} == {(0.5, 0), (0, -1.25), (2, 0), (0, 3.5)}
    check([case(x, attributes, expected=[expected])])


def test_an_empty_set_has_no_members() -> None:
    x = features(3, 10)
    sets: list[list[float]] = [[], [0.5], [-0.5, 0.25]]
    values = [float("nan"), 0.5, float("nan"), -0.5, 0.25, float("nan")]
    attributes = five(
        np.float32, (MEMBER,) * 3, membership_values=numpy_helper.from_array(np.array(values, np.float32))
    )
    check([case(x, attributes, expected=[members(x, sets, False)])])


def test_trees_that_share_nodes_and_trees_of_one_leaf() -> None:
    x = features(4, 30)
    shared = {**five(np.float32), "tree_roots": [0, 1, 0]}
    twice = case(x, {**five(np.float32), "tree_roots": [0]}).expected[0] * 2
    side = np.where(x[:, 1] < -0.5, 0.5, 0), np.where(x[:, 1] < -0.5, 0, -1.25)
    leaf = {**five(np.float32), "nodes_truenodeids": [3, 0, 2], "nodes_falsenodeids": [3, 1, 3],
            "nodes_trueleafs": [1, 1, 1], "nodes_falseleafs": [1, 1, 1]}  # fmt: skip
    check(
        [
            case(x, shared, "shared", [(twice + np.stack(side, 1)).astype(np.float32)]),
            case(x, leaf, "leaf", [np.tile(np.array([[0, 3.5]], np.float32), (30, 1))]),
        ]
    )
