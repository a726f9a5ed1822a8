"""Records and numbers of ELF files: System V ABI, chapters 4 and 5."""

from __future__ import annotations

import struct

HEADER = struct.Struct("<16sHHIQQQIHHHHHH")
SECTION_HEADER = struct.Struct("<IIQQQQIIQQ")
SYMBOL = struct.Struct("<IBBHQQ")
RELOCATION = struct.Struct("<QQq")
PROGRAM_HEADER = struct.Struct("<IIQQQQQQ")
DYNAMIC_ENTRY = struct.Struct("<QQ")

RELOCATABLE, SHARED = 1, 3
"""Kinds of file (e_type)."""
X86_64, AARCH64 = 62, 183
"""Machines (e_machine)."""
PROGBITS, SYMBOL_TABLE, STRING_TABLE, RELOCATION_TABLE, HASH, DYNAMIC, NOBITS, DYNAMIC_SYMBOLS = 1, 2, 3, 4, 5, 6, 8, 11
"""Kinds of section (sh_type)."""
WRITE, ALLOC, EXECUTE, THREAD_LOCAL = 1, 2, 4, 0x400
"""Flags of sections (sh_flags)."""
