"""Programs as JSON: its parts are the lists of their fields in order, so that a step takes one line."""

from __future__ import annotations

import json
from typing import Any

from onnxsmith.program import (
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


def encode(program: Program) -> bytes:
    """The program as UTF-8 JSON."""
    return json.dumps(program._asdict(), separators=(",", ":"), ensure_ascii=False).encode()


def decode(text: bytes) -> Program:
    """The program that `encode` made `text` from; ValueError, TypeError, KeyError, IndexError for others."""
    fields: dict[str, Any] = json.loads(text)
    return Program(
        inputs=tuple(map(_tensor, fields["inputs"])),
        outputs=tuple(map(_tensor, fields["outputs"])),
        symbols=tuple(fields["symbols"]),
        input_symbols=tuple(None if row is None else (row[0], row[1]) for row in fields["input_symbols"]),
        slots=tuple(fields["slots"]),
        segments=tuple(map(_segment, fields["segments"])),
        buffers=tuple(Buffer(*row) for row in fields["buffers"]),
        kernels=tuple(fields["kernels"]),
        weight_bytes=fields["weight_bytes"],
        overridable=fields["overridable"],
        in_place=tuple((output, source) for output, source in fields["in_place"]),
        metadata=fields["metadata"],
        custom_metadata=fields["custom_metadata"],
        schema=fields["schema"],
    )


def _tensor(row: list[Any]) -> Tensor:
    name, dtype, shape, dims = row
    return Tensor(name, dtype, None if shape is None else tuple(shape), tuple(dims))


def _segment(row: list[Any]) -> Segment:
    bindings, instructions, steps, checks = row
    return Segment(
        tuple(Binding(slot, _argument(source), element, dtype) for slot, source, element, dtype in bindings),
        tuple(Instruction(Opcode(op), dst, a, b) for op, dst, a, b in instructions),
        tuple(map(_step, steps)),
        tuple(Check(left, right, Relation(relation), origin) for left, right, relation, origin in checks),
    )


_PLACES = tuple(Place)


def _argument(row: list[Any]) -> Argument:
    place, index, offset = row
    return Argument(_PLACES[place], index, offset)


def _step(row: list[Any]) -> Step:
    kernel, arguments, tiles, cost, scratch, flops, traffic, label, nodes = row
    return Step(kernel, tuple(map(_argument, arguments)), tiles, cost, scratch, flops, traffic, label, tuple(nodes))
