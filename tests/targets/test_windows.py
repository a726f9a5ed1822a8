"""Packages for Windows: what they hold, and that their code runs there, in Wine."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from mixed_model import BATCH, assert_close, mixed_feed
from windows_run import build_runner, run_code, wine_command

import onnxsmith
from onnxsmith import artifact, packaging
from onnxsmith.cpu import cpu_features, host
from onnxsmith.errors import ModelRequiresCompilation

LEVELS = ("x86-64-v4", "x86-64-v3", "x86-64-v2")

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("ziglang") is None, reason="Zig, which links for Windows, is not installed"
)


@pytest.fixture(scope="module")
def package(package_for: Callable[[str], Path]) -> Path:
    return package_for("x86_64-windows") / "package"


@pytest.fixture(scope="module")
def runner(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runner")
    wine_command(folder)
    return build_runner(folder)


def test_what_it_holds(package: Path) -> None:
    manifest = artifact.read_manifest(package)
    assert tuple(code.target.level for code in manifest.code) == LEVELS
    better = [f"levels/{level}/package.dll" for level in LEVELS[:2]]
    assert [code.file for code in manifest.code] == [*better, "package.dll"]
    assert {code.target[:2] for code in manifest.code} == {("win32", "AMD64")}
    assert packaging.platform_tag(manifest.code[-1].target) == "win_amd64"
    for code in manifest.code:
        library = (package / code.file).read_bytes()
        header = int.from_bytes(library[60:64], "little")
        assert library[:2] == b"MZ" and library[header : header + 6] == b"PE\0\0\x64\x86"
        imports = header + 24 + 112 + 8  # the second entry of the data directory
        assert library[imports : imports + 8] == bytes(8), "nothing is imported"


def test_another_system_says_how_to_compile(package: Path) -> None:
    with pytest.raises(
        ModelRequiresCompilation, match=rf"the code is for win32_AMD64 .*, and this is {host().platform}"
    ):
        onnxsmith.load(package)


@pytest.mark.slow  # Zig first compiles the C library that the runner needs
@pytest.mark.parametrize("level", LEVELS)
def test_every_level_runs_on_the_pool(
    level: str, package: Path, runner: Path, expected: list[np.ndarray], tmp_path: Path
) -> None:
    (code,) = (code for code in artifact.read_manifest(package).code if code.target.level == level)
    missing = set(code.target.features) - (cpu_features() or frozenset())
    if missing:
        pytest.skip(f"this CPU lacks {', '.join(sorted(missing))}")
    assert_close(run_code(package, code, mixed_feed(BATCH), runner, tmp_path), expected)
