"""Packages for Linux on 64-bit ARM: what they hold, and that they run there, in an emulator."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from emulators import arm64_python, run_package
from mixed_model import BATCH, assert_close, mixed_feed, mixed_model

import onnxsmith
from onnxsmith import artifact, packaging
from onnxsmith.cpu import CodeTarget, generic_target, host
from onnxsmith.errors import InvalidArgument, ModelRequiresCompilation


@pytest.fixture(scope="module")
def folder(package_for: Callable[[str], Path]) -> Path:
    return package_for("aarch64-linux")


def test_what_it_holds(folder: Path) -> None:
    (code,) = artifact.read_manifest(folder / "package").code
    assert code.target == CodeTarget("linux", "aarch64", (), "generic")
    assert (code.file, packaging.platform_tag(code.target)) == ("libpackage.so", "manylinux_2_17_aarch64")
    library = (folder / "package" / code.file).read_bytes()
    assert library[:4] == b"\x7fELF" and int.from_bytes(library[18:20], "little") == 183


def test_a_wheel_from_the_command_line(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "mixed.onnx").write_bytes(mixed_model())
    command = ["compile", "mixed.onnx", "--wheel", "--target", "aarch64-linux", "--format", "json"]
    done = subprocess.run([sys.executable, "-m", "onnxsmith", *command], cwd=tmp_path, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    (row,) = json.loads(done.stdout)
    assert row["program"] == "mixed-0-py3-none-manylinux_2_17_aarch64.whl" and (tmp_path / row["program"]).is_file()


@pytest.mark.skipif(host().machine == "aarch64", reason="this machine runs it")
def test_another_architecture_says_how_to_compile(folder: Path) -> None:
    message = rf"for linux_aarch64 \(generic\), and this is {host().platform}\. .* --target {generic_target()}$"
    with pytest.raises(ModelRequiresCompilation, match=message):
        onnxsmith.load(folder / "package")


@pytest.mark.skipif(host().machine == "aarch64", reason="this machine runs it")
def test_a_session_of_another_machine_is_refused() -> None:
    with pytest.raises(InvalidArgument, match=r"cannot run what it compiled: .* for linux_aarch64 .* write a package"):
        onnxsmith.compile(mixed_model(), target="aarch64-linux")


def test_it_runs_there(folder: Path, expected: list[np.ndarray]) -> None:
    command, environment = arm64_python()
    assert_close(run_package(command, folder, mixed_feed(BATCH), environment), expected)
