"""Operator tests share one cache of compiled kernels, so that a kernel is compiled once a run."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest


@pytest.fixture(autouse=True, scope="session")
def kernel_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Sets ONNXSMITH_CACHE_DIR for the run, unless the caller chose one."""
    if "ONNXSMITH_CACHE_DIR" in os.environ:
        yield
        return
    os.environ["ONNXSMITH_CACHE_DIR"] = str(tmp_path_factory.mktemp("cache"))
    yield
    del os.environ["ONNXSMITH_CACHE_DIR"]
