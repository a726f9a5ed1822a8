"""Takes the large tensors out of a serialized ModelProto, so that protobuf never copies them.

Protobuf copies each byte field twice on its way to Python. `strip_payloads` walks the wire format first and
replaces each large `raw_data`, `float_data` or `double_data` of a TensorProto by a `segment` field (unused by
ONNX otherwise) that says where in the input the bytes are. What is left is small and is parsed as usual.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from onnxsmith_compiler.errors import MalformedModel

LARGE = 4096
"""Payloads below this many bytes stay in the message."""

_MAX_DEPTH = 100  # protobuf's own bound on nested messages
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5

# Where tensors can be: message -> field number -> message, after onnx.proto.
_CHILDREN: dict[str, dict[int, str]] = {
    "Model": {7: "Graph", 25: "Function"},
    "Graph": {1: "Node", 5: "Tensor", 15: "SparseTensor"},
    "Function": {7: "Node", 11: "Attribute"},
    "Node": {5: "Attribute"},
    "Attribute": {5: "Tensor", 6: "Graph", 10: "Tensor", 11: "Graph", 22: "SparseTensor", 23: "SparseTensor"},
    "SparseTensor": {1: "Tensor", 2: "Tensor"},
    "Tensor": {},
}
# AttributeProto's floats, ints and strings have a tag for each, and trees have many: walking over them costs
# more than copying what follows.
_ATTRIBUTE_LISTS = frozenset((7, 8, 9))
_SEGMENT, _SEGMENT_BEGIN, _SEGMENT_END = 3, 1, 2

FLOAT_DATA, RAW_DATA, DOUBLE_DATA = 4, 9, 10
_PAYLOAD_FIELDS = frozenset((FLOAT_DATA, RAW_DATA, DOUBLE_DATA))


@dataclass(frozen=True)
class Payload:
    """Bytes `[begin, end)` of the input, which were TensorProto's field number `field`."""

    field: int
    begin: int
    end: int


@dataclass(frozen=True, eq=False)
class Stripped:
    """A message without its large payloads, and the payloads by their segment."""

    message: bytes
    data: memoryview
    payloads: dict[tuple[int, int], Payload]

    def array(self, payload: Payload, dtype: np.dtype) -> np.ndarray:
        """The payload as a read-only, possibly unaligned view. Its size must be a multiple of the dtype's."""
        count = (payload.end - payload.begin) // dtype.itemsize
        return np.frombuffer(self.data, dtype, count, payload.begin)


def strip_payloads(data: memoryview) -> Stripped:
    """Separates the large payloads of the serialized ModelProto `data`. Raises MalformedModel."""
    scanner = _Scanner(data)
    pieces = scanner.message(0, len(data), "Model", 0)
    return Stripped(b"".join(pieces), data, scanner.payloads)


class _Scanner:
    def __init__(self, data: memoryview) -> None:
        self.data = data
        self.payloads: dict[tuple[int, int], Payload] = {}

    def message(self, begin: int, end: int, kind: str, depth: int) -> list[bytes | memoryview]:
        """The message at `[begin, end)` in pieces, without the payloads in it."""
        if depth > _MAX_DEPTH:
            raise MalformedModel(f"messages are nested more than {_MAX_DEPTH} levels deep")
        children = _CHILDREN[kind]
        pieces: list[bytes | memoryview] = []
        kept, at = begin, begin
        while at < end:
            tag, after_tag = self._varint(at, end)
            field, wire_type = tag >> 3, tag & 7
            if kind == "Attribute" and field in _ATTRIBUTE_LISTS:
                break
            if wire_type != _BYTES:
                at = self._skip(wire_type, after_tag, end)
                continue
            length, start = self._varint(after_tag, end)
            stop = start + length
            if stop > end:
                raise MalformedModel(f"truncated: a field at byte {at} has {length} bytes, {end - start} are there")
            if length >= LARGE:
                replacement = self._large_field(kind, children.get(field), field, tag, start, stop, depth)
                if replacement is not None:
                    pieces += (self.data[kept:at], *replacement)
                    kept = stop
            at = stop
        pieces.append(self.data[kept:end])
        return pieces

    def _large_field(
        self, kind: str, child: str | None, field: int, tag: int, start: int, stop: int, depth: int
    ) -> list[bytes | memoryview] | None:
        """What replaces a large field; None where it stays as it is."""
        if child is not None:
            inner = self.message(start, stop, child, depth + 1)
            return [_encode(tag), _encode(sum(map(len, inner))), *inner]
        if kind == "Tensor" and field in _PAYLOAD_FIELDS:
            self.payloads[start, stop] = Payload(field, start, stop)
            segment = _field(_SEGMENT_BEGIN, start) + _field(_SEGMENT_END, stop)
            return [_encode(_SEGMENT << 3 | _BYTES) + _encode(len(segment)) + segment]
        return None

    def _varint(self, at: int, end: int) -> tuple[int, int]:
        """The varint at `at` and the position after it."""
        value = shift = 0
        data = self.data
        while at < end and shift < 70:
            byte = data[at]
            at += 1
            value |= (byte & 0x7F) << shift
            if byte < 0x80:
                return value, at
            shift += 7
        raise MalformedModel(f"not a protobuf message: no integer ends at byte {at}")

    def _skip(self, wire_type: int, at: int, end: int) -> int:
        if wire_type == _VARINT:
            return self._varint(at, end)[1]
        if wire_type not in (_FIXED64, _FIXED32):
            raise MalformedModel(f"not an ONNX message: wire type {wire_type} at byte {at}")
        at += 8 if wire_type == _FIXED64 else 4
        if at > end:
            raise MalformedModel(f"truncated: {at - end} bytes are missing at byte {end}")
        return at


def _encode(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def _field(number: int, value: int) -> bytes:
    return _encode(number << 3 | _VARINT) + _encode(value)
