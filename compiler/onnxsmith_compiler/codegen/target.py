"""The machine that code is compiled for, as a value."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import llvmlite.binding as llvm

_X86_LINUX = "x86_64-unknown-linux-gnu"
_ARM_LINUX = "aarch64-unknown-linux-gnu"
_TRIPLES = {
    "x86_64-linux": _X86_LINUX,
    "aarch64-linux": _ARM_LINUX,
    "x86_64-windows": "x86_64-pc-windows-gnu",
    "x86_64-macos": "x86_64-apple-macosx10.13.0",
    "aarch64-macos": "arm64-apple-macosx11.0.0",
}
# Work is cut for so many cores where it is not known how many there will be.
_GENERIC_CORES = 4
_DEFAULT_L1 = 32 << 10
_DEFAULT_L2 = 512 << 10
_DEFAULT_L3 = 8 << 20


@dataclass(frozen=True)
class Target:
    """One CPU: what LLVM is told (`triple`, `cpu`, `features`) and what schedules are sized by.

    `features` is LLVM's list ("+avx2,-avx512f,..."). `vector_bits` is the width of the vectors that code
    uses, `vector_registers` how many of them there are; `l1`, `l2`, `l3` are bytes of data cache, l1 and l2
    of one core, l3 of all; `cores` is how many physical ones this process may run on.
    """

    triple: str
    cpu: str
    features: str
    vector_bits: int
    vector_registers: int
    fma: bool
    l1: int = _DEFAULT_L1
    l2: int = _DEFAULT_L2
    l3: int = _DEFAULT_L3
    cores: int = 1

    @property
    def architecture(self) -> str:
        """The triple's first word: "x86_64", "aarch64"."""
        return self.triple.split("-", 1)[0]

    @property
    def system(self) -> str:
        """The operating system, by Python's name (sys.platform)."""
        for word, system in (("linux", "linux"), ("windows", "win32"), ("apple", "darwin")):
            if word in self.triple:
                return system
        raise ValueError(f"the triple {self.triple} names no system that code is made for")

    @property
    def machine(self) -> str:
        """The architecture as the system spells it (platform.machine())."""
        if self.system == "win32":
            return {"x86_64": "AMD64", "aarch64": "ARM64"}[self.architecture]
        return self.architecture

    @property
    def native_half(self) -> bool:
        """Whether the CPU converts between float16 and float32."""
        return _is_arm(self.triple) or self.has("f16c")

    @property
    def bfloat16_pairs(self) -> bool:
        """Whether products of pairs of bfloat16 (AVX512-BF16) are the fastest there are.

        AMD's CPUs do twice as many in a cycle as products of float32, Intel's Sapphire and Emerald Rapids half as many.
        """
        return self.vector_bits == 512 and self.has("avx512bf16") and self.cpu.startswith("znver")

    @property
    def needed_features(self) -> tuple[str, ...]:
        """What code for this target may need of a CPU, by the names that /proc/cpuinfo has for it, sorted."""
        return tuple(sorted(name for feature, name in _CPUINFO_NAMES.items() if self.has(feature)))

    @property
    def baseline(self) -> Target:
        """A target whose code runs on every CPU of this architecture and system."""
        x86 = self.architecture == "x86_64"
        return replace(
            self,
            cpu="x86-64" if x86 else "generic",
            features="" if x86 else "+neon",
            vector_bits=128,
            vector_registers=16 if x86 else 32,
            fma=not x86,
        )

    def has(self, feature: str) -> bool:
        """Whether `feature`, by LLVM's name, is switched on."""
        return f"+{feature}" in self.features.split(",")

    @staticmethod
    def host() -> Target:
        """The machine this process runs on, read from LLVM, /sys and the process's CPU affinity."""
        triple = llvm.get_process_triple()
        features = llvm.get_host_cpu_features()
        vector_bits, registers = _vectors(triple, {name for name, on in features.items() if on})
        l1, l2, l3 = _cache_sizes(Path("/sys/devices/system/cpu/cpu0/cache"))
        return Target(
            triple=triple,
            cpu=llvm.get_host_cpu_name(),
            features=features.flatten(),
            vector_bits=vector_bits,
            vector_registers=registers,
            fma=_is_arm(triple) or bool(features.get("fma")),
            l1=l1,
            l2=l2,
            l3=l3,
            cores=_usable_cores(),
        )

    @staticmethod
    def generic_x86_64(level: Literal["v2", "v3", "v4"], cores: int = 1, triple: str = _X86_LINUX) -> Target:
        """Any x86-64 CPU of the given microarchitecture level, with modest caches."""
        names = _X86_LEVELS[level]
        vector_bits, registers = _vectors(triple, names)
        return Target(
            triple=triple,
            cpu=f"x86-64-{level}",
            features=",".join(f"+{name}" for name in sorted(names)),
            vector_bits=vector_bits,
            vector_registers=registers,
            fma="fma" in names,
            cores=cores,
        )

    @staticmethod
    def generic_aarch64(cores: int = 1, triple: str = _ARM_LINUX, cpu: str = "generic") -> Target:
        """Any 64-bit ARM CPU (NEON)."""
        return Target(triple, cpu, "+neon", 128, 32, fma=True, cores=cores)

    @staticmethod
    def named(name: str) -> tuple[Target, ...]:
        """The targets that a package for `name`, one of `options.TARGETS`, has code for, the best first."""
        if name == "native":
            return (Target.host(),)
        architecture, system = name.split("-")
        if architecture == "x86_64":
            triple = _TRIPLES[name]
            return tuple(Target.generic_x86_64(level, _GENERIC_CORES, triple) for level in ("v4", "v3", "v2"))
        cpu = "apple-m1" if system == "macos" else "generic"
        return (Target.generic_aarch64(_GENERIC_CORES, _TRIPLES[name], cpu),)


_X86_V2 = frozenset({"cx16", "popcnt", "sahf", "sse3", "ssse3", "sse4.1", "sse4.2"})
_X86_V3 = _X86_V2 | {"avx", "avx2", "bmi", "bmi2", "f16c", "fma", "lzcnt", "movbe"}
_X86_V4 = _X86_V3 | {"avx512f", "avx512bw", "avx512cd", "avx512dq", "avx512vl"}
_X86_LEVELS = {"v2": _X86_V2, "v3": _X86_V3, "v4": _X86_V4}


# LLVM's names of what it makes instructions of by itself, and Linux's names in /proc/cpuinfo. Other features, such
# as those for cryptography or for the operating system, do not change code that has no intrinsics of theirs. NEON
# belongs to every 64-bit ARM CPU that an operating system for many purposes runs on.
_CPUINFO_NAMES = {
    "sse3": "pni", "ssse3": "ssse3", "sse4.1": "sse4_1", "sse4.2": "sse4_2", "popcnt": "popcnt", "cx16": "cx16",
    "sahf": "lahf_lm", "avx": "avx", "avx2": "avx2", "bmi": "bmi1", "bmi2": "bmi2", "f16c": "f16c", "fma": "fma",
    "lzcnt": "abm", "movbe": "movbe", "adx": "adx", "gfni": "gfni", "prfchw": "3dnowprefetch",
    "pclmul": "pclmulqdq", "vpclmulqdq": "vpclmulqdq",
    "sse4a": "sse4a", "fma4": "fma4", "xop": "xop", "tbm": "tbm",
    "avx512f": "avx512f", "avx512bw": "avx512bw", "avx512cd": "avx512cd", "avx512dq": "avx512dq",
    "avx512vl": "avx512vl", "avx512ifma": "avx512ifma", "avx512vbmi": "avx512vbmi", "avx512vbmi2": "avx512_vbmi2",
    "avx512vnni": "avx512_vnni", "avx512bitalg": "avx512_bitalg", "avx512vpopcntdq": "avx512_vpopcntdq",
    "avx512bf16": "avx512_bf16", "avx512fp16": "avx512_fp16",
    "avxvnni": "avx_vnni", "avxvnniint8": "avx_vnni_int8", "avxifma": "avx_ifma",
    "amx-tile": "amx_tile", "amx-int8": "amx_int8", "amx-bf16": "amx_bf16",
    "dotprod": "asimddp", "fullfp16": "asimdhp", "lse": "atomics", "sve": "sve", "sve2": "sve2",
    "i8mm": "i8mm", "bf16": "bf16",
}  # fmt: skip


def _is_arm(triple: str) -> bool:
    return triple.startswith(("aarch64", "arm64"))


def _vectors(triple: str, features: set[str] | frozenset[str]) -> tuple[int, int]:
    """(bits of a vector, number of vector registers)."""
    if _is_arm(triple):
        return 128, 32
    if {"avx512f", "avx512bw", "avx512dq", "avx512vl"} <= features:
        return 512, 32
    return (256, 16) if "avx2" in features else (128, 16)


def _cache_sizes(folder: Path) -> tuple[int, int, int]:
    """Bytes of data cache of levels 1 to 3, as Linux lists them in `folder`; defaults for what it hides."""
    sizes = {1: _DEFAULT_L1, 2: _DEFAULT_L2, 3: _DEFAULT_L3}
    for index in sorted(folder.glob("index*")):
        try:
            kind = (index / "type").read_text().strip()
            level = int((index / "level").read_text())
            size = _parse_size((index / "size").read_text().strip())
        except (OSError, ValueError):
            continue
        if kind in ("Data", "Unified") and level in sizes and size > 0:
            sizes[level] = size
    return sizes[1], sizes[2], sizes[3]


def _parse_size(text: str) -> int:
    match = re.fullmatch(r"(\d+)([KMG]?)", text)
    if match is None:
        raise ValueError(f"{text!r} is no cache size")
    return int(match[1]) << {"": 0, "K": 10, "M": 20, "G": 30}[match[2]]


def _usable_cores(system: Path = Path("/sys")) -> int:
    """Physical cores this process may use: those of its affinity, within the quota of its control group."""
    every = range(os.cpu_count() or 1)
    cpus = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else set(every)
    cores = len({_core_of(cpu, system / "devices/system/cpu") for cpu in cpus})
    quota = _cpu_quota(system / "fs/cgroup")
    return cores if quota is None else max(1, min(cores, quota))


def _core_of(cpu: int, folder: Path) -> tuple[str, ...]:
    """What names the physical core of a logical CPU; the CPU itself where the system does not say."""
    topology = folder / f"cpu{cpu}" / "topology"
    try:
        return tuple((topology / name).read_text().strip() for name in ("physical_package_id", "core_id"))
    except OSError:
        return (str(cpu),)


def _cpu_quota(folder: Path) -> int | None:
    """CPUs' worth of time that the control group grants, rounded up; None where there is no limit."""
    try:
        quota, period = (folder / "cpu.max").read_text().split()
    except (OSError, ValueError):
        try:
            quota = (folder / "cpu/cpu.cfs_quota_us").read_text().strip()
            period = (folder / "cpu/cpu.cfs_period_us").read_text().strip()
        except OSError:
            return None
    if not quota.isdigit() or not period.isdigit() or int(period) == 0:
        return None
    return -(-int(quota) // int(period))
