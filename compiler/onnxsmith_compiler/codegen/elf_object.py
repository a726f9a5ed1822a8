"""Reads relocatable ELF objects: their sections, symbols and relocations."""

from __future__ import annotations

import struct
from collections.abc import Collection, Sequence
from dataclasses import dataclass

from onnxsmith_compiler.codegen import elf_format as elf
from onnxsmith_compiler.codegen.compile_errors import LinkError


@dataclass(frozen=True)
class ObjectSection:
    name: str
    kind: int
    flags: int
    offset: int
    size: int
    link: int
    info: int
    alignment: int


@dataclass(frozen=True)
class Symbol:
    name: str
    is_global: bool
    section: int
    value: int
    size: int


@dataclass(frozen=True)
class ObjectFile:
    label: str
    data: bytes
    machine: int
    sections: tuple[ObjectSection, ...]
    symbols: tuple[Symbol, ...]
    # (number of the section that they apply to, (offset, symbol and type, addend) of each)
    relocations: tuple[tuple[int, tuple[tuple[int, int, int], ...]], ...]


def _name(data: bytes, table: int, offset: int) -> str:
    start = table + offset
    return data[start : data.index(b"\0", start)].decode()


def parse_object(label: str, data: bytes, machines: Collection[int]) -> ObjectFile:
    """The object file `data`, called `label`; LinkError where it is damaged, or for none of `machines`."""
    try:
        ident, kind, machine, _, _, _, table, _, _, _, _, size, count, names = elf.HEADER.unpack_from(data)
        if ident[:6] != b"\x7fELF\x02\x01" or kind != elf.RELOCATABLE or size != elf.SECTION_HEADER.size:
            raise LinkError(f"{label}: is not a relocatable 64-bit little-endian ELF object")
        if machine not in machines:
            raise LinkError(f"{label}: is for ELF machine {machine}, not x86-64 or aarch64")
        raw = list(elf.SECTION_HEADER.iter_unpack(data[table : table + count * size]))
        strings = raw[names][4]
        sections = tuple(
            ObjectSection(_name(data, strings, name), kind, flags, offset, length, link, info, max(1, alignment))
            for name, kind, flags, _, offset, length, link, info, alignment, _ in raw
        )
        for section in sections:
            if section.kind != elf.NOBITS and section.offset + section.size > len(data):
                raise LinkError(f"{label}: is cut off within section {section.name}")
        symbols = _parse_symbols(data, sections)
        relocations = tuple(
            (section.info, tuple(elf.RELOCATION.iter_unpack(data[section.offset : section.offset + section.size])))
            for section in sections
            if section.kind == elf.RELOCATION_TABLE
        )
    except (struct.error, IndexError, ValueError) as error:
        if isinstance(error, LinkError):
            raise
        raise LinkError(f"{label}: is a damaged ELF object ({error})") from error
    return ObjectFile(label, data, machine, sections, symbols, relocations)


def _parse_symbols(data: bytes, sections: Sequence[ObjectSection]) -> tuple[Symbol, ...]:
    table = next((section for section in sections if section.kind == elf.SYMBOL_TABLE), None)
    if table is None:
        return ()
    strings = sections[table.link].offset
    entries = data[table.offset : table.offset + table.size]
    return tuple(
        Symbol(_name(data, strings, name), info >> 4 != 0, section, value, size)
        for name, info, _, section, value, size in elf.SYMBOL.iter_unpack(entries)
    )
