"""Links relocatable ELF objects into one shared library, in pure Python, for x86-64 and aarch64.

It takes the objects that `llvm_backend` emits: code and read-only data, position independent, defining
all that they use. Anything else (writable data, absolute relocations, thread-local storage) is refused.

Formats: System V ABI, chapters 4 and 5, and its x86-64 and AArch64 supplements.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from onnxsmith_compiler.codegen.elf_sections import SECTION_HEADER, STRING_TABLE, Section, section_table

_HEADER = struct.Struct("<16sHHIQQQIHHHHHH")
_SYMBOL = struct.Struct("<IBBHQQ")
_RELA = struct.Struct("<QQq")
_PROGRAM = struct.Struct("<IIQQQQQQ")
_DYNAMIC = struct.Struct("<QQ")

_ET_REL, _ET_DYN = 1, 3
_SHT_PROGBITS, _SHT_SYMTAB, _SHT_RELA, _SHT_HASH, _SHT_DYNAMIC = 1, 2, 4, 5, 6
_SHT_NOBITS, _SHT_DYNSYM = 8, 11
_SHF_WRITE, _SHF_ALLOC, _SHF_EXECINSTR, _SHF_TLS = 1, 2, 4, 0x400
_PT_LOAD, _PT_DYNAMIC, _PT_GNU_STACK = 1, 2, 0x6474E551
_PF_X, _PF_W, _PF_R = 1, 2, 4
_DT_HASH, _DT_STRTAB, _DT_SYMTAB, _DT_STRSZ, _DT_SYMENT, _DT_SONAME = 4, 5, 6, 10, 11, 14
_STB_GLOBAL, _STT_FUNC = 1, 2
_EM_X86_64, _EM_AARCH64 = 62, 183
_PAGE = {_EM_X86_64: 0x1000, _EM_AARCH64: 0x10000}
# Unwinding tables are left out: no exception passes through kernels.
_DROPPED = (".eh_frame", ".note.")
_TEXT_ALIGNMENT = 64
_PROGRAM_HEADERS = 5
_SHORTEST_FIELD = 4


class LinkError(ValueError):
    """An object that this linker does not take; the message names the object and says why."""


@dataclass(frozen=True)
class _Section:
    name: str
    kind: int
    flags: int
    offset: int
    size: int
    link: int
    info: int
    alignment: int


@dataclass(frozen=True)
class _Symbol:
    name: str
    is_global: bool
    section: int
    value: int
    size: int


@dataclass(frozen=True)
class _Object:
    label: str
    data: bytes
    machine: int
    sections: tuple[_Section, ...]
    symbols: tuple[_Symbol, ...]
    # (number of the section that they apply to, (offset, symbol and type, addend) of each)
    relocations: tuple[tuple[int, tuple[tuple[int, int, int], ...]], ...]


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
    parsed = [_parse(label, data) for label, data in objects.items()]
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
    tables = _DynamicTables(names, soname)
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


def _layout(image: _Image, tables: _DynamicTables, page: int) -> _Layout:
    tables_at = _HEADER.size + _PROGRAM.size * _PROGRAM_HEADERS
    read_only = _align(tables_at + tables.size, _TEXT_ALIGNMENT)
    text = _align(read_only + len(image.read_only), page)
    return _Layout(tables_at, read_only, text, _align(text + len(image.text), page), page)


def _write(
    machine: int,
    image: _Image,
    tables: _DynamicTables,
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
    head = _HEADER.pack(
        b"\x7fELF\x02\x01\x01" + bytes(9),
        _ET_DYN, machine, 1, 0, _HEADER.size, sections.headers_at, 0, _HEADER.size,
        _PROGRAM.size, len(programs), SECTION_HEADER.size, sections.count, sections.count - 1,
    )  # fmt: skip
    head += b"".join(_PROGRAM.pack(t, f, at, at, at, size, size, align) for t, f, at, size, align in programs)
    output = bytearray(layout.dynamic)
    for at, part in (
        (0, head),
        (layout.tables, tables.contents(layout.tables, defined)),
        (layout.read_only, image.read_only),
        (layout.text, image.text),
    ):
        output[at : at + len(part)] = part
    return bytes(output + dynamic + sections.content)


# Numbers of sections that others name.
_DYNSYM_NUMBER, _DYNSTR_NUMBER, _TEXT_NUMBER = 1, 3, 5


def _sections(image: _Image, tables: _DynamicTables, layout: _Layout, dynamic_size: int) -> list[Section]:
    """The library's sections, numbered from 1 on."""
    symbols, hashes, strings = (layout.tables + part for part in tables.parts)
    text, read_only, a = len(image.text), len(image.read_only), _SHF_ALLOC
    return [
        Section(".dynsym", _SHT_DYNSYM, a, symbols, hashes - symbols, 8, _DYNSTR_NUMBER, 1, _SYMBOL.size),
        Section(".hash", _SHT_HASH, a, hashes, strings - hashes, 4, _DYNSYM_NUMBER, 0, 4),
        Section(".dynstr", STRING_TABLE, a, strings, layout.tables + tables.size - strings, 1),
        Section(".rodata", _SHT_PROGBITS, a, layout.read_only, read_only, _TEXT_ALIGNMENT),
        Section(".text", _SHT_PROGBITS, a | _SHF_EXECINSTR, layout.text, text, _TEXT_ALIGNMENT),
        Section(".dynamic", _SHT_DYNAMIC, a | _SHF_WRITE, layout.dynamic, dynamic_size, 8, _DYNSTR_NUMBER, 0,
                _DYNAMIC.size),
    ]  # fmt: skip


def _align(value: int, alignment: int) -> int:
    return -(-value // alignment) * alignment


def _name(data: bytes, table: int, offset: int) -> str:
    start = table + offset
    return data[start : data.index(b"\0", start)].decode()


def _parse(label: str, data: bytes) -> _Object:
    try:
        ident, kind, machine, _, _, _, table, _, _, _, _, size, count, names = _HEADER.unpack_from(data)
        if ident[:6] != b"\x7fELF\x02\x01" or kind != _ET_REL or size != SECTION_HEADER.size:
            raise LinkError(f"{label}: is not a relocatable 64-bit little-endian ELF object")
        if machine not in _PAGE:
            raise LinkError(f"{label}: is for ELF machine {machine}, not x86-64 or aarch64")
        raw = list(SECTION_HEADER.iter_unpack(data[table : table + count * size]))
        strings = raw[names][4]
        sections = tuple(
            _Section(_name(data, strings, name), kind, flags, offset, length, link, info, max(1, alignment))
            for name, kind, flags, _, offset, length, link, info, alignment, _ in raw
        )
        for section in sections:
            if section.kind != _SHT_NOBITS and section.offset + section.size > len(data):
                raise LinkError(f"{label}: is cut off within section {section.name}")
        symbols = _parse_symbols(data, sections)
        relocations = tuple(
            (section.info, tuple(_RELA.iter_unpack(data[section.offset : section.offset + section.size])))
            for section in sections
            if section.kind == _SHT_RELA
        )
    except (struct.error, IndexError, ValueError) as error:
        if isinstance(error, LinkError):
            raise
        raise LinkError(f"{label}: is a damaged ELF object ({error})") from error
    return _Object(label, data, machine, sections, symbols, relocations)


def _parse_symbols(data: bytes, sections: Sequence[_Section]) -> tuple[_Symbol, ...]:
    table = next((section for section in sections if section.kind == _SHT_SYMTAB), None)
    if table is None:
        return ()
    strings = sections[table.link].offset
    return tuple(
        _Symbol(_name(data, strings, name), info >> 4 != 0, section, value, size)
        for name, info, _, section, value, size in _SYMBOL.iter_unpack(data[table.offset : table.offset + table.size])
    )


def _place(objects: Sequence[_Object]) -> _Image:
    image = _Image()
    for index, one in enumerate(objects):
        for number, section in enumerate(one.sections):
            if not section.flags & _SHF_ALLOC or not section.size or section.name.startswith(_DROPPED):
                continue
            if section.kind != _SHT_PROGBITS or section.flags & (_SHF_WRITE | _SHF_TLS):
                raise LinkError(f"{one.label}: section {section.name} is not code or read-only data")
            is_text = bool(section.flags & _SHF_EXECINSTR)
            part = image.text if is_text else image.read_only
            alignment = max(section.alignment, _TEXT_ALIGNMENT if is_text else 1)
            if alignment > _TEXT_ALIGNMENT:
                raise LinkError(f"{one.label}: section {section.name} asks for alignment {alignment}")
            part.extend(bytes(_align(len(part), alignment) - len(part)))
            image.bases[index, number] = is_text, len(part)
            part += one.data[section.offset : section.offset + section.size]
    return image


def _global_symbols(objects: Sequence[_Object], image: _Image) -> dict[str, tuple[int, _Symbol]]:
    """The global symbols that lie in placed sections, each with the number of its object."""
    found: dict[str, tuple[int, _Symbol]] = {}
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
    one: _Object,
    index: int,
    image: _Image,
    addresses: Mapping[tuple[int, int], int],
    defined: Mapping[str, tuple[int, int]],
) -> None:
    relocations = _RELOCATIONS[one.machine]
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
    one: _Object,
    index: int,
    symbol: _Symbol,
    addresses: Mapping[tuple[int, int], int],
    defined: Mapping[str, tuple[int, int]],
) -> int:
    base = addresses.get((index, symbol.section))
    if base is not None:
        return base + symbol.value
    if symbol.name not in defined:
        raise LinkError(f"{one.label}: calls {symbol.name or 'a dropped section'}, which no object defines")
    return defined[symbol.name][0]


# A relocation: (bytes, position in them, address of the place, address of the target).
_Relocation = Callable[[bytearray, int, int, int], None]


def _relative(code: str) -> _Relocation:
    layout = struct.Struct(code)

    def apply(part: bytearray, position: int, place: int, target: int) -> None:
        layout.pack_into(part, position, target - place)

    return apply


def _patch_word(part: bytearray, position: int, mask: int, bits: int) -> None:
    (word,) = struct.unpack_from("<I", part, position)
    struct.pack_into("<I", part, position, word & ~mask | bits & mask)


def _branch(bits: int, shift: int) -> _Relocation:
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


def _low12(scale: int) -> _Relocation:
    """The low 12 bits of the address, in units of 2**scale bytes, as an instruction's immediate."""

    def apply(part: bytearray, position: int, place: int, target: int) -> None:
        _patch_word(part, position, 0xFFF << 10, (target & 0xFFF) >> scale << 10)

    return apply


_RELOCATIONS: dict[int, dict[int, _Relocation]] = {
    _EM_X86_64: {
        2: _relative("<i"),  # R_X86_64_PC32
        4: _relative("<i"),  # R_X86_64_PLT32
        24: _relative("<q"),  # R_X86_64_PC64
    },
    _EM_AARCH64: {
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


class _DynamicTables:
    """The symbol, string and hash tables by which the dynamic linker finds `names`."""

    def __init__(self, names: Sequence[str], soname: str) -> None:
        self.names = names
        self._strings = bytearray(b"\0")
        self._soname = self._add_string(soname)
        self._name_offsets = [self._add_string(name) for name in names]
        self._symbols_at = 0
        self._hash_at = _SYMBOL.size * (len(names) + 1)
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

    def contents(self, at: int, defined: Mapping[str, tuple[int, int]]) -> bytes:
        """The tables, to be put at address `at`; `defined` gives (address, size) by name."""
        symbols = [bytes(_SYMBOL.size)]
        info = _STB_GLOBAL << 4 | _STT_FUNC
        for name, offset in zip(self.names, self._name_offsets, strict=True):
            symbols.append(_SYMBOL.pack(offset, info, 0, _TEXT_NUMBER, *defined[name]))
        return b"".join(symbols) + self._hash + self._strings

    def dynamic(self, at: int) -> bytes:
        """The dynamic section for tables at address `at`."""
        entries = (
            (_DT_SONAME, self._soname),
            (_DT_HASH, at + self._hash_at),
            (_DT_STRTAB, at + self._strings_at),
            (_DT_SYMTAB, at + self._symbols_at),
            (_DT_STRSZ, len(self._strings)),
            (_DT_SYMENT, _SYMBOL.size),
            (0, 0),
        )
        return b"".join(_DYNAMIC.pack(*entry) for entry in entries)


def _sysv_hash(name: str) -> int:
    value = 0
    for byte in name.encode():
        value = (value << 4) + byte
        high = value & 0xF0000000
        value = (value ^ high >> 24) & ~high
    return value
