"""What the dynamic linker reads of a shared library: symbols, their names and hash table, and the dynamic section."""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence

from onnxsmith_compiler.codegen.elf_format import DYNAMIC_ENTRY, SYMBOL

_DT_HASH, _DT_STRTAB, _DT_SYMTAB, _DT_STRSZ, _DT_SYMENT, _DT_SONAME = 4, 5, 6, 10, 11, 14
_STB_GLOBAL, _STT_FUNC = 1, 2


class DynamicTables:
    """The symbol, string and hash tables by which the dynamic linker finds `names`."""

    def __init__(self, names: Sequence[str], soname: str) -> None:
        self.names = names
        self._strings = bytearray(b"\0")
        self._soname = self._add_string(soname)
        self._name_offsets = [self._add_string(name) for name in names]
        self._symbols_at = 0
        self._hash_at = SYMBOL.size * (len(names) + 1)
        self._hash = self._hash_table()
        self._strings_at = self._hash_at + len(self._hash)
        self.size = self._strings_at + len(self._strings)

    @property
    def parts(self) -> tuple[int, int, int]:
        """Offsets of symbols, hash table and strings."""
        return self._symbols_at, self._hash_at, self._strings_at

    def _add_string(self, text: str) -> int:
        offset = len(self._strings)
        self._strings += text.encode() + b"\0"
        return offset

    def _hash_table(self) -> bytes:
        buckets = [0] * max(1, len(self.names))
        chain = [0] * (len(self.names) + 1)
        for index, name in enumerate(self.names, 1):
            bucket = _sysv_hash(name) % len(buckets)
            chain[index] = buckets[bucket]
            buckets[bucket] = index
        words = [len(buckets), len(chain), *buckets, *chain]
        return struct.pack(f"<{len(words)}I", *words)

    def contents(self, section: int, defined: Mapping[str, tuple[int, int]]) -> bytes:
        """The tables; `defined` gives (address, size) by name, all in the section of this number."""
        symbols = [bytes(SYMBOL.size)]
        info = _STB_GLOBAL << 4 | _STT_FUNC
        for name, offset in zip(self.names, self._name_offsets, strict=True):
            symbols.append(SYMBOL.pack(offset, info, 0, section, *defined[name]))
        return b"".join(symbols) + self._hash + self._strings

    def dynamic(self, at: int) -> bytes:
        """The dynamic section for tables at address `at`."""
        entries = (
            (_DT_SONAME, self._soname),
            (_DT_HASH, at + self._hash_at),
            (_DT_STRTAB, at + self._strings_at),
            (_DT_SYMTAB, at + self._symbols_at),
            (_DT_STRSZ, len(self._strings)),
            (_DT_SYMENT, SYMBOL.size),
            (0, 0),
        )
        return b"".join(DYNAMIC_ENTRY.pack(*entry) for entry in entries)


def _sysv_hash(name: str) -> int:
    value = 0
    for byte in name.encode():
        value = (value << 4) + byte
        high = value & 0xF0000000
        value = (value ^ high >> 24) & ~high
    return value
