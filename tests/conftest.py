"""Options of the tests, and what they ask of the machine."""

from __future__ import annotations

import pytest

from onnxsmith_compiler.codegen.target import Target
from tests import bfloat16_pairs


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--bless", action="store_true", help="write the golden files that changed")


@pytest.fixture(scope="session")
def pairs_target() -> Target:
    """This machine as one that is fast at products of pairs of bfloat16; the test is skipped where it has none."""
    if not bfloat16_pairs.execute():
        pytest.skip("the instruction vdpbf16ps does not execute here")
    return bfloat16_pairs.fast_target(Target.host())
