"""onnxsmith's results for whole networks beside onnxruntime's."""

from pathlib import Path

import numpy as np
import onnxruntime
import pytest

import onnxsmith
from tests.models.catalog import MODELS, SmallModel

# Rounding differences of two float32 engines through a deep network, over the output's scale.
TOLERANCE = 1e-4


@pytest.fixture(scope="session")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


def session(model: SmallModel, cache: Path, threads: int) -> onnxsmith.InferenceSession:
    options = onnxsmith.SessionOptions()
    options.intra_op_num_threads = threads
    options.add_session_config_entry("onnxsmith.cache_dir", str(cache))
    return onnxsmith.InferenceSession(model.proto.SerializeToString(), options)


@pytest.mark.parametrize("model", MODELS, ids=lambda model: model.name)
def test_whole_network(model: SmallModel, cache: Path) -> None:
    peer = onnxruntime.InferenceSession(model.proto.SerializeToString(), providers=["CPUExecutionProvider"])
    one, two = (session(model, cache, threads) for threads in (1, 2))
    for feed in model.feeds():
        expected = peer.run(None, feed)
        results = one.run(None, feed)
        for result, reference in zip(results, expected, strict=True):
            assert result.dtype == reference.dtype
            assert result.shape == reference.shape
            assert np.abs(result - reference).max() < TOLERANCE * np.abs(reference).max()
        for result, shared in zip(results, two.run(None, feed), strict=True):
            np.testing.assert_array_equal(result, shared, "the number of threads changes the result")
