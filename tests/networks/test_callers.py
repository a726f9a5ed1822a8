"""Many threads: on one session, and each on its own; results are those of a lone caller."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import pytest

import onnxsmith
from tests.models.catalog import BY_NAME, SmallModel

CALLERS = 4
RUNS = 6


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


def session(model: SmallModel, cache: Path) -> onnxsmith.InferenceSession:
    options = onnxsmith.SessionOptions()
    options.intra_op_num_threads = 2
    options.add_session_config_entry("onnxsmith.cache_dir", str(cache))
    return onnxsmith.InferenceSession(model.proto.SerializeToString(), options)


def at_once(work: Callable[[int], None]) -> None:
    """Runs work(0), work(1), ... in threads that begin together; the first failure is raised."""
    failures: list[BaseException] = []
    gate = threading.Barrier(CALLERS)

    def run(number: int) -> None:
        gate.wait()
        try:
            work(number)
        except BaseException as failure:  # shown by the test's own thread
            failures.append(failure)

    threads = [threading.Thread(target=run, args=(number,)) for number in range(CALLERS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failures:
        raise failures[0]


def assert_runs_alike(
    running: onnxsmith.InferenceSession, feed: Mapping[str, np.ndarray], expected: list[np.ndarray]
) -> None:
    for found, wanted in zip(running.run(None, dict(feed)), expected, strict=True):
        np.testing.assert_array_equal(found, wanted)


@pytest.mark.parametrize("name", ["resnet18-batch", "bert-symbolic", "lstm"])
def test_one_session_serves_many_threads(name: str, cache: Path) -> None:
    model = BY_NAME[name]
    running = session(model, cache)
    feeds = [feed for seed in range(2) for feed in model.feeds(seed)]
    expected = [running.run(None, feed) for feed in feeds]

    def work(number: int) -> None:
        for turn in range(RUNS):
            chosen = (number + turn) % len(feeds)
            assert_runs_alike(running, feeds[chosen], expected[chosen])

    at_once(work)


def test_sessions_of_different_models_at_once(cache: Path) -> None:
    models = [BY_NAME[name] for name in ("resnet18", "bert-symbolic", "mobilenet_v2", "gru")]
    sessions = [session(model, cache) for model in models]
    feeds = [model.feeds()[0] for model in models]
    expected = [running.run(None, feed) for running, feed in zip(sessions, feeds, strict=True)]

    def work(number: int) -> None:
        for _ in range(RUNS):
            assert_runs_alike(sessions[number], feeds[number], expected[number])

    at_once(work)


def test_sessions_made_at_once_share_the_cache(tmp_path: Path) -> None:
    model = BY_NAME["lstm"]
    feed = model.feeds()[0]
    results: list[list[np.ndarray]] = []
    at_once(lambda number: results.append(session(model, tmp_path).run(None, feed)))
    assert len(results) == CALLERS
    for other in results[1:]:
        for found, wanted in zip(other, results[0], strict=True):
            np.testing.assert_array_equal(found, wanted)
