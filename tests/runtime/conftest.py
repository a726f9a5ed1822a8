"""Models and a cache folder for the tests of the session."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator

import numpy as np
import pytest
from onnx import helper
from small_models import model, tensor


@pytest.fixture(scope="session", autouse=True)
def cache_folder(tmp_path_factory) -> Iterator[str]:
    """One cache for all tests of a run, and nothing of the user's."""
    folder = str(tmp_path_factory.mktemp("cache") / "onnxsmith")
    before = os.environ.get("ONNXSMITH_CACHE_DIR")
    os.environ["ONNXSMITH_CACHE_DIR"] = folder
    yield folder
    if before is None:
        del os.environ["ONNXSMITH_CACHE_DIR"]
    else:
        os.environ["ONNXSMITH_CACHE_DIR"] = before


@pytest.fixture(scope="session")
def add_model() -> bytes:
    """z = x + y, both [N, 3]."""
    return model(
        [helper.make_node("Add", ["x", "y"], ["z"], name="add")],
        [tensor("x", ["N", 3]), tensor("y", ["N", 3])],
        [tensor("z", ["N", 3])],
    )


@pytest.fixture(scope="session")
def relu_model() -> bytes:
    """y = relu(x), [N]."""
    return model([helper.make_node("Relu", ["x"], ["y"], name="relu")], [tensor("x", ["N"])], [tensor("y", ["N"])])


@pytest.fixture(scope="session")
def random() -> Callable[..., np.ndarray]:
    generator = np.random.default_rng(0)
    return lambda *shape: generator.standard_normal(shape).astype(np.float32)
