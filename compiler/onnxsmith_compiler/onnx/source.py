"""From what a user passes to a parsed ModelProto, the large tensors left where they are."""

from __future__ import annotations

import mmap
import os
import stat
from dataclasses import dataclass
from typing import TypeAlias

import onnx
from google.protobuf.message import DecodeError
from onnx.serialization import registry

from onnxsmith_compiler.errors import CompileError, EmptyModel, MalformedModel, ModelFileMissing, quoted
from onnxsmith_compiler.onnx.wire import LARGE, Stripped, strip_payloads

ModelSource: TypeAlias = "str | bytes | os.PathLike[str] | onnx.ModelProto"

_NO_PAYLOADS = Stripped(b"", memoryview(b""), {})
_TEXT_FORMATS = {
    ".textproto": "textproto",
    ".txtpb": "textproto",
    ".prototxt": "textproto",
    ".pbtxt": "textproto",
    ".json": "json",
    ".onnxjson": "json",
    ".onnxtxt": "onnxtxt",
    ".onnxtext": "onnxtxt",
}


@dataclass(frozen=True, eq=False)
class ParsedSource:
    """`proto` without its large tensors, those in `payloads`; `folder` is where external data may be."""

    proto: onnx.ModelProto
    payloads: Stripped
    folder: str | None


def read_source(source: ModelSource, base_dir: str | os.PathLike[str] | None) -> ParsedSource:
    """Reads and parses a model.

    Raises TypeError for any other type, ModelFileMissing, MalformedModel, and EmptyModel.
    """
    folder = None if base_dir is None else os.fspath(base_dir)
    if isinstance(source, onnx.ModelProto):
        return ParsedSource(source, _NO_PAYLOADS, folder)
    if isinstance(source, bytes):
        return _parse(memoryview(source), folder)
    if not isinstance(source, str | os.PathLike):
        raise TypeError(f"Unable to load from type '{type(source)}'")
    path = os.fspath(source)
    try:
        return _read_file(path, folder or os.path.dirname(path) or ".")
    except CompileError as error:
        raise type(error)(f"{quoted(path)}: {error.message}") from None


def _read_file(path: str, folder: str) -> ParsedSource:
    data = _file_contents(path)
    text_format = _TEXT_FORMATS.get(os.path.splitext(path)[1].lower())
    if text_format is None:
        return _parse(data, folder)
    try:
        proto = registry.get(text_format).deserialize_proto(bytes(data), onnx.ModelProto())
    except Exception as error:  # each of these parsers has error types of its own
        raise MalformedModel(f"not a model in the {text_format} format: {error}") from None
    return ParsedSource(proto, _NO_PAYLOADS, folder)


def _file_contents(path: str) -> memoryview:
    """The file's bytes, mapped where there are many."""
    try:
        # O_NONBLOCK: opening a named pipe must not wait for a writer.
        flags = os.O_RDONLY | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_NONBLOCK", 0)
        descriptor = os.open(path, flags | getattr(os, "O_BINARY", 0))
    except (FileNotFoundError, NotADirectoryError):
        raise ModelFileMissing("no such file") from None
    except (OSError, ValueError) as error:
        raise MalformedModel(f"cannot be read: {error}") from None
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise MalformedModel("not a regular file")
        if status.st_size >= LARGE:
            return memoryview(mmap.mmap(descriptor, 0, access=mmap.ACCESS_READ))
        return memoryview(os.read(descriptor, LARGE))
    finally:
        os.close(descriptor)


def _parse(data: memoryview, folder: str | None) -> ParsedSource:
    if not data:
        raise EmptyModel("an empty model: no graph was found in the protobuf")
    stripped = strip_payloads(data) if len(data) >= LARGE else Stripped(bytes(data), data, {})
    proto = onnx.ModelProto()
    try:
        proto.ParseFromString(stripped.message)
    except DecodeError as error:
        raise MalformedModel(f"not an ONNX model, or a truncated one: {error}") from None
    return ParsedSource(proto, stripped, folder)
