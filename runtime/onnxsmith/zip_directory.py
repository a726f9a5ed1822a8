"""What is in a zip file, and where.

The standard library's zipfile imports compressors, URLs and threads, which takes longer than opening a model; a
compiled model's files are stored as they are. The layout is that of PKWARE's APPNOTE.TXT, with its ZIP64 part.
"""

from __future__ import annotations

import struct
from typing import IO, Any

from onnxsmith.record import Record

STORED = 0

_END = struct.Struct("<4s4H2LH")
_LARGE_END = struct.Struct("<4sQ2H2L4Q")
_LARGE_END_PLACE = struct.Struct("<4sLQL")
_ENTRY = struct.Struct("<4s6H3L5H2L")
_LOCAL = struct.Struct("<4s22x2H")
_LONGEST_COMMENT = 0xFFFF
_MANY = 0xFFFFFFFF  # the true number is among the extra fields
_LARGE_FIELD = 1


class Member(Record):
    """A file in a zip file: where its header begins, its method of compression, and its size in bytes as stored."""

    header: int
    method: int
    size: int


def members(file: IO[bytes]) -> dict[str, Member]:
    """The members of the zip file `file` by name. ValueError for a file that is no zip file or damaged."""
    length = file.seek(0, 2)
    directory, shift = _directory(file, length)
    found = {}
    at = 0
    while at < len(directory):
        _, _, _, _, method, _, _, _, size, full, name, extra, comment, _, _, _, header = _unpack(
            _ENTRY, b"PK\1\2", directory, at
        )
        at += _ENTRY.size
        if full == _MANY or size == _MANY or header == _MANY:
            size, header = _large(directory[at + name : at + name + extra], full, size, header)
        if header + shift + size > length:
            raise ValueError("a member reaches beyond its end")
        found[directory[at : at + name].decode(errors="replace")] = Member(header + shift, method, size)
        at += name + extra + comment
    return found


def data_start(file: IO[bytes], member: Member) -> int:
    """Where the member's data begins. ValueError where its header is damaged."""
    file.seek(member.header)
    _, name, extra = _unpack(_LOCAL, b"PK\3\4", file.read(_LOCAL.size), 0)
    return int(member.header + _LOCAL.size + name + extra)


def _directory(file: IO[bytes], length: int) -> tuple[bytes, int]:
    """(the central directory, how far the zip file's beginning is into the file) of a file of `length` bytes."""
    begin = max(0, length - _END.size - _LONGEST_COMMENT)
    file.seek(begin)
    tail = file.read()
    place = tail.rfind(b"PK\5\6")
    if place < 0:
        raise ValueError("it does not end as a zip file does")
    *_, size, offset, _ = _unpack(_END, b"PK\5\6", tail, place)
    end = begin + place
    if tail[place - _LARGE_END_PLACE.size : place].startswith(b"PK\6\7"):
        end -= _LARGE_END_PLACE.size + _LARGE_END.size
        file.seek(max(0, end))
        *_, size, offset = _unpack(_LARGE_END, b"PK\6\6", file.read(_LARGE_END.size), 0)
    shift = end - size - offset
    if shift < 0:
        raise ValueError("its directory begins before it")
    file.seek(end - size)
    return file.read(size), shift


def _large(extra: bytes, full: int, size: int, header: int) -> tuple[int, int]:
    """(size as stored, offset of the header) where some did not fit into 32 bits."""
    while len(extra) >= 4:
        kind, length = struct.unpack_from("<2H", extra)
        if kind == _LARGE_FIELD:
            numbers = iter(value for (value,) in struct.iter_unpack("<Q", extra[4 : 4 + length // 8 * 8]))
            replaced = [next(numbers, value) if value == _MANY else value for value in (full, size, header)]
            return replaced[1], replaced[2]
        extra = extra[4 + length :]
    raise ValueError("its directory does not tell where a large member is")


def _unpack(layout: struct.Struct, mark: bytes, data: bytes, at: int) -> tuple[Any, ...]:
    if not data.startswith(mark, at) or len(data) < at + layout.size:
        raise ValueError("its directory is damaged")
    return layout.unpack_from(data, at)
