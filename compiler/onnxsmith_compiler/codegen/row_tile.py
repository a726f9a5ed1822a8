"""One row times many packed panels, as a macro intrinsic: the product of a matrix and a single vector.

A register tile keeps too few sums going for one row, since each waits for the one before it. A row tile takes
several panels side by side; every element is still one chain of multiply-adds in the order of k, so it has
the very bits that a register tile gives it.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from llvmlite import ir

from onnxsmith_compiler.codegen.kernel_function import Intrinsic
from onnxsmith_compiler.codegen.prefetch import L1, emit_prefetch
from onnxsmith_compiler.codegen.routines import routine
from onnxsmith_compiler.codegen.storage import array_pointer
from onnxsmith_compiler.codegen.target import Target
from onnxsmith_compiler.codegen.tile_shapes import TILE_SHAPES, TileShape
from onnxsmith_compiler.codegen.tiles import (
    FLOATS,
    accumulate,
    broadcast_left,
    chains,
    elements_at,
    left_type,
    load_weights,
    panel_rows,
)

_I8 = ir.IntType(8)
_I64 = ir.IntType(64)
_ALIGNMENT = 64
ROW_TILE_PANELS = 4
"""The most panels side by side: with two vectors each, as many sums as the multiply-adds in flight."""
_MOST_SUMS = 12
_AHEAD_BYTES = 1024
"""How far ahead of its use a panel is brought into the first-level cache."""


def row_tile_name(shape: TileShape) -> str:
    """The name that printed kernels call: `row_2_f32x16`."""
    return f"row_{_vectors(shape)}_{shape.types}"


def _vectors(shape: TileShape) -> int:
    """The vectors of a panel, which a row tile takes all at once."""
    return shape.columns // shape.lanes


def row_tile_intrinsic(shape: TileShape) -> Intrinsic:
    """The intrinsic `row_tile_name(shape)(row, depth, panels, count, out, pitch)`.

    out[p * pitch + j] = sum over k < depth of row[k] * panels[(p * depth + k) * columns + j] for p < count and
    j < columns. `row` is the address of elements of type shape.left; `panels` points to its panel_element, and `out`
    to its dtype. `out` is aligned to whole vectors, and `pitch` is a multiple of one.
    """

    arguments = ("int64", "int64", f"{shape.panel_element.name}*", "int64", f"{shape.dtype}*", "int64")
    return routine(row_tile_name(shape), arguments, functools.partial(_build_row, shape), _reference(shape))


def _reference(shape: TileShape) -> Any:
    def reference(row: int, depth: int, panels: Any, count: int, out: Any, pitch: int) -> None:
        weights, result = array_pointer(panels), array_pointer(out)
        a = elements_at(int(row), depth, shape.left.name)
        for number in range(count):
            start = weights.start + number * depth * shape.columns
            place = result.start + number * pitch
            total = chains(shape, a, panel_rows(shape, weights.array[start:], depth))
            result.array[place : place + shape.columns] = total

    return reference


def _build_row(shape: TileShape, function: ir.Function, target: Target) -> None:
    """Write the function that takes the panels a few at a time."""
    for argument in (function.args[2], function.args[4]):
        argument.add_attribute("noalias")
    builder = ir.IRBuilder(function.append_basic_block("entry"))
    row, depth, panels, count, out, pitch = function.args
    row = builder.inttoptr(row, left_type(shape).as_pointer())
    done = builder.alloca(_I64)
    builder.store(_I64(0), done)
    for together in range(min(ROW_TILE_PANELS, _MOST_SUMS // _vectors(shape)), 0, -1):
        _emit_groups(builder, shape, target, together, done, (row, depth, panels, count, out, pitch))
    builder.ret_void()


def _emit_groups(
    builder: ir.IRBuilder, shape: TileShape, target: Target, together: int, done: ir.Value, arguments: Any
) -> None:
    """While at least `together` panels are left, the products of as many."""
    row, depth, panels, count, out, pitch = arguments
    head = builder.append_basic_block(f"panels.{together}")
    body = builder.append_basic_block(f"panels.{together}.body")
    after = builder.append_basic_block(f"panels.{together}.done")
    builder.branch(head)
    builder.position_at_end(head)
    first = builder.load(done)
    left = builder.sub(count, first)
    builder.cbranch(builder.icmp_signed(">=", left, _I64(together)), body, after)
    builder.position_at_end(body)
    size = builder.mul(depth, _I64(shape.columns))
    starts = [builder.gep(panels, [builder.mul(builder.add(first, _I64(p)), size)]) for p in range(together)]
    sums = _emit_products(builder, shape, target, row, depth, starts)
    for number, totals in enumerate(sums):
        place = builder.gep(out, [builder.mul(builder.add(first, _I64(number)), pitch)])
        for j, total in enumerate(totals):
            at = builder.bitcast(builder.gep(place, [_I64(j * shape.lanes)]), total.type.as_pointer())
            builder.store(total, at, align=shape.lanes * shape.element.itemsize)
    builder.store(builder.add(first, _I64(together)), done)
    builder.branch(head)
    builder.position_at_end(after)


def _emit_products(
    builder: ir.IRBuilder, shape: TileShape, target: Target, row: ir.Value, depth: ir.Value, starts: list[ir.Value]
) -> list[list[ir.Value]]:
    """The sums over k for the panels that begin at `starts`."""
    vector = ir.VectorType(FLOATS[shape.dtype], shape.lanes)
    zero = ir.Constant(vector, [0.0] * shape.lanes)
    steps = builder.lshr(depth, _I64(1)) if shape.pairs else depth
    before = builder.block
    head, body, after = (builder.append_basic_block(name) for name in ("k", "k.body", "k.done"))
    builder.branch(head)
    builder.position_at_end(head)
    k = builder.phi(_I64)
    k.add_incoming(_I64(0), before)
    sums = [[builder.phi(vector) for _ in range(_vectors(shape))] for _ in starts]
    for phi in (phi for phis in sums for phi in phis):
        phi.add_incoming(zero, before)
    builder.cbranch(builder.icmp_signed("<", k, steps), body, after)

    builder.position_at_end(body)
    element = broadcast_left(builder, shape, builder.gep(row, [k]))
    place = builder.mul(k, _I64(shape.columns * shape.terms))
    for start, phis in zip(starts, sums, strict=True):
        line = builder.gep(start, [place])
        near = builder.bitcast(line, _I8.as_pointer())
        for distance in range(0, shape.panel_row_bytes * shape.terms, _ALIGNMENT):
            emit_prefetch(builder, builder.gep(near, [_I64(_AHEAD_BYTES + distance)]), L1)
        for weight, phi in zip(load_weights(builder, shape, target, line, _vectors(shape)), phis, strict=True):
            phi.add_incoming(accumulate(builder, shape, target, element, weight, phi), body)
    k.add_incoming(builder.add(k, _I64(1)), body)
    builder.branch(head)
    builder.position_at_end(after)
    return sums


ROW_TILES: Mapping[str, Intrinsic] = MappingProxyType(
    {row_tile_name(shape): row_tile_intrinsic(shape) for shape in TILE_SHAPES}
)
"""Every row tile that printed kernels may call, by name."""
