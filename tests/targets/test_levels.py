"""Packages for x86-64: code for several levels of CPU, of which the best that runs here is taken."""

from __future__ import annotations

import json
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from emulators import qemu_x86, run_package
from mixed_model import BATCH, assert_close, mixed_feed, mixed_model

import onnxsmith
from onnxsmith import artifact, cpu, manifest
from onnxsmith.cpu import cpu_features, host
from onnxsmith.errors import Fail, ModelRequiresCompilation

LEVELS = ("x86-64-v4", "x86-64-v3", "x86-64-v2")
MOST_BYTES = 1_500_000

pytestmark = pytest.mark.skipif(host().platform != "linux_x86_64", reason="this machine is not of Linux on x86-64")


@pytest.fixture(scope="module")
def package(package_for: Callable[[str], Path]) -> Path:
    """package/ for every level, not to be written to."""
    return package_for("x86_64-linux") / "package"


@pytest.fixture
def only(monkeypatch: pytest.MonkeyPatch, package: Path) -> Callable[[str], None]:
    """Makes this CPU look like one of a level, if it reaches it."""
    needed = {code.target.level: frozenset(code.target.features) for code in artifact.read_manifest(package).code}

    def restrict(level: str) -> None:
        missing = needed[level] - (cpu_features() or frozenset())
        if missing:
            pytest.skip(f"this CPU lacks {', '.join(sorted(missing))}")
        monkeypatch.setattr(cpu, "cpu_features", lambda: needed[level])

    return restrict


def test_it_holds_every_level(package: Path) -> None:
    held = artifact.read_manifest(package)
    assert tuple(code.target.level for code in held.code) == LEVELS
    # Where glibc's dynamic linker looks for the best version of a library.
    better = [f"glibc-hwcaps/{level}/libpackage.so" for level in LEVELS[:2]]
    assert [code.file for code in held.code] == [*better, "libpackage.so"]
    assert [set(code.target.features) > {"pni"} for code in held.code] == [True] * 3
    artifact.verify_files(package, held)
    others = sum(entry.bytes for name, entry in held.files.items() if name != artifact.WEIGHTS)
    assert others < MOST_BYTES


def test_levels_share_packed_weights(package: Path) -> None:
    """The programs point into one file of weights, which is no larger than that for this CPU alone."""
    texts = [json.loads((package / f"program-{level}.json").read_text()) for level in LEVELS]
    assert len({text["weight_bytes"] for text in texts}) == 1
    alone = artifact.read_manifest(onnxsmith.compile(mixed_model(), package.parent / "native", target="native"))
    ours = artifact.read_manifest(package)
    assert ours.files[artifact.WEIGHTS].bytes <= 1.2 * alone.files[artifact.WEIGHTS].bytes


@pytest.mark.parametrize("level", LEVELS)
def test_every_level_gives_the_results(
    level: str, package: Path, only: Callable[[str], None], expected: list[np.ndarray]
) -> None:
    only(level)
    session = onnxsmith.load(package)
    assert_close(session.run(None, mixed_feed(BATCH)), expected)


def test_levels_with_fused_multiply_adds_give_the_same_bits_of_products(
    package: Path, only: Callable[[str], None]
) -> None:
    results = []
    for level in LEVELS[:2]:
        only(level)
        results.append(onnxsmith.load(package).run(["rows"], mixed_feed(1))[0])
    np.testing.assert_array_equal(*results)


@pytest.mark.parametrize(("level", "model"), [("x86-64-v3", "Haswell"), ("x86-64-v2", "Nehalem")])
def test_a_cpu_of_just_that_level_runs_it(
    level: str, model: str, package: Path, expected: list[np.ndarray], tmp_path: Path
) -> None:
    """An instruction that the CPU lacks would end the process."""
    command = qemu_x86(model)
    shutil.copytree(package, tmp_path / "package")
    keep_level(tmp_path / "package", level)  # /proc/cpuinfo still shows the CPU below the emulator
    assert_close(run_package(command, tmp_path, mixed_feed(BATCH)), expected)


def test_a_cpu_below_all_levels_is_told_what_it_lacks(monkeypatch: pytest.MonkeyPatch, package: Path) -> None:
    monkeypatch.setattr(cpu, "cpu_features", lambda: frozenset(["pni", "ssse3", "cx16", "lahf_lm"]))
    with pytest.raises(ModelRequiresCompilation) as refusal:
        onnxsmith.load(package)
    assert str(refusal.value).endswith(
        f"{package}: the code is for linux_x86_64 (x86-64-v4, x86-64-v3, x86-64-v2), and this CPU lacks popcnt, "
        "sse4_1, sse4_2, which x86-64-v2 needs. Compile the model again: "
        f"onnxsmith compile MODEL.onnx -o {package} --target native"
    )


@pytest.mark.parametrize("name", ["program-x86-64-v3.json", "glibc-hwcaps/x86-64-v3/libpackage.so"])
def test_the_files_of_the_chosen_level_are_checked_and_others_on_demand(
    name: str, package: Path, only: Callable[[str], None], tmp_path: Path
) -> None:
    copy = Path(shutil.copytree(package, tmp_path / "package"))
    content = bytearray((copy / name).read_bytes())
    content[len(content) // 2] ^= 1
    (copy / name).write_bytes(content)
    with pytest.raises(Fail, match=f"{name}: damaged"):
        onnxsmith.load(copy, verify=True)
    only("x86-64-v2")
    assert onnxsmith.load(copy)
    only("x86-64-v3")
    with pytest.raises(Fail, match=f"{name}: damaged"):
        onnxsmith.load(copy)


def test_wheels_are_for_any_linux_of_the_architecture(tmp_path: Path) -> None:
    wheel = onnxsmith.compile(mixed_model(), tmp_path / "mixed", wheel=True)
    assert wheel.name == "mixed-0-py3-none-manylinux_2_17_x86_64.whl"
    with zipfile.ZipFile(wheel) as archive:
        assert "Tag: py3-none-manylinux_2_17_x86_64" in archive.read("mixed-0.dist-info/WHEEL").decode().splitlines()


def keep_level(package: Path, level: str) -> None:
    """Rewrite the package's manifest to list the code of one level alone."""
    before = artifact.read_manifest(package)
    code = tuple(code for code in before.code if code.target.level == level)
    (package / artifact.MANIFEST).write_bytes(manifest.encode(before._replace(code=code)))
