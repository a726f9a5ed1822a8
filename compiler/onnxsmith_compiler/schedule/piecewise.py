"""Maps of tensors that are written piece by piece (concatenations): computed in each piece, so written once."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import replace

from onnxsmith_compiler.ir import loop
from onnxsmith_compiler.ir.graph import Value
from onnxsmith_compiler.schedule.groups import Group, LoopGroup, Stage

Resolve = Callable[[Value], Value]


def map_pieces(groups: Sequence[Group], kept: Collection[Value], resolve: Resolve) -> list[Group]:
    """`groups` with each map, the only reader of a tensor in pieces, in place of those pieces.

    `kept` are the values that must be stored, `resolve` gives the value whose memory a value is.
    """
    pieces: dict[Value, list[LoopGroup]] = {}
    readers: dict[Value, list[Group]] = {}
    for group in groups:
        for value in group.reads():
            readers.setdefault(resolve(value), []).append(group)
        if isinstance(group, LoopGroup) and group.stages[0].computation.store is not None:
            pieces.setdefault(group.outputs[0], []).append(group)
    mapped: dict[Group, list[Group]] = {}
    for value, parts in pieces.items():
        uses = readers.get(value, [])
        if value in kept or len(uses) != 1 or uses[0] in mapped or any(part in mapped for part in parts):
            continue
        reader = uses[0]
        if isinstance(reader, LoopGroup) and _maps_in_place(reader, value, resolve):
            mapped[reader] = [_in_piece(part.stages[0], reader.stages[0], value) for part in parts]
            mapped.update({part: [] for part in parts})
    return [new for group in groups for new in mapped.get(group, [group])]


def _maps_in_place(reader: LoopGroup, value: Value, resolve: Resolve) -> bool:
    """Whether the reader's element i takes element i of `value`, and no other one."""
    stage = reader.stages[0]
    computation = stage.computation
    if len(reader.stages) != 1 or computation.reduce or computation.store is not None:
        return False
    here = loop.index_of(computation.axes)
    found = [load for load in loop.loads(computation.body) if resolve(load.value) is value]
    return stage.output.shape == value.shape and all(load.value is value and _is(load.index, here) for load in found)


def _is(index: loop.Index, here: loop.Index) -> bool:
    return all(a == b for a, b in zip(index, here, strict=True))


def _in_piece(piece: Stage, reader: Stage, value: Value) -> LoopGroup:
    store = piece.computation.store
    assert store is not None
    axes = reader.computation.axes

    def visit(expr: loop.Expr) -> loop.Expr | None:
        return piece.computation.body if isinstance(expr, loop.Load) and expr.value is value else None

    moved = loop.substitute(reader.computation.body, dict(zip(axes, store, strict=True)))
    body = loop.rewrite(moved, visit, lambda dim: dim)
    computation = replace(piece.computation, body=body)
    return LoopGroup((Stage(reader.output, computation, tuple(dict.fromkeys((*piece.origins, *reader.origins)))),))
