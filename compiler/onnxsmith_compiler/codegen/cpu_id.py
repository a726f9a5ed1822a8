"""Which bits of x86's CPUID say that a CPU has the features that code needs.

Intel 64 and IA-32 Architectures Software Developer's Manual, volume 2, CPUID; AMD64 Architecture Programmer's Manual,
volume 3, appendix E.
"""

from __future__ import annotations

from typing import NamedTuple

from onnxsmith_compiler.codegen.target import Target

_EAX, _EBX, _ECX, _EDX = range(4)
_EXTENDED = 0x80000001


class Wanted(NamedTuple):
    """Bits that must be set in a register (0 to 3 for eax, ebx, ecx, edx) after CPUID of a leaf and a subleaf."""

    leaf: int
    subleaf: int
    register: int
    mask: int


# By LLVM's names: leaf, subleaf, register, bit.
BITS = {
    "sse3": (1, 0, _ECX, 0), "pclmul": (1, 0, _ECX, 1), "ssse3": (1, 0, _ECX, 9), "fma": (1, 0, _ECX, 12),
    "cx16": (1, 0, _ECX, 13), "sse4.1": (1, 0, _ECX, 19), "sse4.2": (1, 0, _ECX, 20), "movbe": (1, 0, _ECX, 22),
    "popcnt": (1, 0, _ECX, 23), "avx": (1, 0, _ECX, 28), "f16c": (1, 0, _ECX, 29),
    "bmi": (7, 0, _EBX, 3), "avx2": (7, 0, _EBX, 5), "bmi2": (7, 0, _EBX, 8), "avx512f": (7, 0, _EBX, 16),
    "avx512dq": (7, 0, _EBX, 17), "adx": (7, 0, _EBX, 19), "avx512ifma": (7, 0, _EBX, 21),
    "avx512cd": (7, 0, _EBX, 28), "avx512bw": (7, 0, _EBX, 30), "avx512vl": (7, 0, _EBX, 31),
    "avx512vbmi": (7, 0, _ECX, 1), "avx512vbmi2": (7, 0, _ECX, 6), "gfni": (7, 0, _ECX, 8),
    "vpclmulqdq": (7, 0, _ECX, 10), "avx512vnni": (7, 0, _ECX, 11), "avx512bitalg": (7, 0, _ECX, 12),
    "avx512vpopcntdq": (7, 0, _ECX, 14), "amx-bf16": (7, 0, _EDX, 22), "avx512fp16": (7, 0, _EDX, 23),
    "amx-tile": (7, 0, _EDX, 24), "amx-int8": (7, 0, _EDX, 25),
    "avxvnni": (7, 1, _EAX, 4), "avx512bf16": (7, 1, _EAX, 5), "avxifma": (7, 1, _EAX, 23),
    "avxvnniint8": (7, 1, _EDX, 4),
    "sahf": (_EXTENDED, 0, _ECX, 0), "lzcnt": (_EXTENDED, 0, _ECX, 5), "sse4a": (_EXTENDED, 0, _ECX, 6),
    "prfchw": (_EXTENDED, 0, _ECX, 8), "xop": (_EXTENDED, 0, _ECX, 11), "fma4": (_EXTENDED, 0, _ECX, 16),
    "tbm": (_EXTENDED, 0, _ECX, 21),
}  # fmt: skip

# What the operating system must keep for a thread (XCR0), by the feature that brings the registers.
_STATES = {"avx": 0x6, "avx512f": 0xE6, "amx-tile": 0x60000}
_OSXSAVE = (1, 0, _ECX, 27)


def wanted_bits(target: Target) -> list[Wanted]:
    """What CPUID must say before code for `target` may run, in order of leaves; nothing for other machines."""
    if target.architecture != "x86_64":
        return []
    masks: dict[tuple[int, int, int], int] = {}
    bits = [place for name, place in BITS.items() if target.has(name)]
    if wanted_states(target):
        bits.append(_OSXSAVE)
    for *place, bit in bits:
        key = (place[0], place[1], place[2])
        masks[key] = masks.get(key, 0) | 1 << bit
    return [Wanted(*place, mask) for place, mask in sorted(masks.items())]


def wanted_states(target: Target) -> int:
    """The bits of XCR0 that must be set before code for `target` may run."""
    states = 0
    for name, mask in _STATES.items():
        states |= mask if target.architecture == "x86_64" and target.has(name) else 0
    return states
