"""The section headers of a shared library: what linkers and debuggers read, and nothing that is loaded."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from onnxsmith_compiler.codegen.elf_format import SECTION_HEADER, STRING_TABLE


@dataclass(frozen=True)
class Section:
    """A section at `at`, in the file as in memory; the other fields are ELF's."""

    name: str
    kind: int
    flags: int
    at: int
    size: int
    alignment: int
    link: int = 0
    info: int = 0
    entry_size: int = 0


@dataclass(frozen=True)
class SectionTable:
    """What is put at the end of the file: names, then headers at `headers_at`, of which there are `count`.

    The last header is that of the names.
    """

    content: bytes
    headers_at: int
    count: int


def section_table(sections: Sequence[Section], end: int) -> SectionTable:
    """The headers of `sections`, which are numbered from 1 on, for a file of `end` bytes so far."""
    names = bytearray(b"\0")
    headers = [bytes(SECTION_HEADER.size)]
    listed = [*sections, Section(".shstrtab", STRING_TABLE, 0, end, 0, 1)]
    name_bytes = 1 + sum(len(section.name) + 1 for section in listed)
    for section in listed:
        size = name_bytes if section is listed[-1] else section.size
        address = section.at if section.flags else 0
        headers.append(
            SECTION_HEADER.pack(
                len(names), section.kind, section.flags, address, section.at, size,
                section.link, section.info, section.alignment, section.entry_size,
            )
        )  # fmt: skip
        names += section.name.encode() + b"\0"
    padding = -(end + len(names)) % 8
    return SectionTable(bytes(names) + bytes(padding) + b"".join(headers), end + len(names) + padding, len(headers))
