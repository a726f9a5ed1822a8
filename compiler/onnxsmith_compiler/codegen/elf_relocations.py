"""What a relocation does to the bytes that it applies to, on x86-64 and aarch64.

Only those that are known when a library is linked: none is left for the dynamic linker.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping

from onnxsmith_compiler.codegen.elf_format import AARCH64, X86_64

Relocation = Callable[[bytearray, int, int, int], None]
"""Called with the bytes, the position in them, the address of the place, and that of the target.

Raises struct.error or OverflowError for a target that is out of reach.
"""


def _relative(code: str) -> Relocation:
    layout = struct.Struct(code)

    def apply(part: bytearray, position: int, place: int, target: int) -> None:
        layout.pack_into(part, position, target - place)

    return apply


def _patch_word(part: bytearray, position: int, mask: int, bits: int) -> None:
    (word,) = struct.unpack_from("<I", part, position)
    struct.pack_into("<I", part, position, word & ~mask | bits & mask)


def _branch(bits: int, shift: int) -> Relocation:
    """A signed count of instructions, `bits` wide, at bit `shift` of the word."""

    def apply(part: bytearray, position: int, place: int, target: int) -> None:
        count = (target - place) >> 2
        if not -(1 << (bits - 1)) <= count < 1 << (bits - 1):
            raise OverflowError
        _patch_word(part, position, ((1 << bits) - 1) << shift, count << shift)

    return apply


def _adrp(part: bytearray, position: int, place: int, target: int) -> None:
    pages = (target >> 12) - (place >> 12)
    if not -(1 << 20) <= pages < 1 << 20:
        raise OverflowError
    _patch_word(part, position, 3 << 29 | 0x7FFFF << 5, (pages & 3) << 29 | (pages >> 2 & 0x7FFFF) << 5)


def _low12(scale: int) -> Relocation:
    """The low 12 bits of the address, in units of 2**scale bytes, as an instruction's immediate."""

    def apply(part: bytearray, position: int, place: int, target: int) -> None:
        _patch_word(part, position, 0xFFF << 10, (target & 0xFFF) >> scale << 10)

    return apply


RELOCATIONS: Mapping[int, Mapping[int, Relocation]] = {
    X86_64: {
        2: _relative("<i"),  # R_X86_64_PC32
        4: _relative("<i"),  # R_X86_64_PLT32
        24: _relative("<q"),  # R_X86_64_PC64
    },
    AARCH64: {
        260: _relative("<q"),  # R_AARCH64_PREL64
        261: _relative("<i"),  # R_AARCH64_PREL32
        275: _adrp,  # R_AARCH64_ADR_PREL_PG_HI21
        277: _low12(0),  # R_AARCH64_ADD_ABS_LO12_NC
        278: _low12(0),  # R_AARCH64_LDST8_ABS_LO12_NC
        279: _branch(14, 5),  # R_AARCH64_TSTBR14
        280: _branch(19, 5),  # R_AARCH64_CONDBR19
        282: _branch(26, 0),  # R_AARCH64_JUMP26
        283: _branch(26, 0),  # R_AARCH64_CALL26
        284: _low12(1),  # R_AARCH64_LDST16_ABS_LO12_NC
        285: _low12(2),  # R_AARCH64_LDST32_ABS_LO12_NC
        286: _low12(3),  # R_AARCH64_LDST64_ABS_LO12_NC
        299: _low12(4),  # R_AARCH64_LDST128_ABS_LO12_NC
    },
}
"""By machine and type."""
