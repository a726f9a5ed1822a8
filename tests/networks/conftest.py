"""One compiler and its cache of kernels for all tests of whole networks."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.compiling import Compiler


@pytest.fixture(scope="session")
def compiler(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Compiler]:
    cache = os.environ.get("ONNXSMITH_CACHE_DIR") or tmp_path_factory.mktemp("kernels")
    with Compiler(Path(cache), workers=2) as running:
        yield running


@pytest.fixture
def private_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Sets ONNXSMITH_CACHE_DIR for one test."""
    monkeypatch.setenv("ONNXSMITH_CACHE_DIR", str(tmp_path))
