"""What compiled code needs of a machine, and what this one has."""

from __future__ import annotations

import functools
import os
import sys
from collections.abc import Mapping

from onnxsmith.record import Record

# Enough for the first processor of a machine with hundreds of them.
_HEAD = 1 << 14
_FLAG_FIELDS = ("flags", "Features")  # x86, ARM
_X86 = ("x86_64", "AMD64")
_GENERIC_MACHINES = {"AMD64": "x86_64", "arm64": "aarch64"}
_LIBRARY_SUFFIXES = {"win32": ".dll", "darwin": ".dylib"}
_GENERIC_SYSTEMS = {"win32": "windows", "darwin": "macos"}

# What numpy calls the features of x86-64-v2 to v4 in all its versions, and Linux's names. Those without a name in
# numpy 2.0 are in every CPU that has the one that they stand beside.
_NUMPY_NAMES = {
    "SSE3": "pni", "SSSE3": "ssse3", "SSE41": "sse4_1", "SSE42": "sse4_2 cx16 lahf_lm", "POPCNT": "popcnt",
    "AVX": "avx", "F16C": "f16c", "FMA3": "fma", "AVX2": "avx2 abm bmi1 bmi2 movbe", "AVX512F": "avx512f",
    "AVX512CD": "avx512cd", "AVX512_SKX": "avx512bw avx512dq avx512vl",
}  # fmt: skip


class CodeTarget(Record):
    """Where code runs: `system` as sys.platform, `machine` as platform.machine().

    `features` are what it needs of the CPU, by the names that Linux's /proc/cpuinfo has for them, sorted. `level` is
    what messages call such a CPU.
    """

    system: str
    machine: str
    features: tuple[str, ...] = ()
    level: str = "any"

    @property
    def platform(self) -> str:
        """The system and the machine: "linux_x86_64"."""
        return f"{self.system}_{self.machine}"

    def fits_here(self) -> bool:
        """Whether this machine can run the code."""
        return self[:2] == host()[:2] and not self.lacking()

    def lacking(self) -> list[str]:
        """The features that this machine's CPU lacks. A system that does not list them is taken at its name."""
        present = cpu_features()
        return [] if present is None else sorted(set(self.features) - present)


def host() -> CodeTarget:
    """This machine, as a place for code that needs nothing of the CPU."""
    return CodeTarget(sys.platform, _machine())


def library_suffix(system: str) -> str:
    """What names of shared libraries end in on a system of that sys.platform."""
    return _LIBRARY_SUFFIXES.get(system, ".so")


def generic_target() -> str:
    """The name of the compiler's target for machines like this one, whatever their CPU: "x86_64-linux"."""
    here = host()
    machine = _GENERIC_MACHINES.get(here.machine, here.machine)
    return f"{machine}-{_GENERIC_SYSTEMS.get(here.system, here.system)}"


@functools.cache
def cpu_features() -> frozenset[str] | None:
    """The features of this machine's first CPU, as Linux names them; None on systems that do not tell."""
    try:
        with open("/proc/cpuinfo", encoding="utf-8", errors="replace") as file:
            lines = file.read(_HEAD).splitlines()
    except OSError:
        return _features_of_numpy() if _machine() in _X86 else None
    for line in lines:
        field, _, value = line.partition(":")
        if field.strip() in _FLAG_FIELDS:
            return frozenset(value.split())
    return None


def _features_of_numpy() -> frozenset[str] | None:
    """What numpy found out about an x86 CPU, of the features that generic code needs."""
    try:
        from numpy._core._multiarray_umath import __cpu_features__
    except ImportError:
        return None
    return linux_names(__cpu_features__)


def linux_names(found: Mapping[str, bool]) -> frozenset[str]:
    """Linux's names of the features that numpy has by its own names."""
    names = (names for name, names in _NUMPY_NAMES.items() if found.get(name))
    return frozenset(name for several in names for name in several.split())


def _machine() -> str:
    if hasattr(os, "uname"):  # platform.machine asks the same, and takes long to import
        return os.uname().machine
    import platform

    return platform.machine()
