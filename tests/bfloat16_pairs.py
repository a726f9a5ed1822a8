"""AVX512-BF16 for tests: they run it wherever it executes, though it is slow there or CPUID does not tell of it."""

from __future__ import annotations

import platform
import subprocess
import sys
from dataclasses import replace

from onnxsmith_compiler.codegen.target import Target

_FEATURE = "avx512bf16"
# vdpbf16ps zmm0, zmm0, zmm0; vzeroupper; ret
_CALL = """
import ctypes, mmap
memory = mmap.mmap(-1, mmap.PAGESIZE, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
memory.write(bytes.fromhex("62f27e4852c0c5f877c3"))
ctypes.CFUNCTYPE(None)(ctypes.addressof(ctypes.c_char.from_buffer(memory)))()
"""


def execute() -> bool:
    """Whether the CPU multiplies pairs of bfloat16, tried in a process of its own."""
    if platform.machine() != "x86_64" or Target.host().vector_bits != 512:
        return False
    return subprocess.run([sys.executable, "-c", _CALL], check=False, capture_output=True).returncode == 0


def fast_target(base: Target) -> Target:
    """`base`, which has AVX-512, as a CPU for which the compiler chooses these products."""
    others = [feature for feature in base.features.split(",") if feature[1:] != _FEATURE]
    return replace(base, cpu="znver4", features=",".join([*others, f"+{_FEATURE}"]))
