"""What onnxruntime makes of the mixed model, and one cache for the packages that are made of it."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
from mixed_model import BATCH, mixed_feed, mixed_model

import onnxsmith


@pytest.fixture(scope="session", autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """One cache for all processes that share the tests."""
    folder = tmp_path_factory.getbasetemp()
    shared = folder.parent if "PYTEST_XDIST_WORKER" in os.environ else folder
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ONNXSMITH_CACHE_DIR", str(shared / "targets-cache"))
        yield


@pytest.fixture(scope="session")
def expected() -> list[np.ndarray]:
    """The outputs for `mixed_feed(BATCH)`."""
    session = onnxruntime.InferenceSession(mixed_model(), providers=["CPUExecutionProvider"])
    return list(session.run(None, mixed_feed(BATCH)))


@pytest.fixture(scope="session")
def package_for(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Makes folder/package of the mixed model for a target; gives the folder, not to be written to."""
    made: dict[str, Path] = {}

    def make(target: str) -> Path:
        if target not in made:
            made[target] = tmp_path_factory.mktemp(target)
            onnxsmith.compile(mixed_model(), made[target] / "package", target=target)
        return made[target]

    return make
