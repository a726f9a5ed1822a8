"""Register tiles: the inner loop of matmul and convolution as one macro intrinsic.

A tile multiplies up to `rows` rows of A by one packed panel of B, `columns` wide, with every accumulator
in a register. The rows are given by address, one for each tap, so that the same code serves
matmul (one tap, a row of A) and convolution (one tap for each window position, a pixel or a row of zeros).

Every element is one chain of fused multiply-adds from zero in the order of (tap, k), whatever the number
of rows: results do not depend on how rows are grouped into tiles. Panels of bfloat16 and float16 are widened
in registers, which changes no bit; where a panel is swept over many rows, the template widens it before. In
tiles of pairs both operands are bfloat16, and a step of the chain adds two products (`bfloat16_pairs`).
"""

from __future__ import annotations

import ctypes
import functools
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import numpy as np
from llvmlite import ir

from onnxsmith_compiler.codegen import bfloat16_pairs
from onnxsmith_compiler.codegen.kernel_function import Intrinsic
from onnxsmith_compiler.codegen.narrow_float import widen
from onnxsmith_compiler.codegen.prefetch import L1, L2, emit_prefetch
from onnxsmith_compiler.codegen.routines import routine
from onnxsmith_compiler.codegen.storage import array_pointer, storage_type
from onnxsmith_compiler.codegen.target import Target
from onnxsmith_compiler.codegen.tile_shapes import NARROW_TILE_SHAPES, TILE_SHAPES, TileShape
from onnxsmith_compiler.ir.dtype import BY_NAME

_I8 = ir.IntType(8)
_I32 = ir.IntType(32)
_I64 = ir.IntType(64)
FLOATS: dict[str, ir.Type] = {"float32": ir.FloatType(), "float64": ir.DoubleType()}
_ALIGNMENT = 64
# How far ahead of its use a panel is brought into the first-level cache.
_NEAR_BYTES = 1024


def tile_intrinsic(shape: TileShape) -> Intrinsic:
    """The intrinsic `shape.name(rows, count, taps, depth, panel, out, ahead, step, resume)`.

    `panel` is taps * depth rows of shape.panel_columns elements of type shape.panel_element.
    out[i, j] = sum over t, k of A(i, t)[k] * panel[t * depth + k, j] for i < count and j < columns, where
    A(i, t) are the `depth` elements of type shape.left at address rows[t * shape.table_stride + i]. `out`
    has the shape's dtype, `rows` is int64*; `out` is dense, shape.rows * columns elements, aligned to 64 bytes;
    `count` is at least 1; where taps * depth is 0, `out` becomes zero. Rows from `count` to the next of
    shape.heights are computed too: their addresses must be readable, and their part of `out` is undefined.
    Where `resume` is not 0, the sums go on from what `out` holds, as if the terms of both were one sum's.
    Meanwhile it prefetches memory that is needed later: from address `ahead` on, `step` bytes for each k.
    """

    panel, out = f"{shape.panel_element.name}*", f"{shape.dtype}*"
    arguments = ("int64*", "int64", "int64", "int64", panel, out, "int64", "int64", "int64")
    return routine(shape.name, arguments, functools.partial(_build_tile, shape), _tile_reference(shape))


def _tile_reference(shape: TileShape) -> Any:
    def reference(
        rows: Any, count: int, taps: int, depth: int, panel: Any, out: Any, ahead: int, step: int, resume: int
    ) -> None:
        table, weights, result = array_pointer(rows), array_pointer(panel), array_pointer(out)
        width = shape.columns
        b = panel_rows(shape, weights.array[weights.start :], taps * depth)[:, :width]
        c = result.array[result.start :][: shape.rows * width].reshape(shape.rows, width)
        for i in range(count):
            addresses = [int(table.array[table.start + tap * shape.table_stride + i]) for tap in range(taps)]
            a = np.concatenate([elements_at(address, depth, shape.left.name) for address in addresses])
            c[i] = chains(shape, a, b, c[i] if resume else None)

    return reference


def panel_rows(shape: TileShape, panel: np.ndarray[Any, Any], depth: int) -> np.ndarray[Any, Any]:
    """The first `depth` rows of a flat panel, [depth, shape.panel_columns]."""
    rows = panel[: depth * shape.panel_columns]
    if not shape.pairs:
        return rows.reshape(depth, shape.panel_columns)
    pairs = rows.reshape(depth // 2, shape.panel_columns, 2)
    return pairs.swapaxes(1, 2).reshape(depth, shape.panel_columns)


def chains(
    shape: TileShape, a: np.ndarray[Any, Any], b: np.ndarray[Any, Any], start: np.ndarray[Any, Any] | None = None
) -> np.ndarray[Any, Any]:
    """a[K] times b[K, N], added to `start` (None: zeros) in the order in which the tile adds up each of N elements."""
    total = np.zeros(b.shape[1], shape.element.storage) if start is None else start.copy()
    if shape.pairs:
        return bfloat16_pairs.sum_of_products(a, b, total)
    for element, row in zip(a, b.astype(a.dtype), strict=True):
        total += element * row
    return total


def elements_at(address: int, count: int, dtype: str) -> np.ndarray[Any, Any]:
    """The `count` elements of `dtype` (the name of a DType) from `address` on."""
    storage = BY_NAME[dtype].storage
    return np.ctypeslib.as_array((ctypes.c_uint8 * (count * storage.itemsize)).from_address(int(address))).view(storage)


def _build_tile(shape: TileShape, function: ir.Function, target: Target) -> None:
    """Write the function that picks the height, and those for each height."""
    variants = [_variant(function, shape, height, target) for height in shape.heights]
    builder = ir.IRBuilder(function.append_basic_block("entry"))
    count = function.args[1]
    largest = function.append_basic_block(f"rows.{shape.rows}")
    choice = builder.switch(count, largest)
    below = 0
    for height, variant in zip(shape.heights, variants, strict=True):
        block = largest if height == shape.rows else function.append_basic_block(f"rows.{height}")
        if height < shape.rows:
            for rows in range(below + 1, height + 1):
                choice.add_case(_I64(rows), block)
        below = height
        builder.position_at_end(block)
        builder.call(variant, function.args)
        builder.ret_void()


def _variant(whole: ir.Function, shape: TileShape, height: int, target: Target) -> ir.Function:
    function = ir.Function(whole.module, whole.function_type, f"{whole.name}.{height}")
    function.linkage = "internal"
    function.attributes.add("noinline")
    for argument in (function.args[4], function.args[5]):
        argument.add_attribute("noalias")
    _TileEmitter(function, shape, height, target).emit()
    return function if shape.passes == 1 else _all_passes(function, shape)


def _all_passes(one_pass: ir.Function, shape: TileShape) -> ir.Function:
    """Calls `one_pass` for each pass; each prefetches a share of what is needed later."""
    function = ir.Function(one_pass.module, one_pass.function_type, f"{one_pass.name}.passes")
    function.linkage = "internal"
    builder = ir.IRBuilder(function.append_basic_block("entry"))
    *given, panel, out, ahead, step, resume = function.args
    _, _, taps, depth = given
    share = builder.udiv(step, _I64(shape.passes))
    distance = builder.mul(builder.mul(taps, depth), share)
    for number in range(shape.passes):
        column = _I64(number * shape.vectors * shape.lanes)
        place = builder.add(ahead, builder.mul(distance, _I64(number)))
        builder.call(one_pass, [*given, builder.gep(panel, [column]), builder.gep(out, [column]), place, share, resume])
    builder.ret_void()
    return function


Accumulators = list[list[ir.Value]]


class _TileEmitter:
    """Writes the body of one height: a loop over taps around a loop over k."""

    def __init__(self, function: ir.Function, shape: TileShape, height: int, target: Target) -> None:
        self.function, self.shape, self.height, self.target = function, shape, height, target
        self.vector = ir.VectorType(FLOATS[shape.dtype], shape.lanes)
        self.builder = ir.IRBuilder(function.append_basic_block("entry"))

    def emit(self) -> None:
        builder = self.builder
        rows, _, taps, depth, panel, out, ahead, step, resume = self.function.args
        if self.shape.pairs:
            depth, step = builder.lshr(depth, _I64(1)), builder.shl(step, _I64(1))
        entry = builder.block
        start = self.function.append_basic_block("start")
        resumed = self.function.append_basic_block("resumed")
        each_tap = self.function.append_basic_block("tap")
        each_k = self.function.append_basic_block("k")
        tap_done = self.function.append_basic_block("tap.done")
        done = self.function.append_basic_block("done")
        zero = ir.Constant(self.vector, [0.0] * self.shape.lanes)
        ahead = builder.inttoptr(ahead, _I8.as_pointer())
        builder.cbranch(builder.icmp_signed(">", builder.mul(taps, depth), _I64(0)), start, done)

        builder.position_at_end(start)
        builder.cbranch(builder.icmp_signed("!=", resume, _I64(0)), resumed, each_tap)
        builder.position_at_end(resumed)
        earlier = [
            [builder.load(self._sum_place(out, i, j), align=self._alignment) for j in self._vectors]
            for i in range(self.height)
        ]
        builder.branch(each_tap)

        builder.position_at_end(each_tap)
        tap = self._phi(_I64, _I64(0), start)
        tap_panel = self._phi(panel.type, panel, start)
        tap_ahead = self._phi(ahead.type, ahead, start)
        for phi, value in ((tap, _I64(0)), (tap_panel, panel), (tap_ahead, ahead)):
            phi.add_incoming(value, resumed)
        tap_sums = [[self._phi(self.vector, zero, start) for _ in self._vectors] for _ in range(self.height)]
        self._carry(tap_sums, earlier, resumed)
        addresses = self._row_addresses(rows, tap)
        builder.branch(each_k)

        builder.position_at_end(each_k)
        k = self._phi(_I64, _I64(0), each_tap)
        at_panel = self._phi(panel.type, tap_panel, each_tap)
        at_ahead = self._phi(ahead.type, tap_ahead, each_tap)
        sums = [[self._phi(self.vector, start, each_tap) for start in row] for row in tap_sums]
        emit_prefetch(builder, at_ahead, L2)
        near = builder.bitcast(at_panel, _I8.as_pointer())
        for line in range(0, self.shape.panel_row_bytes * self.shape.terms // self.shape.passes, _ALIGNMENT):
            emit_prefetch(builder, builder.gep(near, [_I64(_NEAR_BYTES + line)]), L1)
        new = self._multiply(addresses, k, at_panel, sums)
        next_panel = builder.gep(at_panel, [_I64(self.shape.panel_columns * self.shape.terms)])
        next_ahead = builder.gep(at_ahead, [step])
        next_k = builder.add(k, _I64(1))
        for phi, value in ((k, next_k), (at_panel, next_panel), (at_ahead, next_ahead)):
            phi.add_incoming(value, each_k)
        self._carry(sums, new, each_k)
        builder.cbranch(builder.icmp_signed("<", next_k, depth), each_k, tap_done)

        builder.position_at_end(tap_done)
        next_tap = builder.add(tap, _I64(1))
        for phi, value in ((tap, next_tap), (tap_panel, next_panel), (tap_ahead, next_ahead)):
            phi.add_incoming(value, tap_done)
        self._carry(tap_sums, new, tap_done)
        builder.cbranch(builder.icmp_signed("<", next_tap, taps), each_tap, done)

        builder.position_at_end(done)
        totals = [[self._phi(self.vector, zero, entry) for _ in row] for row in new]
        self._carry(totals, new, tap_done)
        for i, row in enumerate(totals):
            for j, value in enumerate(row):
                builder.store(value, self._sum_place(out, i, j), align=self._alignment)
        builder.ret_void()

    def _sum_place(self, out: ir.Value, i: int, j: int) -> ir.Value:
        place = self.builder.gep(out, [_I64(i * self.shape.columns + j * self.shape.lanes)])
        return self.builder.bitcast(place, self.vector.as_pointer())

    @property
    def _alignment(self) -> int:
        return self.shape.lanes * self.shape.element.itemsize

    @property
    def _vectors(self) -> range:
        return range(self.shape.vectors)

    def _phi(self, kind: ir.Type, start: ir.Value, origin: ir.Block) -> ir.PhiInstr:
        phi = self.builder.phi(kind)
        phi.add_incoming(start, origin)
        return phi

    def _carry(self, phis: Accumulators, values: Accumulators, origin: ir.Block) -> None:
        for phi_row, value_row in zip(phis, values, strict=True):
            for phi, value in zip(phi_row, value_row, strict=True):
                phi.add_incoming(value, origin)

    def _row_addresses(self, rows: ir.Value, tap: ir.Value) -> list[ir.Value]:
        builder = self.builder
        first = builder.mul(tap, _I64(self.shape.table_stride))
        words = [builder.load(builder.gep(rows, [builder.add(first, _I64(i))])) for i in range(self.height)]
        return [builder.inttoptr(word, left_type(self.shape).as_pointer()) for word in words]

    def _multiply(self, addresses: list[ir.Value], k: ir.Value, panel: ir.Value, sums: Accumulators) -> Accumulators:
        builder = self.builder
        weights = load_weights(builder, self.shape, self.target, panel, self.shape.vectors)
        new = []
        for address, row in zip(addresses, sums, strict=True):
            element = broadcast_left(builder, self.shape, builder.gep(address, [k]))
            new.append(
                [
                    accumulate(builder, self.shape, self.target, element, weight, total)
                    for weight, total in zip(weights, row, strict=True)
                ]
            )
        return new


def left_type(shape: TileShape) -> ir.Type:
    """The LLVM type of what a step takes of a row of A: an element, or a pair as one word."""
    return _I32 if shape.pairs else FLOATS[shape.dtype]


def broadcast_left(builder: ir.IRBuilder, shape: TileShape, place: ir.Value) -> ir.Value:
    """A vector of what a step takes of a row of A, from `place`."""
    vector = ir.VectorType(left_type(shape), shape.lanes)
    nothing = ir.Constant(vector, ir.Undefined)
    first = builder.insert_element(nothing, builder.load(place, align=shape.left.itemsize), _I32(0))
    return builder.shuffle_vector(first, nothing, ir.Constant(ir.VectorType(_I32, shape.lanes), [0] * shape.lanes))


def accumulate(
    builder: ir.IRBuilder, shape: TileShape, target: Target, a: ir.Value, b: ir.Value, total: ir.Value
) -> ir.Value:
    """One step of a vector of chains: `a` from `broadcast_left`, `b` from `load_weights`."""
    if shape.pairs:
        return bfloat16_pairs.add_products(builder, a, b, total)
    return multiply_add(builder, target, a, b, total)


def load_weights(
    builder: ir.IRBuilder, shape: TileShape, target: Target, place: ir.Value, vectors: int
) -> list[ir.Value]:
    """`vectors` vectors of a panel's row from `place` on, as the shape's dtype, or of its pairs of rows, as words."""
    stored = ir.VectorType(storage_type(shape.panel_element), shape.lanes * shape.terms)
    weights = []
    for j in range(vectors):
        at = builder.bitcast(builder.gep(place, [_I64(j * shape.lanes * shape.terms)]), stored.as_pointer())
        weights.append(builder.load(at, align=shape.panel_element.itemsize))
    if shape.stored is None or shape.pairs:
        return weights
    return [widen(builder, shape.stored, weight, native_half=target.native_half) for weight in weights]


def multiply_add(builder: ir.IRBuilder, target: Target, a: ir.Value, b: ir.Value, c: ir.Value) -> ir.Value:
    """a * b + c on vectors: one rounding where the target has the instruction, two where it lacks it."""
    if not target.fma:
        return builder.fadd(builder.fmul(a, b), c)
    kind = a.type
    name = f"llvm.fma.v{kind.count}f{32 if kind.element == FLOATS['float32'] else 64}"
    declared = builder.module.globals.get(name)
    if declared is None:
        declared = ir.Function(builder.module, ir.FunctionType(kind, [kind] * 3), name)
    return builder.call(declared, [a, b, c])


TILES: Mapping[str, Intrinsic] = MappingProxyType(
    {shape.name: tile_intrinsic(shape) for shape in (*TILE_SHAPES, *NARROW_TILE_SHAPES)}
)
"""Every tile that printed kernels may call, by name."""
