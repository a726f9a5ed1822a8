"""Random tree ensembles as attributes of ai.onnx.ml's operators, and models of one such node."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnx
from onnx import helper

from tests.support import Array, Case, ask

MODES = ("BRANCH_LEQ", "BRANCH_LT", "BRANCH_GTE", "BRANCH_GT", "BRANCH_EQ", "BRANCH_NEQ")
Attributes = dict[str, Any]


def ml_case(
    op_type: str,
    x: Array,
    attributes: Mapping[str, Any],
    *,
    version: int = 3,
    outputs: int = 1,
    name: str = "",
    expected: Sequence[Array] | None = None,
    rtol: float = 1e-5,
    atol: float = 1e-6,
) -> Case:
    """A model of one ai.onnx.ml node with a symbolic batch; onnxruntime says what to expect where nothing is given."""
    model = ml_model(op_type, x, attributes, version=version, outputs=outputs)
    arrays = tuple(ask(model, {"x": x}, "onnxruntime") if expected is None else expected)
    return Case(f"{op_type} {name}", model, {"x": x}, arrays, rtol, atol)


def ml_model(
    op_type: str, x: Array, attributes: Mapping[str, Any], *, version: int = 3, outputs: int = 1
) -> onnx.ModelProto:
    results = [f"y{number}" for number in range(outputs)]
    node = helper.make_node(op_type, ["x"], results, domain="ai.onnx.ml", name="the_node", **attributes)
    shape = ["batch", *x.shape[1:]] if x.ndim > 1 else list(x.shape)
    given = helper.make_tensor_value_info("x", helper.np_dtype_to_tensor_dtype(x.dtype), shape)
    graph = helper.make_graph([node], "case", [given], [onnx.ValueInfoProto(name=name) for name in results])
    imports = [helper.make_opsetid("", 17), helper.make_opsetid("ai.onnx.ml", version)]
    return helper.make_model(graph, opset_imports=imports, ir_version=8)


class Trees:
    """Grows random trees; `splits` are the numbers that nodes compare with."""

    def __init__(self, seed: int, features: int, splits: Sequence[float], modes: Sequence[str] = MODES[:1]) -> None:
        self.random = np.random.default_rng(seed)
        self.features, self.splits, self.modes = features, splits, modes
        self.nodes: list[tuple[int, int, int, str, float, int, int, int]] = []
        self.entries: list[tuple[int, int, int, float]] = []

    def grow(self, tree: int, depth: int, targets: Sequence[int], full: bool = False) -> None:
        """A tree of at most `depth` levels (each way to a leaf that long if `full`), its leaves adding to `targets`."""
        count = len(self.nodes)
        pending = [(0, depth)]
        free = 1
        while pending:
            node, left = pending.pop()
            if left == 0 or (not full and node and self.random.random() < 0.25):
                self.nodes.append((tree, node, 0, "LEAF", 0.0, 0, 0, 0))
                self.entries += [(tree, node, target, float(self.random.normal())) for target in targets]
                continue
            feature, mode = int(self.random.integers(self.features)), str(self.random.choice(self.modes))
            split, tracks = float(self.random.choice(self.splits)), int(self.random.integers(2))
            self.nodes.append((tree, node, feature, mode, split, tracks, free, free + 1))
            pending += [(free, left - 1), (free + 1, left - 1)]
            free += 2
        self.nodes[count:] = sorted(self.nodes[count:], key=lambda node: node[1])

    def attributes(self, prefix: str, *, tracks: bool = False, **more: Any) -> Attributes:
        """The attributes of a classifier ("class") or regressor ("target"). `tracks`: missing values are tracked."""
        columns = [list(column) for column in zip(*self.nodes, strict=True)]
        names = ("treeids", "nodeids", "featureids", "modes", "values", "tracks", "truenodeids", "falsenodeids")
        nodes = {f"nodes_{name}": column for name, column in zip(names, columns, strict=True)}
        tracked = nodes.pop("nodes_tracks")
        if tracks:
            nodes["nodes_missing_value_tracks_true"] = tracked
        entries = [list(column) for column in zip(*self.entries, strict=True)]
        weights = dict(
            zip((f"{prefix}_{name}" for name in ("treeids", "nodeids", "ids", "weights")), entries, strict=True)
        )
        return {**nodes, **weights, **more}


def tolerance(transform: str) -> dict[str, float]:
    """onnxruntime's PROBIT loses digits near a half, where it subtracts two numbers of four digits more."""
    return {"rtol": 2e-3, "atol": 1e-4} if transform == "PROBIT" else {}


SPLITS = (-1.0, -0.5, 0.0, 0.25, 0.5, 1.0)


def forest(
    seed: int, trees: int, depth: int, targets: Sequence[Sequence[int]], features: int = 5, **options: Any
) -> Trees:
    """`trees` trees whose leaves add to the sets of `targets` by turns."""
    grown = Trees(seed, features, options.pop("splits", SPLITS), options.pop("modes", MODES[:1]))
    for tree in range(trees):
        grown.grow(tree, depth, targets[tree % len(targets)], **options)
    return grown


def features(seed: int, rows: int, width: int = 5, special: bool = False) -> Array:
    """Random numbers, many of them equal to a split; `special`: also NaN, infinities and negative zeros."""
    random = np.random.default_rng(seed)
    x = random.normal(size=(rows, width)).astype(np.float32)
    same = random.random(x.shape) < 0.3
    x[same] = random.choice(np.array(SPLITS, np.float32), int(same.sum()))
    if special:
        odd = random.random(x.shape) < 0.3
        x[odd] = random.choice(np.array([np.nan, np.inf, -np.inf, -0.0], np.float32), int(odd.sum()))
    return x
