"""What this machine is, and how many multiply-adds its cores do in a second."""

from __future__ import annotations

import os
import platform
from dataclasses import dataclass
from pathlib import Path

from onnxsmith_compiler.codegen.machine_speed import multiply_add_peak
from onnxsmith_compiler.codegen.target import Target


@dataclass(frozen=True)
class Machine:
    """`peak` maps a number of threads to billions of float32 multiply-adds a second."""

    cpu: str
    cores: int
    python: str
    system: str
    peak: dict[int, float]


def describe(thread_counts: list[int]) -> Machine:
    """This machine, with its peak measured for each number of threads."""
    cores = len(os.sched_getaffinity(0))
    peak = {threads: multiply_add_peak(threads) / 1e9 for threads in thread_counts}
    return Machine(cpu_name(), cores, platform.python_version(), platform.platform(), peak)


def cpu_name() -> str:
    """The kernel's name for the CPU, with LLVM's beside it."""
    name = Target.host().cpu
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return f"{line.split(':', 1)[1].strip()} ({name})"
    return name
