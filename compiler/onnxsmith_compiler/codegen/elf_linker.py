"""Links relocatable ELF objects into one shared library, in pure Python, for x86-64 and aarch64.

It takes the objects that `llvm_backend` emits: code and read-only data, position independent, defining
all that they use. Anything else (writable data, absolute relocations, thread-local storage) is refused.

Formats: System V ABI, chapters 4 and 5, and its x86-64 and AArch64 supplements.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from onnxsmith_compiler.codegen import elf_format as elf
from onnxsmith_compiler.codegen.compile_errors import LinkError
from onnxsmith_compiler.codegen.elf_dynamic import DynamicTables
from onnxsmith_compiler.codegen.elf_object import ObjectFile, Symbol, parse_object
from onnxsmith_compiler.codegen.elf_relocations import RELOCATIONS
from onnxsmith_compiler.codegen.elf_sections import Section, section_table

_PT_LOAD, _PT_DYNAMIC, _PT_GNU_STACK = 1, 2, 0x6474E551
_PF_X, _PF_W, _PF_R = 1, 2, 4
_PAGE = {elf.X86_64: 0x1000, elf.AARCH64: 0x10000}
# Unwinding tables are left out: no exception passes through kernels.
_DROPPED = (".eh_frame", ".note.")
_TEXT_ALIGNMENT = 64
_PROGRAM_HEADERS = 5
_SHORTEST_FIELD = 4


@dataclass
class _Image:
    """The sections of all objects, placed: `bases[object, section]` is an address."""

    read_only: bytearray = field(default_factory=bytearray)
    text: bytearray = field(default_factory=bytearray)
    bases: dict[tuple[int, int], tuple[bool, int]] = field(default_factory=dict)


def link_shared_library(objects: Mapping[str, bytes], exports: Sequence[str] | None, soname: str) -> bytes:
    """The bytes of a shared library of `objects` (label -> object file) that exports the functions `exports`.

    None exports every global symbol.

    Raises LinkError, naming the object, for an object of another kind, a symbol defined twice or not at
    all, or a relocation that needs the dynamic linker.
    """
    if not objects:
        raise LinkError("no objects to link")
    parsed = [parse_object(label, data, RELOCATIONS) for label, data in objects.items()]
    machine = parsed[0].machine
    for one in parsed:
        if one.machine != machine:
            raise LinkError(f"{one.label}: is for machine {one.machine}, {parsed[0].label} for {machine}")
    image = _place(parsed)
    symbols = _global_symbols(parsed, image)
    names = sorted(symbols if exports is None else exports)
    missing = [name for name in names if name not in symbols]
    if missing:
        raise LinkError(f"no object defines {', '.join(missing)}")
    tables = DynamicTables(names, soname)
    layout = _layout(image, tables, _PAGE[machine])
    addresses = {
        key: (layout.text if is_text else layout.read_only) + offset for key, (is_text, offset) in image.bases.items()
    }
    defined = {
        name: (addresses[index, symbol.section] + symbol.value, symbol.size)
        for name, (index, symbol) in symbols.items()
    }
    for index, one in enumerate(parsed):
        _relocate(one, index, image, addresses, defined)
    return _write(machine, image, tables, layout, defined)


@dataclass(frozen=True)
class _Layout:
    """Where the parts of the library lie, in the file as in memory."""

    tables: int
    read_only: int
    text: int
    dynamic: int
    page: int


def _layout(image: _Image, tables: DynamicTables, page: int) -> _Layout:
    tables_at = elf.HEADER.size + elf.PROGRAM_HEADER.size * _PROGRAM_HEADERS
    read_only = _align(tables_at + tables.size, _TEXT_ALIGNMENT)
    text = _align(read_only + len(image.read_only), page)
    return _Layout(tables_at, read_only, text, _align(text + len(image.text), page), page)


def _write(
    machine: int,
    image: _Image,
    tables: DynamicTables,
    layout: _Layout,
    defined: Mapping[str, tuple[int, int]],
) -> bytes:
    dynamic = tables.dynamic(layout.tables)
    programs = (
        (_PT_LOAD, _PF_R, 0, layout.read_only + len(image.read_only), layout.page),
        (_PT_LOAD, _PF_R | _PF_X, layout.text, len(image.text), layout.page),
        (_PT_LOAD, _PF_R | _PF_W, layout.dynamic, len(dynamic), layout.page),
        (_PT_DYNAMIC, _PF_R | _PF_W, layout.dynamic, len(dynamic), 8),
        (_PT_GNU_STACK, _PF_R | _PF_W, 0, 0, 16),
    )
    assert len(programs) == _PROGRAM_HEADERS
    sections = section_table(_sections(image, tables, layout, len(dynamic)), layout.dynamic + len(dynamic))
    head = elf.HEADER.pack(
        b"\x7fELF\x02\x01\x01" + bytes(9),
        elf.SHARED, machine, 1, 0, elf.HEADER.size, sections.headers_at, 0, elf.HEADER.size,
        elf.PROGRAM_HEADER.size, len(programs), elf.SECTION_HEADER.size, sections.count, sections.count - 1,
    )  # fmt: skip
    head += b"".join(elf.PROGRAM_HEADER.pack(t, f, at, at, at, size, size, align) for t, f, at, size, align in programs)
    output = bytearray(layout.dynamic)
    for at, part in (
        (0, head),
        (layout.tables, tables.contents(_TEXT_NUMBER, defined)),
        (layout.read_only, image.read_only),
        (layout.text, image.text),
    ):
        output[at : at + len(part)] = part
    return bytes(output + dynamic + sections.content)


# Numbers of sections that others name.
_DYNSYM_NUMBER, _DYNSTR_NUMBER, _TEXT_NUMBER = 1, 3, 5


def _sections(image: _Image, tables: DynamicTables, layout: _Layout, dynamic_size: int) -> list[Section]:
    """The library's sections, numbered from 1 on."""
    symbols, hashes, strings = (layout.tables + part for part in tables.parts)
    text, read_only, a = len(image.text), len(image.read_only), elf.ALLOC
    return [
        Section(".dynsym", elf.DYNAMIC_SYMBOLS, a, symbols, hashes - symbols, 8, _DYNSTR_NUMBER, 1, elf.SYMBOL.size),
        Section(".hash", elf.HASH, a, hashes, strings - hashes, 4, _DYNSYM_NUMBER, 0, 4),
        Section(".dynstr", elf.STRING_TABLE, a, strings, layout.tables + tables.size - strings, 1),
        Section(".rodata", elf.PROGBITS, a, layout.read_only, read_only, _TEXT_ALIGNMENT),
        Section(".text", elf.PROGBITS, a | elf.EXECUTE, layout.text, text, _TEXT_ALIGNMENT),
        Section(".dynamic", elf.DYNAMIC, a | elf.WRITE, layout.dynamic, dynamic_size, 8, _DYNSTR_NUMBER, 0,
                elf.DYNAMIC_ENTRY.size),
    ]  # fmt: skip


def _align(value: int, alignment: int) -> int:
    return -(-value // alignment) * alignment


def _place(objects: Sequence[ObjectFile]) -> _Image:
    image = _Image()
    for index, one in enumerate(objects):
        for number, section in enumerate(one.sections):
            if not section.flags & elf.ALLOC or not section.size or section.name.startswith(_DROPPED):
                continue
            if section.kind != elf.PROGBITS or section.flags & (elf.WRITE | elf.THREAD_LOCAL):
                raise LinkError(f"{one.label}: section {section.name} is not code or read-only data")
            is_text = bool(section.flags & elf.EXECUTE)
            part = image.text if is_text else image.read_only
            alignment = max(section.alignment, _TEXT_ALIGNMENT if is_text else 1)
            if alignment > _TEXT_ALIGNMENT:
                raise LinkError(f"{one.label}: section {section.name} asks for alignment {alignment}")
            part.extend(bytes(_align(len(part), alignment) - len(part)))
            image.bases[index, number] = is_text, len(part)
            part += one.data[section.offset : section.offset + section.size]
    return image


def _global_symbols(objects: Sequence[ObjectFile], image: _Image) -> dict[str, tuple[int, Symbol]]:
    """The global symbols that lie in placed sections, each with the number of its object."""
    found: dict[str, tuple[int, Symbol]] = {}
    for index, one in enumerate(objects):
        for symbol in one.symbols:
            if not symbol.is_global or (index, symbol.section) not in image.bases:
                continue
            if symbol.value > one.sections[symbol.section].size:
                raise LinkError(f"{one.label}: is damaged: {symbol.name} lies outside of its section")
            if symbol.name in found:
                other = objects[found[symbol.name][0]].label
                raise LinkError(f"{one.label}: defines {symbol.name}, which {other} defines too")
            found[symbol.name] = index, symbol
    return found


def _relocate(
    one: ObjectFile,
    index: int,
    image: _Image,
    addresses: Mapping[tuple[int, int], int],
    defined: Mapping[str, tuple[int, int]],
) -> None:
    relocations = RELOCATIONS[one.machine]
    for number, entries in one.relocations:
        if (index, number) not in addresses:
            continue
        is_text, start = image.bases[index, number]
        part = image.text if is_text else image.read_only
        base = addresses[index, number]
        section = one.sections[number]
        for offset, info, addend in entries:
            if info >> 32 >= len(one.symbols) or offset > section.size - _SHORTEST_FIELD:
                raise LinkError(f"{one.label}: is damaged: a relocation of {section.name} points nowhere")
            symbol = one.symbols[info >> 32]
            apply = relocations.get(info & 0xFFFFFFFF)
            if apply is None:
                raise LinkError(
                    f"{one.label}: relocation type {info & 0xFFFFFFFF} of {symbol.name or section.name} "
                    "is not position independent"
                )
            target = _symbol_address(one, index, symbol, addresses, defined)
            try:
                apply(part, start + offset, base + offset, target + addend)
            except (struct.error, OverflowError) as error:
                raise LinkError(f"{one.label}: {symbol.name or section.name} is out of reach") from error


def _symbol_address(
    one: ObjectFile,
    index: int,
    symbol: Symbol,
    addresses: Mapping[tuple[int, int], int],
    defined: Mapping[str, tuple[int, int]],
) -> int:
    base = addresses.get((index, symbol.section))
    if base is not None:
        return base + symbol.value
    if symbol.name not in defined:
        raise LinkError(f"{one.label}: calls {symbol.name or 'a dropped section'}, which no object defines")
    return defined[symbol.name][0]
