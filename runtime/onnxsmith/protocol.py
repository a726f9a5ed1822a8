"""Messages between a session and the compile process, over two pipes.

A message is a JSON object and a block of bytes: two little-endian uint64 lengths, then the JSON in UTF-8,
then the bytes. Nothing is pickled. The two ends exchange:

| from    | "kind"            | other members                                             |
|---------|-------------------|-----------------------------------------------------------|
| session | "compile", "dump" | see `onnxsmith_compiler.worker`; a model in memory is the block |
| session | "prepare"         | none; it has no answer                                    |
| worker  | "progress"        | "stage", "done", "total" (0 where unknown)                |
| worker  | "done"            | the verb's answer                                         |
| worker  | "error"           | "code" (a class name of onnxsmith.errors), "message"      |
"""

from __future__ import annotations

import json
import struct
from typing import IO, Any, TypeAlias

Message: TypeAlias = dict[str, Any]

_LENGTHS = struct.Struct("<QQ")
_MAX_JSON = 1 << 28


def send(stream: IO[bytes], message: Message, data: bytes | memoryview = b"") -> None:
    """Write one message. BrokenPipeError where the other end is gone."""
    text = json.dumps(message).encode()
    _write(stream, _LENGTHS.pack(len(text), len(data)) + text)
    _write(stream, data)
    stream.flush()


def receive(stream: IO[bytes]) -> tuple[Message, bytes] | None:
    """Read one message; None where the stream ends between two. EOFError within one, ValueError for junk."""
    head = stream.read(_LENGTHS.size)
    if not head:
        return None
    head += _exactly(stream, _LENGTHS.size - len(head))
    text_length, data_length = _LENGTHS.unpack(head)
    if text_length > _MAX_JSON:
        raise ValueError(f"a message header of {text_length} bytes is no header")
    message = json.loads(_exactly(stream, text_length))
    if not isinstance(message, dict):
        raise ValueError("a message must be a JSON object")
    return message, _exactly(stream, data_length)


def _exactly(stream: IO[bytes], length: int) -> bytes:
    parts = []
    while length:
        part = stream.read(length)  # a raw stream gives what there is
        if not part:
            raise EOFError("the stream ended within a message")
        parts.append(part)
        length -= len(part)
    return parts[0] if len(parts) == 1 else b"".join(parts)


def _write(stream: IO[bytes], data: bytes | memoryview) -> None:
    rest = memoryview(data)
    while rest:
        rest = rest[stream.write(rest) :]  # a raw stream takes what it has room for
