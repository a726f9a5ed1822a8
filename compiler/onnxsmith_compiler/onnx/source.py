"""From what a user passes to a parsed ModelProto, the large tensors left where they are."""

from __future__ import annotations

import mmap
import os
import stat
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TypeAlias

import onnx
from google.protobuf import json_format, text_format
from google.protobuf.message import DecodeError

from onnxsmith_compiler.errors import EmptyModel, MalformedModel, ModelFileMissing
from onnxsmith_compiler.onnx.wire import LARGE, Stripped, strip_payloads

ModelSource: TypeAlias = "str | bytes | os.PathLike[str] | onnx.ModelProto"

_SHOWN_REASON = 200  # characters; some parsers quote the whole text
_NO_PAYLOADS = Stripped(b"", memoryview(b""), {})


def _parse_textproto(text: str) -> onnx.ModelProto:
    proto = onnx.ModelProto()
    text_format.Parse(text, proto)
    return proto


def _parse_json(text: str) -> onnx.ModelProto:
    proto = onnx.ModelProto()
    json_format.Parse(text, proto)
    return proto


# By suffix, as in the onnx package; without .onnxtxt, whose parser overflows the stack on deeply nested text.
_TEXT_PARSERS: Mapping[str, Callable[[str], onnx.ModelProto]] = {
    ".textproto": _parse_textproto,
    ".txtpb": _parse_textproto,
    ".prototxt": _parse_textproto,
    ".pbtxt": _parse_textproto,
    ".json": _parse_json,
    ".onnxjson": _parse_json,
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
    return _read_file(path, folder or os.path.dirname(path) or ".")


def _read_file(path: str, folder: str) -> ParsedSource:
    data = _file_contents(path)
    suffix = os.path.splitext(path)[1].lower()
    if suffix not in _TEXT_PARSERS:
        return _parse(data, folder)
    try:
        proto = _TEXT_PARSERS[suffix](bytes(data).decode())
    except Exception as error:  # each of these parsers has error types of its own
        reason = str(error)[:_SHOWN_REASON]
        raise MalformedModel(f"not a model in the text format of {suffix} files: {reason}") from None
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
