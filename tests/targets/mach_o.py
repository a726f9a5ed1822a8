"""What a library for macOS says of itself: load commands and symbols of a 64-bit Mach-O file."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

_MAGIC, _DYLIB = 0xFEEDFACF, 6
_SYMTAB, _ID_DYLIB, _LOAD_DYLIB, _CODE_SIGNATURE, _BUILD_VERSION, _VERSION_MIN = 0x2, 0xD, 0xC, 0x1D, 0x32, 0x24
_EXTERNAL, _TYPE, _UNDEFINED = 0x01, 0x0E, 0x00


@dataclass(frozen=True)
class MachO:
    """A dynamic library. ValueError for other content."""

    content: bytes

    def __post_init__(self) -> None:
        magic, _, _, kind = struct.unpack_from("<4I", self.content)
        if (magic, kind) != (_MAGIC, _DYLIB):
            raise ValueError("no dynamic library for 64-bit macOS")

    @property
    def cpu(self) -> int:
        """CPU_TYPE_*: 0x1000007 is x86-64, 0x100000C 64-bit ARM."""
        return int(struct.unpack_from("<I", self.content, 4)[0])

    @cached_property
    def commands(self) -> list[tuple[int, bytes]]:
        """(number, the whole command) of each load command."""
        count = struct.unpack_from("<I", self.content, 16)[0]
        found, at = [], 32
        for _ in range(count):
            number, size = struct.unpack_from("<2I", self.content, at)
            found.append((number, self.content[at : at + size]))
            at += size
        return found

    @property
    def name(self) -> str:
        (name,) = self._names(_ID_DYLIB)
        return name

    @property
    def libraries(self) -> list[str]:
        """The libraries that it is linked with."""
        return list(self._names(_LOAD_DYLIB))

    @property
    def is_signed(self) -> bool:
        """Whether it has a signature, without which 64-bit ARM runs nothing."""
        return any(number == _CODE_SIGNATURE for number, _ in self.commands)

    @property
    def oldest_system(self) -> tuple[int, int]:
        """The oldest macOS that it says it runs on."""
        for number, command in self.commands:
            if number in (_BUILD_VERSION, _VERSION_MIN):
                version = struct.unpack_from("<I", command, 12 if number == _BUILD_VERSION else 8)[0]
                return version >> 16, version >> 8 & 0xFF
        raise ValueError("it does not say for which macOS it is")

    def symbols(self, *, defined: bool) -> set[str]:
        """The names of the external symbols that it defines, or that it needs."""
        (table,) = (command for number, command in self.commands if number == _SYMTAB)
        symbols, count, strings, _ = struct.unpack_from("<4I", table, 8)
        found = set()
        for entry in range(count):
            name, kind = struct.unpack_from("<IB", self.content, symbols + 16 * entry)
            if kind & _EXTERNAL and (kind & _TYPE != _UNDEFINED) == defined:
                start = strings + name
                found.add(self.content[start : self.content.index(b"\0", start)].decode())
        return found

    def _names(self, wanted: int) -> Iterator[str]:
        for number, command in self.commands:
            if number == wanted:
                start = struct.unpack_from("<I", command, 8)[0]
                yield command[start:].split(b"\0")[0].decode()
