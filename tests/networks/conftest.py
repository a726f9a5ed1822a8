"""One compiler and its cache of kernels for all tests of whole networks."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from onnxsmith_compiler.codegen.target import Target
from tests.compiling import Compiler


@pytest.fixture(scope="session")
def kernel_cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return Path(os.environ.get("ONNXSMITH_CACHE_DIR") or tmp_path_factory.mktemp("kernels"))


@pytest.fixture(scope="session")
def compiler(kernel_cache: Path) -> Iterator[Compiler]:
    with Compiler(kernel_cache, workers=2) as running:
        yield running


@pytest.fixture(scope="module")
def pairs_compiler(kernel_cache: Path, pairs_target: Target) -> Iterator[Compiler]:
    """Compiles for this machine as one that is fast at products of pairs of bfloat16."""
    with Compiler(kernel_cache, workers=2, target=pairs_target) as running:
        yield running


@pytest.fixture
def private_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Sets ONNXSMITH_CACHE_DIR for one test."""
    monkeypatch.setenv("ONNXSMITH_CACHE_DIR", str(tmp_path))
