"""A compiled model on disk: files in a folder or a zip file, written once and never changed.

    manifest.json        the other files' sizes and digests, and what the code needs (`onnxsmith.manifest`)
    program.json         the program (`onnxsmith.program`), see `program_json`
    code.so              its kernels and the native core; .dll on Windows, .dylib on macOS
    weights.safetensors  its packed weights, one uint8 tensor, its data aligned to 64 bytes

One that was compiled for several levels of CPU has a program and a library for each, which share the weights:
program-x86-64-v3.json, code-x86-64-v3.so. Code that C programs can call as `my_model` is in libmy_model.so
(my_model.dll, libmy_model.dylib), beside a header my_model.h. Of several levels the one for every CPU is there, and the
others are in folders, in which glibc's dynamic linker looks for better versions of a library.
The cache keeps such folders; a Python package of a compiled model (`onnxsmith.packaging`) is one with a runtime
beside it. Digests tell a damaged file from a whole one; whom to trust is the business of who chose the folder,
who can pin the manifest's digest.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import IO, TYPE_CHECKING, Any, TypeAlias

import numpy as np

from onnxsmith import manifest as manifests
from onnxsmith import program_json
from onnxsmith.cpu import CodeTarget, library_suffix
from onnxsmith.digests import sha256 as sha256_of
from onnxsmith.manifest import ArtifactError, CodeFile, FileEntry, Manifest, UnfitError
from onnxsmith.memory import HUGE_PAGE
from onnxsmith.program import (
    SCHEMA_VERSION,
    Argument,
    Binding,
    Buffer,
    Check,
    Instruction,
    Opcode,
    Place,
    Program,
    Relation,
    Segment,
    Step,
    Tensor,
)
from onnxsmith.record import Record
from onnxsmith.storage import Folder, Storage

if TYPE_CHECKING:
    from pathlib import Path  # annotations alone, for it takes long to import

__all__ = [
    "SCHEMA_VERSION", "Argument", "ArtifactError", "Binding", "Buffer", "Check", "Instruction", "Opcode", "Package",
    "Place", "Program", "Relation", "Segment", "Step", "Tensor", "Version", "digest", "read", "read_manifest",
    "read_program", "verify_files", "write",
]  # fmt: skip

Bytes: TypeAlias = np.ndarray[Any, np.dtype[np.uint8]]

MANIFEST = "manifest.json"
WEIGHTS = "weights.safetensors"

_LEVEL_FOLDERS = {"linux": "glibc-hwcaps"}

_WEIGHT_ALIGNMENT = 64
_CHUNK = 1 << 20


class Package(Record):
    """A compiled model as read: `weights` is mapped from its file, read-only, shared between processes."""

    manifest: Manifest
    program: Program
    code: bytes
    weights: Bytes


class Version(Record):
    """A program for one kind of machine. `link` gives its code, which needs a machine like `target`."""

    program: Program
    link: Callable[[], bytes]
    target: CodeTarget


def write(
    directory: Path,
    versions: Sequence[Version],
    weights: Iterable[tuple[int, np.ndarray[Any, Any]]],
    interface: str = "",
    others: Mapping[str, bytes] | None = None,
) -> None:
    """Write a compiled model into `directory`, which exists: for several kinds of machine, the best first.

    `interface` is the name of the code's C functions, "" for none. `others` are more files, by name.

    `weights` are (offset in bytes, array) by increasing offset, within the programs' weight_bytes, which are the same.
    ValueError where they are not, or where a program is inconsistent. Code is asked for at the end.
    """
    from onnxsmith.program_check import check_program  # here: who only reads needs no check

    files = {name: write_file(directory / name, [content]) for name, content in (others or {}).items()}
    code = [_code_file(version.target, len(versions) == 1, version is versions[-1], interface) for version in versions]
    for version, names in zip(versions, code, strict=True):
        check_program(version.program)
        files[names.program] = write_file(directory / names.program, [program_json.encode(version.program)])
    (size,) = {version.program.weight_bytes for version in versions}
    files[WEIGHTS] = write_file(directory / WEIGHTS, _weight_chunks(weights, size))
    for version, names in zip(versions, code, strict=True):
        (directory / names.file).parent.mkdir(parents=True, exist_ok=True)
        files[names.file] = write_file(directory / names.file, [version.link()])
    write_file(directory / MANIFEST, [manifests.encode(Manifest(tuple(code), files))])


def read(storage: Storage | Path, *, verify: bool = False, sha256: str | None = None) -> Package:
    """Read a compiled model, checked before any of it is used.

    The manifest, and the program and the code that are for this machine, are verified in full, the weights by size and
    header; all files in full where `verify`. `sha256` is the digest that the manifest must have, if one is given.

    ArtifactError where a file is missing or damaged; UnfitError, one of them, where it is of another schema or
    its code is for another machine.
    """
    storage = _storage(storage)
    manifest = read_manifest(storage, sha256)
    if verify:
        verify_files(storage, manifest)
    try:
        chosen = manifest.code_here()
    except UnfitError as problem:
        raise type(problem)(f"{storage.location}: {problem}") from None
    program = read_program(storage, chosen, manifest)
    code = _read_verified(storage, chosen.file, manifest)
    return Package(manifest, program, code, _map_weights(storage, program.weight_bytes, manifest))


def read_program(storage: Storage | Path, code: CodeFile, manifest: Manifest) -> Program:
    """The program of one of the manifest's libraries, verified. ArtifactError where it is missing or damaged."""
    storage = _storage(storage)
    try:
        return program_json.decode(_read_verified(storage, code.program, manifest))
    except (ValueError, TypeError, KeyError, IndexError) as error:
        raise ArtifactError(f"{storage.name(code.program)}: not a program: {error}") from error


def verify_files(storage: Storage | Path, manifest: Manifest) -> None:
    """Read every file of the manifest in full. ArtifactError where one is missing or damaged."""
    for file in manifest.files:
        _verify(_storage(storage), file, manifest)


def digest(storage: Storage | Path) -> str:
    """The SHA-256 of the manifest, which fixes every byte of the model. ArtifactError where it has none."""
    return sha256_of(_read_file(_storage(storage), MANIFEST))


def write_file(path: Path, chunks: Iterable[bytes | memoryview]) -> FileEntry:
    """Write a file; its entry in the manifest.

    A part is digested while it is written and the next is made.
    """
    import hashlib  # a session that only reads needs neither
    from concurrent.futures import Future, ThreadPoolExecutor

    size = 0
    sha = hashlib.sha256()
    digested: Future[Any] | None = None
    with path.open("wb", buffering=0) as file, ThreadPoolExecutor(1) as thread:
        for part in _parts(chunks):
            if digested is not None:
                digested.result()
            digested = thread.submit(sha.update, part)
            _write_whole(file, part)
            size += len(part)
        if digested is not None:
            digested.result()
    return FileEntry(size, sha.hexdigest())


def _parts(chunks: Iterable[bytes | memoryview]) -> Iterator[memoryview]:
    """The chunks in parts of a huge page each, the last one shorter.

    What is written a whole huge page at a time, some systems keep in huge pages, and can map them as they are. Parts
    are also so small that they stay in a core's caches from one use to the next.
    """
    pending = bytearray()
    for chunk in chunks:
        rest = memoryview(chunk)
        while rest:
            part, rest = rest[: HUGE_PAGE - len(pending)], rest[HUGE_PAGE - len(pending) :]
            if len(part) == HUGE_PAGE:
                yield part
                continue
            pending += part
            if len(pending) == HUGE_PAGE:
                yield memoryview(pending)
                pending = bytearray()
    if pending:
        yield memoryview(pending)


def _write_whole(file: IO[bytes], part: memoryview) -> None:
    while part:
        part = part[file.write(part) :]  # a raw file takes what it has room for


def library_name(name: str, system: str) -> str:
    """The file in which linkers of the system look for a library called `name`."""
    return f"{'' if system == 'win32' else 'lib'}{name}{library_suffix(system)}"


def _code_file(target: CodeTarget, alone: bool, least: bool, interface: str) -> CodeFile:
    """The names of a version's files. `least` is the version that asks least of the CPU."""
    level = "" if alone else f"-{target.level}"
    file = f"code{level}{library_suffix(target.system)}"
    if interface:
        folder = "" if least else f"{_LEVEL_FOLDERS.get(target.system, 'levels')}/{target.level}/"
        file = folder + library_name(interface, target.system)
    return CodeFile(file, target, f"program{level}.json")


def _storage(where: Storage | Path) -> Storage:
    return Folder(where) if isinstance(where, os.PathLike) else where


def weight_header(size: int) -> bytes:
    """The start of the file of `size` bytes of weights: the length of its header, and the header."""
    entry = {"dtype": "U8", "shape": [size], "data_offsets": [0, size]}
    header = json.dumps({"weights": entry}, separators=(",", ":")).encode()
    header += b" " * (-(len(header) + 8) % _WEIGHT_ALIGNMENT)
    return len(header).to_bytes(8, "little") + header


def _weight_chunks(weights: Iterable[tuple[int, np.ndarray[Any, Any]]], size: int) -> Iterator[bytes | memoryview]:
    """The safetensors file: header, then data with zeros where no array lies."""
    yield weight_header(size)
    end = 0
    for offset, array in weights:
        if offset < end or offset + array.nbytes > size:
            raise ValueError(f"a weight of {array.nbytes} bytes at offset {offset} overlaps another or the end")
        if offset > end:
            yield bytes(offset - end)
        if array.nbytes:
            yield np.ascontiguousarray(array).reshape(-1).view(np.uint8).data
        end = offset + array.nbytes
    yield bytes(size - end)


def read_manifest(storage: Storage | Path, sha256: str | None = None) -> Manifest:
    """The manifest of a compiled model, with the digest `sha256` where one is given. Raises as `read` does."""
    storage = _storage(storage)
    text = _read_file(storage, MANIFEST)
    found = sha256_of(text)
    if sha256 is not None and found != sha256.lower():
        raise ArtifactError(f"{storage.name(MANIFEST)}: not the one that is trusted: its SHA-256 is {found}")
    try:
        manifest = manifests.decode(text)
    except ArtifactError as problem:
        raise type(problem)(f"{storage.name(MANIFEST)}: {problem}") from None
    needed = (WEIGHTS, *(name for code in manifest.code for name in (code.program, code.file)))
    missing = [name for name in needed if name not in manifest.files]
    if missing:
        raise ArtifactError(f"{storage.name(MANIFEST)}: does not list {', '.join(missing)}")
    return manifest


def _read_file(storage: Storage, file: str) -> bytes:
    try:
        return storage.read(file)
    except OSError as error:
        raise ArtifactError(f"{storage.name(file)}: cannot be read: {error.strerror or error}") from error


def _map_file(storage: Storage, file: str) -> memoryview:
    try:
        return storage.map(file)
    except OSError as error:
        raise ArtifactError(f"{storage.name(file)}: cannot be mapped: {error.strerror or error}") from error


def _read_verified(storage: Storage, file: str, manifest: Manifest) -> bytes:
    content = _read_file(storage, file)
    _compare(sha256_of(content), storage, file, manifest)
    return content


def _verify(storage: Storage, file: str, manifest: Manifest) -> None:
    import hashlib  # where all is read, it is worth its loading

    content = _map_file(storage, file)
    sha = hashlib.sha256()
    for start in range(0, len(content), _CHUNK):
        sha.update(content[start : start + _CHUNK])
    _compare(sha.hexdigest(), storage, file, manifest)


def _compare(found: str, storage: Storage, file: str, manifest: Manifest) -> None:
    if found != manifest.files[file].sha256:
        raise ArtifactError(f"{storage.name(file)}: damaged, its digest is not the manifest's")


def _map_weights(storage: Storage, size: int, manifest: Manifest) -> Bytes:
    mapped = _map_file(storage, WEIGHTS)
    header = weight_header(size)
    if len(mapped) != manifest.files[WEIGHTS].bytes or len(mapped) != len(header) + size:
        raise ArtifactError(f"{storage.name(WEIGHTS)}: damaged, it is not of the size that the manifest says")
    if mapped[: len(header)] != header:
        raise ArtifactError(f"{storage.name(WEIGHTS)}: damaged, its header is not that of the program's weights")
    weights = np.frombuffer(mapped, np.uint8, size, len(header))
    if size and weights.ctypes.data % _WEIGHT_ALIGNMENT:
        raise ArtifactError(f"{storage.name(WEIGHTS)}: not aligned to {_WEIGHT_ALIGNMENT} bytes in the zip file")
    return weights
