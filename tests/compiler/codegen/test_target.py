"""Targets: the host as it is, and the generic ones, which depend on nothing of the host."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import pytest

from onnxsmith_compiler.codegen import target as module
from onnxsmith_compiler.codegen.target import Target


def test_host_describes_this_machine() -> None:
    host = Target.host()
    assert host == Target.host()
    assert 1 <= host.cores <= (os.cpu_count() or 1)
    assert host.vector_bits in (128, 256, 512)
    assert 4 << 10 <= host.l1 <= host.l2 <= host.l3
    assert hash(host) == hash(Target.host())


@pytest.mark.parametrize(
    ("level", "bits", "registers", "fma"),
    [("v2", 128, 16, False), ("v3", 256, 16, True), ("v4", 512, 32, True)],
)
def test_generic_levels(level: str, bits: int, registers: int, fma: bool) -> None:
    target = Target.generic_x86_64(level)  # type: ignore[arg-type]
    assert (target.vector_bits, target.vector_registers, target.fma) == (bits, registers, fma)
    assert target.native_half == (level != "v2")
    assert target.has("avx512f") == (level == "v4")
    assert target.architecture == "x86_64"


@pytest.mark.parametrize(
    ("cpu", "features", "fast"),
    [
        ("znver4", "+avx512bf16", True),
        ("znver5", "+avx512bf16", True),
        ("znver5", "-avx512bf16", False),
        ("sapphirerapids", "+avx512bf16", False),
        ("emeraldrapids", "+avx512bf16", False),
    ],
)
def test_pairs_of_bfloat16_are_for_cpus_that_are_fast_at_them(cpu: str, features: str, fast: bool) -> None:
    base = Target.generic_x86_64("v4")
    assert not base.bfloat16_pairs
    assert replace(base, cpu=cpu, features=f"{base.features},{features}").bfloat16_pairs == fast


def test_generic_arm() -> None:
    target = Target.generic_aarch64()
    assert (target.vector_bits, target.vector_registers, target.fma, target.native_half) == (
        128,
        32,
        True,
        True,
    )


def _cache(folder: Path, index: int, kind: str, level: str, size: str) -> None:
    entry = folder / f"index{index}"
    entry.mkdir(parents=True)
    for name, text in (("type", kind), ("level", level), ("size", size)):
        (entry / name).write_text(f"{text}\n")


def test_cache_sizes_are_read_and_nonsense_is_not(tmp_path: Path) -> None:
    _cache(tmp_path, 0, "Data", "1", "48K")
    _cache(tmp_path, 1, "Instruction", "1", "64K")
    _cache(tmp_path, 2, "Unified", "2", "2M")
    _cache(tmp_path, 3, "Unified", "3", "unknown")
    assert module._cache_sizes(tmp_path) == (48 << 10, 2 << 20, module._DEFAULT_L3)
    assert module._cache_sizes(tmp_path / "absent") == (
        module._DEFAULT_L1,
        module._DEFAULT_L2,
        module._DEFAULT_L3,
    )


def _topology(system: Path, cpu: int, package: int, core: int) -> None:
    folder = system / f"devices/system/cpu/cpu{cpu}/topology"
    folder.mkdir(parents=True)
    (folder / "physical_package_id").write_text(f"{package}\n")
    (folder / "core_id").write_text(f"{core}\n")


def test_cores_are_physical_and_within_the_quota(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: {0, 1, 2, 3, 4, 5})
    assert module._usable_cores(tmp_path) == 6
    for cpu in range(6):
        _topology(tmp_path, cpu, cpu % 2, cpu // 4)
    assert module._usable_cores(tmp_path) == 4
    group = tmp_path / "fs/cgroup"
    (group / "cpu").mkdir(parents=True)
    (group / "cpu/cpu.cfs_quota_us").write_text("-1\n")
    (group / "cpu/cpu.cfs_period_us").write_text("100000\n")
    assert module._usable_cores(tmp_path) == 4
    (group / "cpu/cpu.cfs_quota_us").write_text("250000\n")
    assert module._usable_cores(tmp_path) == 3
    (group / "cpu.max").write_text("max 100000\n")
    assert module._usable_cores(tmp_path) == 4
    (group / "cpu.max").write_text("50000 100000\n")
    assert module._usable_cores(tmp_path) == 1
