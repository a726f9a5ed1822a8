"""A compiled model on disk: a folder of four files, written once and never changed.

    manifest.json        format, schema, the other files' sizes and SHA-256 digests
    program.json         the program (`onnxsmith.program`), see `program_json`
    code.so              its kernels and the native core
    weights.safetensors  its packed weights, one uint8 tensor, its data aligned to 64 bytes

Digests tell a damaged file from a whole one; whom to trust is the business of who chose the folder.
"""

from __future__ import annotations

import hashlib
import json
import mmap
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np

from onnxsmith import program_json
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
from onnxsmith.program_check import check_program

__all__ = [
    "SCHEMA_VERSION", "Argument", "ArtifactError", "Binding", "Buffer", "Check", "Instruction", "Opcode", "Package",
    "Place", "Program", "Relation", "Segment", "Step", "Tensor", "digest", "read", "write",
]  # fmt: skip

Bytes: TypeAlias = np.ndarray[Any, np.dtype[np.uint8]]

MANIFEST = "manifest.json"
PROGRAM = "program.json"
CODE = "code.so"
WEIGHTS = "weights.safetensors"

_FORMAT = "onnxsmith program"
_WEIGHT_ALIGNMENT = 64


class ArtifactError(Exception):
    """A compiled model that is missing, damaged, or made by another version; the message names the file."""


@dataclass(frozen=True, eq=False)
class Package:
    """A compiled model as read: `weights` is mapped from its file, read-only, shared between processes."""

    program: Program
    code: bytes
    weights: Bytes


def write(
    directory: Path,
    program: Program,
    code: bytes | Callable[[], bytes],
    weights: Iterable[tuple[int, np.ndarray[Any, Any]]] = (),
) -> None:
    """Write a compiled model into `directory`, which exists.

    `weights` are (offset in bytes, array) by increasing offset, within program.weight_bytes. ValueError where
    they are not, or where the program is inconsistent. `code` may be a function, which is asked for it at the end.
    """
    check_program(program)
    files = {
        PROGRAM: _write(directory / PROGRAM, [program_json.encode(program)]),
        WEIGHTS: _write(directory / WEIGHTS, _weight_chunks(weights, program.weight_bytes)),
        CODE: _write(directory / CODE, [code() if callable(code) else code]),
    }
    manifest = {"format": _FORMAT, "schema": SCHEMA_VERSION, "files": files}
    _write(directory / MANIFEST, [json.dumps(manifest, indent=1).encode()])


def read(directory: Path, *, check_weights: bool = False) -> Package:
    """Read a compiled model. The program and the code are verified, the weights only where `check_weights`.

    ArtifactError where a file is missing or damaged, or of another schema.
    """
    files = _read_manifest(directory)
    program_bytes = _read_verified(directory / PROGRAM, files)
    code = _read_verified(directory / CODE, files)
    try:
        program = program_json.decode(program_bytes)
    except (ValueError, TypeError, KeyError, IndexError) as error:
        raise ArtifactError(f"{directory / PROGRAM}: not a program: {error}") from error
    if check_weights:
        _read_verified(directory / WEIGHTS, files)
    return Package(program, code, _map_weights(directory / WEIGHTS, program.weight_bytes, files))


def digest(directory: Path) -> str:
    """The SHA-256 of the manifest, which fixes every byte of the model. ArtifactError where it has none."""
    return hashlib.sha256(_read_file(directory / MANIFEST)).hexdigest()


def _write(path: Path, chunks: Iterable[bytes | memoryview]) -> dict[str, int | str]:
    """Write a file; its entry in the manifest. A chunk is written and digested while the next is made."""
    from concurrent.futures import Future, ThreadPoolExecutor  # a session that only reads does not need it

    size = 0
    sha = hashlib.sha256()
    pending: list[Future[Any]] = []
    with path.open("wb") as file, ThreadPoolExecutor(2) as threads:
        for chunk in chunks:
            for done in pending:
                done.result()
            pending = [threads.submit(file.write, chunk), threads.submit(sha.update, chunk)]
            size += len(chunk)
        for done in pending:
            done.result()
    return {"bytes": size, "sha256": sha.hexdigest()}


def _weight_chunks(weights: Iterable[tuple[int, np.ndarray[Any, Any]]], size: int) -> Iterator[bytes | memoryview]:
    """The safetensors file: length of the header, header, data with zeros where no array lies."""
    entry = {"dtype": "U8", "shape": [size], "data_offsets": [0, size]}
    header = json.dumps({"weights": entry}, separators=(",", ":")).encode()
    header += b" " * (-(len(header) + 8) % _WEIGHT_ALIGNMENT)
    yield len(header).to_bytes(8, "little") + header
    end = 0
    for offset, array in weights:
        if offset < end or offset + array.nbytes > size:
            raise ValueError(f"a weight of {array.nbytes} bytes at offset {offset} overlaps another or the end")
        yield bytes(offset - end)
        if array.nbytes:
            yield np.ascontiguousarray(array).reshape(-1).view(np.uint8).data
        end = offset + array.nbytes
    yield bytes(size - end)


def _read_manifest(directory: Path) -> dict[str, dict[str, Any]]:
    path = directory / MANIFEST
    text = _read_file(path)
    try:
        manifest = json.loads(text)
        known = manifest["format"] == _FORMAT
        schema = manifest["schema"]
        files = {name: {"bytes": int(e["bytes"]), "sha256": str(e["sha256"])} for name, e in manifest["files"].items()}
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise ArtifactError(f"{path}: not the manifest of a compiled model: {error!r}") from error
    if not known or schema != SCHEMA_VERSION:
        raise ArtifactError(f"{path}: schema {schema}, this runtime reads {SCHEMA_VERSION}: compile the model again")
    missing = [name for name in (PROGRAM, CODE, WEIGHTS) if name not in files]
    if missing:
        raise ArtifactError(f"{path}: does not list {', '.join(missing)}")
    return files


def _read_file(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise ArtifactError(f"{path}: cannot be read: {error.strerror}") from error


def _read_verified(path: Path, files: dict[str, dict[str, Any]]) -> bytes:
    content = _read_file(path)
    if hashlib.sha256(content).hexdigest() != files[path.name]["sha256"]:
        raise ArtifactError(f"{path}: damaged, its digest is not the manifest's")
    return content


def _map_weights(path: Path, size: int, files: dict[str, dict[str, Any]]) -> Bytes:
    try:
        with path.open("rb") as file:
            mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    except (OSError, ValueError) as error:
        raise ArtifactError(f"{path}: cannot be mapped: {error}") from error
    start = 8 + int.from_bytes(mapped[:8], "little")
    if len(mapped) != files[WEIGHTS]["bytes"] or start + size != len(mapped) or start % _WEIGHT_ALIGNMENT:
        raise ArtifactError(f"{path}: damaged, it is not of the size that the manifest and the program say")
    return np.frombuffer(mapped, np.uint8, size, start)
