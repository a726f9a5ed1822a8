"""Where the elements of an operand lie in memory: index maps taken through the views that lead to it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from onnxsmith_compiler.ir import dim as dims
from onnxsmith_compiler.ir import loop
from onnxsmith_compiler.ir.atom import LoopIndex, Quotient, Remainder
from onnxsmith_compiler.ir.dim import Dim
from onnxsmith_compiler.ir.graph import Node, Value
from onnxsmith_compiler.ir.polynomial import all_atoms
from onnxsmith_compiler.ops.attention import Strided
from onnxsmith_compiler.ops.view import Expand, Reshape, Slice, Transpose

Producers = Mapping[Value, Node]


def view_source(node: Node, index: loop.Index) -> tuple[Value, loop.Index] | None:
    """The tensor that a view reads and the place there of its element `index`; None where the node is no view."""
    if not isinstance(node.op, Expand | Reshape | Slice | Transpose):
        return None
    lowered = node.op.lower(node)
    if not isinstance(lowered.body, loop.Load):
        return None
    places = dict(zip(lowered.axes, index, strict=True))
    return lowered.body.value, tuple(loop.substitute_dim(position, places) for position in lowered.body.index)


def sources(value: Value, index: loop.Index, producers: Producers) -> Iterator[tuple[Value, loop.Index]]:
    """`value` and every tensor that it is a view of, with the place of its element `index` in each."""
    yield value, index
    while (node := producers.get(value)) is not None and (found := view_source(node, index)) is not None:
        value, index = found
        yield value, index


def strided_view(
    value: Value, index: loop.Index, axes: Sequence[LoopIndex], producers: Producers, contiguous: bool
) -> tuple[Value, Strided] | None:
    """The furthest tensor behind `value` in which its element `index` moves by a fixed stride along each of `axes`.

    None where there is none, `value` included. With `contiguous` the last axis must have stride 1.
    """
    best: tuple[Value, Strided] | None = None
    for source, place in sources(value, index, producers):
        strides = _strides(source, place, axes)
        if strides is not None and (not contiguous or strides.strides[-1] == 1 or axes[-1].extent == 1):
            best = source, strides
    return best


def _strides(value: Value, index: loop.Index, axes: Sequence[LoopIndex]) -> Strided | None:
    offset = loop.linear_offset(value.shape, index)
    strides: list[Dim] = []
    for axis in axes:
        stride = 0 if isinstance(offset, int) else dims.coefficient_of(offset, axis)
        if stride is None:
            return None
        strides.append(stride)
        offset = loop.substitute_dim(offset, {axis: 0})
    return Strided(offset, tuple(strides))


def divided_axis(index: loop.Index, axes: Sequence[LoopIndex]) -> tuple[LoopIndex, Dim] | None:
    """One of `axes` that a place divides, and by what, where the axis is a multiple of it: it could be two axes."""
    for position in index:
        for atom in all_atoms(position):
            if not isinstance(atom, Quotient | Remainder):
                continue
            for axis in axes:
                if atom.numerator == dims.from_atom(axis) and _divides(atom.denominator, axis.extent):
                    return axis, atom.denominator
    return None


def _divides(part: Dim, whole: Dim) -> bool:
    return part != 1 and dims.exact_quotient(whole, part) is not None
