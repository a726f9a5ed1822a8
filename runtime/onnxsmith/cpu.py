"""What compiled code needs of a machine, and what this one has."""

from __future__ import annotations

import functools
import os
import sys

from onnxsmith.record import Record

# Enough for the first processor of a machine with hundreds of them.
_HEAD = 1 << 14
_FLAG_FIELDS = ("flags", "Features")  # x86, ARM


class CodeTarget(Record):
    """Where code runs: `system` as sys.platform, `machine` as os.uname().machine.

    `features` are what it needs of the CPU, by the names that /proc/cpuinfo has for them, sorted.
    """

    system: str
    machine: str
    features: tuple[str, ...] = ()

    @property
    def platform(self) -> str:
        """The system and the machine as wheels name them: "linux_x86_64"."""
        return f"{self.system}_{self.machine}"

    def why_unfit(self) -> str | None:
        """Why this machine cannot run the code; None where it can.

        A system that does not list its CPU's features is taken at its name.
        """
        here = host(self.features)
        if (self.system, self.machine) != (here.system, here.machine):
            return f"the code is for {self.platform}, and this is {here.platform}"
        present = cpu_features()
        missing = [] if present is None else sorted(set(self.features) - present)
        return f"the code needs a CPU with {', '.join(missing)}, which this one lacks" if missing else None


def host(features: tuple[str, ...] = ()) -> CodeTarget:
    """This machine, for code that needs `features`."""
    return CodeTarget(sys.platform, _machine(), features)


@functools.cache
def cpu_features() -> frozenset[str] | None:
    """The features of this machine's first CPU, as Linux names them; None on systems that do not tell."""
    try:
        with open("/proc/cpuinfo", encoding="utf-8", errors="replace") as file:
            lines = file.read(_HEAD).splitlines()
    except OSError:
        return None
    for line in lines:
        field, _, value = line.partition(":")
        if field.strip() in _FLAG_FIELDS:
            return frozenset(value.split())
    return None


def _machine() -> str:
    if hasattr(os, "uname"):  # platform.machine asks the same, and takes long to import
        return os.uname().machine
    import platform

    return platform.machine()
