"""What the benchmark says of engines: errors, turns, counted work, tables."""

import json
from pathlib import Path

import numpy as np
import onnx
import pytest
from bench import child, report, work
from bench.catalog import MODELS, RELATIVES, make_feed, select
from onnx import helper
from tests.models import convolutional, recurrent
from tests.models.catalog import make_feed as small_feed


@pytest.mark.parametrize(
    ("actual", "expected", "error"),
    [
        ([1.0, 2.0], [1.0, 2.0], 0.0),
        ([1.0, 2.5], [1.0, -5.0], 1.5),
        ([1.0, np.nan], [1.0, np.nan], 0.0),
        ([1.0, np.nan], [1.0, 2.0], np.inf),
        ([1.0, np.inf], [1.0, np.inf], 0.0),
        ([0.5, 0.0], [0.0, 0.0], 0.5),
        ([1.0], [1.0, 2.0], np.inf),
        ([1, 2, 3, 4], [1, 2, 3, 5], 0.25),
    ],
)
def test_error_is_relative_to_the_scale(actual: list[float], expected: list[float], error: float) -> None:
    assert child.error(np.array(actual), np.array(expected)) == pytest.approx(error)


@pytest.mark.parametrize(("actual", "expected"), [([np.inf, 1], [2, 1]), ([2, 1], [np.inf, 1])])
def test_infinity_in_one_engine_alone_is_an_error(actual: list[float], expected: list[float]) -> None:
    assert child.error(np.array(actual, np.float32), np.array(expected, np.float32)) == np.inf


def test_engines_take_turns_and_their_first_run_is_not_timed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(child, "TURN_SECONDS", 0.0)
    monkeypatch.setattr(child, "REST_SECONDS", 0.0)
    calls: list[str] = []
    runs = [lambda _, name=name: calls.append(name) for name in ("a", "b")]
    times = child.alternate(runs, {}, repeats=2)
    turn = child.MIN_RUNS + 1
    assert calls == (["a"] * turn + ["b"] * turn) * 2
    assert [len(taken) for taken in times] == [2 * child.MIN_RUNS] * 2


def test_peak_memory_counts_what_was_touched() -> None:
    before = child.peak_mib()
    touched = np.ones(64 << 20, np.uint8)
    assert child.peak_mib() > before + 30
    del touched


def test_multiply_adds_of_a_matrix_product(tmp_path: Path) -> None:
    value = [helper.make_tensor_value_info(name, 1, ["m", "n"]) for name in ("a", "b", "y")]
    graph = helper.make_graph([helper.make_node("MatMul", ["a", "b"], ["y"])], "g", value[:2], value[2:])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.save(model, tmp_path / "model.onnx")
    feed = {"a": np.ones((3, 5), np.float32), "b": np.ones((5, 7), np.float32)}
    assert work.multiply_adds(tmp_path / "model.onnx", feed) == 3 * 5 * 7


def test_multiply_adds_of_networks(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    onnx.save(convolutional.vgg(width=4, size=8, blocks=(1,), classes=3), path)
    feed = small_feed(onnx.load(path), {}, seed=0)
    assert work.multiply_adds(path, feed) == 8 * 8 * 4 * 3 * 9 + 64 * 32 + 32 * 32 + 32 * 3
    onnx.save(recurrent.recurrent("GRU", hidden=4, layers=1, steps=6, features=5), path)
    feed = small_feed(onnx.load(path), {}, seed=0)
    assert work.multiply_adds(path, feed) == 6 * 3 * 4 * (5 + 4)


def test_feeds_follow_the_declared_shapes() -> None:
    (bert,) = select(["bert-base-symbolic"])
    names = ("input_ids", "attention_mask", "token_type_ids")
    feed = make_feed(bert, [(name, ["batch", "sequence"]) for name in names])
    assert {array.shape for array in feed.values()} == {(1, 100)}
    assert feed["token_type_ids"].max() == 1
    with pytest.raises(KeyError, match="no bench model is called resnet51"):
        select(["resnet51"])


def engine_cells(ours: dict[str, object]) -> dict[str, dict[str, object]]:
    peer = {"ms": 4.0, "runs": 9, "errors": [0.0]}
    return {"onnxsmith": ours, "onnxruntime": peer, "OpenVINO": peer | {"ms": 3.0}}


@pytest.mark.parametrize(
    ("ours", "row"),
    [
        ({"ms": 2.0, "runs": 9, "errors": [1e-6]}, "| resnet50 | 2 | 4 | 3 | 2.00 | 1.50 | 50% | 1.0e-06 |"),
        (
            {"ms": 2.0, "runs": 9, "errors": [1e-6, 0.5]},
            "| resnet50 | wrong | 4 | 3 | - | - | 50% | 5.0e-01 |",
        ),
        ({"failure": "no such operator"}, "| resnet50 | fails | 4 | 3 | - | - | - | - |"),
    ],
)
def test_table_shows_results_and_failures(ours: dict[str, object], row: str) -> None:
    cells = engine_cells(ours)
    models = {
        "resnet50": {
            "commit": "abc",
            "load": 0.1,
            "multiply_adds": 100_000_000,
            "footprint": {name: {"open_s": 0.5, "first_run_s": 0.1, "peak_mib": 99.0} for name in cells},
            "threads": {"1": cells},
        }
    }
    results = json.loads(json.dumps({"machine": {"peak": {"1": 100.0}}, "models": models}))
    assert row in report.latency_table(results, "1").splitlines()
    assert ("no such operator" in report.failures(results)) == ("failure" in ours)
    assert report.speedups(results, "1", "onnxruntime") == ({"resnet50": 2.0} if row.endswith("e-06 |") else {})


def test_names_of_models_are_distinct() -> None:
    assert len({model.name for model in MODELS}) == len(MODELS)


def test_relatives_are_models_of_the_benchmark() -> None:
    assert {*RELATIVES, *RELATIVES.values()} <= {model.name for model in MODELS}
