"""What runs code for other machines here: qemu-user and Wine, where they are installed (tools/emulators.sh)."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from mixed_model import Feed

_ARM64 = Path(os.environ.get("ONNXSMITH_ARM64", Path(__file__).parents[2] / "build" / "arm64"))
_NO_QEMU = "{} is not installed: tools/emulators.sh installs it"

# Reads a feed from one file and leaves the results of a package, of one thread and of three, in another.
_PROGRAM = """
import sys
sys.path.insert(0, sys.argv[1])
import numpy as np
import package
feeds = np.load(sys.argv[2])
feed = {name: feeds[name] for name in feeds.files}
options = package.SessionOptions()
options.intra_op_num_threads = 1
first = package.load(options).run(None, feed)
from package._runtime import threads
threads.usable_cores = lambda: 3  # whatever there are
options.intra_op_num_threads = 3
shared = package.load(options).run(None, feed)
assert len(threads.process_pool()._workers) == 2, "nothing was shared out"
np.savez(sys.argv[3], *first, *shared)
"""


def run_package(command: list[str], folder: Path, feed: Feed, environment: dict[str, str] | None = None) -> list:
    """The results of `folder`/package on a feed, in the Python that `command` starts; those of three threads are
    the same."""
    inputs, results = folder / "feed.npz", folder / "results.npz"
    np.savez(inputs, **feed)
    arguments = ["-B", "-c", _PROGRAM, str(folder), str(inputs), str(results)]
    done = subprocess.run([*command, *arguments], capture_output=True, text=True, env=environment, timeout=600)
    assert done.returncode == 0, done.stderr
    with np.load(results) as loaded:
        arrays = [loaded[name] for name in loaded.files]
    half = len(arrays) // 2
    for one, three in zip(arrays[:half], arrays[half:], strict=True):
        np.testing.assert_array_equal(one, three)
    return arrays[:half]


def qemu_x86(cpu: str) -> list[str]:
    """A command that runs this Python on another x86-64 CPU; skips the test where there is none."""
    qemu = shutil.which("qemu-x86_64")
    if qemu is None:
        pytest.skip(_NO_QEMU.format("qemu-x86_64"))
    return [qemu, "-cpu", cpu, sys.executable]


def arm64_python() -> tuple[list[str], dict[str, str]]:
    """A command that runs Python on 64-bit ARM, and its environment; skips the test where there is none."""
    qemu = shutil.which("qemu-aarch64")
    if qemu is None:
        pytest.skip(_NO_QEMU.format("qemu-aarch64"))
    pythons = sorted((_ARM64 / "usr" / "bin").glob("python3.*"))
    if not pythons:
        pytest.skip(f"there is no Python for 64-bit ARM in {_ARM64}: tools/emulators.sh puts it there")
    own = {"PYTHONHOME": str(_ARM64 / "usr"), "PYTHONPATH": str(_ARM64 / "packages")}
    environment = {**own, "PATH": os.environ["PATH"]}
    return [qemu, "-L", str(_ARM64), str(pythons[0])], environment
