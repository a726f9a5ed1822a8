"""Zip files and wheels of compiled models: stored, so that weights are mapped from them, and always the same bytes."""

from __future__ import annotations

import base64
import hashlib
import os
import struct
import tempfile
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from onnxsmith.manifest import FileEntry
from onnxsmith.version import __version__

_ALIGNMENT = 64
_LOCAL_HEADER_BYTES = 30
_ZIP64_EXTRA_BYTES = 20
_ZIP64_FROM = 1 << 31
_DATE = (1980, 1, 1, 0, 0, 0)  # the earliest that a zip file can tell
_MODE = 0o100644 << 16
_UNIX = 3
# The extra field by which Android's zipalign pads, which readers pass over.
_PADDING = struct.Struct("<HHH")
_PADDING_ID = 0xD935
_CHUNK = 1 << 20


@dataclass(frozen=True)
class Member:
    """A file of a package: its name, its content or where that is, and its size and digest."""

    name: str
    content: bytes | Path
    entry: FileEntry


def write_zip(output: Path, members: Sequence[Member]) -> Path:
    """Write `members` to the zip file `output`, which is replaced if it is there; `output`.

    Each member's data begins at a multiple of 64 bytes. Python imports modules from zip files of more than
    2 GiB from 3.13 on.
    """
    with tempfile.TemporaryDirectory(dir=output.absolute().parent, prefix=".onnxsmith-") as folder:
        temporary = Path(folder, "new")
        with zipfile.ZipFile(temporary, "x") as archive:
            for member in members:
                _add(archive, member)
        os.replace(temporary, output)
    return output


def write_wheel(
    folder: Path, name: str, version: str, platform: str, needs: Sequence[str], members: Sequence[Member]
) -> Path:
    """Write a wheel of `members`, which lie in the package `name`, into `folder`; the wheel's path."""
    tag = f"py3-none-{platform}"
    info = f"{name}-{version}.dist-info"
    metadata = [
        "Metadata-Version: 2.1",
        f"Name: {name}",
        f"Version: {version}",
        "Summary: An ONNX model, compiled by onnxsmith",
        "Requires-Python: >=3.11",
        *(f"Requires-Dist: {need}" for need in needs),
    ]
    wheel = ["Wheel-Version: 1.0", f"Generator: onnxsmith {__version__}", "Root-Is-Purelib: false", f"Tag: {tag}"]
    described = [_text_member(f"{info}/METADATA", metadata), _text_member(f"{info}/WHEEL", wheel)]
    record = [f"{member.name},sha256={_record_digest(member.entry)},{member.entry.bytes}" for member in
              (*members, *described)]  # fmt: skip
    listed = _text_member(f"{info}/RECORD", [*record, f"{info}/RECORD,,"])
    return write_zip(folder / f"{name}-{version}-{tag}.whl", [*described, listed, *members])


def _text_member(name: str, lines: Sequence[str]) -> Member:
    content = "".join(f"{line}\n" for line in lines).encode()
    return Member(name, content, FileEntry(len(content), hashlib.sha256(content).hexdigest()))


def _record_digest(entry: FileEntry) -> str:
    return base64.urlsafe_b64encode(bytes.fromhex(entry.sha256)).rstrip(b"=").decode()


def _add(archive: zipfile.ZipFile, member: Member) -> None:
    info = zipfile.ZipInfo(member.name, _DATE)
    info.create_system = _UNIX
    info.external_attr = _MODE
    large = member.entry.bytes >= _ZIP64_FROM
    assert archive.fp is not None
    begin = archive.fp.tell() + _LOCAL_HEADER_BYTES + len(member.name.encode()) + _ZIP64_EXTRA_BYTES * large
    padding = -(begin + _PADDING.size) % _ALIGNMENT
    info.extra = _PADDING.pack(_PADDING_ID, padding + 2, _ALIGNMENT) + bytes(padding)
    with archive.open(info, "w", force_zip64=large) as target:
        if isinstance(member.content, bytes):
            target.write(member.content)
            return
        with member.content.open("rb") as source:
            while chunk := source.read(_CHUNK):
                target.write(chunk)
