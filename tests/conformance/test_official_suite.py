"""The official ONNX backend suite: every case passes, or stands on the list of those that do not pass yet.

`python -m tests.conformance.bless` writes the list; `... bless --show NAME` runs single cases.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conformance import listing
from tests.conformance.cases import official_cases
from tests.conformance.isolation import IsolatedRunner

_CHUNKS = 32
_SIZE = 2033


@pytest.fixture(scope="session")
def runner(tmp_path_factory: pytest.TempPathFactory) -> Iterator[IsolatedRunner]:
    cache = os.environ.get("ONNXSMITH_CACHE_DIR") or tmp_path_factory.mktemp("conformance")
    with IsolatedRunner(Path(cache), workers=1) as running:
        yield running


def test_the_suite_is_whole() -> None:
    """A new release of onnx with more cases, or fewer, should be noticed."""
    assert len(official_cases()) == _SIZE
    assert not listing.read().keys() - official_cases().keys()


@pytest.mark.parametrize("chunk", range(_CHUNKS))
def test_official_cases(chunk: int, runner: IsolatedRunner) -> None:
    names = list(official_cases())
    size = -(-len(names) // _CHUNKS)
    listed = listing.read()
    wrong = []
    for outcome in runner.run(names[chunk * size : (chunk + 1) * size]):
        if outcome.passed and outcome.name in listed:
            wrong.append(f"{outcome.name} passes now: take it off the list (python -m tests.conformance.bless)")
        elif not outcome.passed and outcome.name not in listed:
            wrong.append(f"{outcome.name}: {outcome.reason}")
    assert not wrong, "\n".join(wrong)
