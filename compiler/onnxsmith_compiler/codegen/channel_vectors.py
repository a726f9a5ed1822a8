"""Vectors along the channels of a pixel, whose number is known only at run time: shared by the depthwise tiles."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from llvmlite import ir

from onnxsmith_compiler.codegen.tile_shapes import TileShape
from onnxsmith_compiler.codegen.tiles import FLOATS

_I32 = ir.IntType(32)
_I64 = ir.IntType(64)
_ALIGNMENT = 64


class ChannelVectors:
    """`count` vectors of channels in a function whose fourth argument is the number of channels, `width`.

    Where they are `partial`, the last one is not full, and of memory only its first lanes are read.
    """

    def __init__(self, function: ir.Function, shape: TileShape, count: int, partial: bool) -> None:
        self.shape, self.count = shape, count
        self.kind = ir.VectorType(FLOATS[shape.dtype], shape.lanes)
        self.zero = ir.Constant(self.kind, [0.0] * shape.lanes)
        self.builder = ir.IRBuilder(function.append_basic_block("entry"))
        self._mask = self._first_lanes(function.args[3]) if partial else None

    def load(self, pointer: ir.Value) -> list[ir.Value]:
        """The channels from `pointer` on."""
        return [self._load(pointer, j) for j in range(self.count)]

    def store(self, rows: Sequence[Sequence[ir.Value]], out: ir.Value, pitch: int) -> None:
        """Whole vectors, row by row, to `out`, whose rows are `pitch` elements apart."""
        for i, row in enumerate(rows):
            for j, value in enumerate(row):
                place = self.builder.gep(out, [_I64(i * pitch + j * self.shape.lanes)])
                self.builder.store(value, self.builder.bitcast(place, self.kind.as_pointer()), align=_ALIGNMENT)

    def _first_lanes(self, width: ir.Value) -> ir.Value:
        """Which lanes of the last vector there are."""
        builder, lanes = self.builder, self.shape.lanes
        kind = ir.VectorType(_I64, lanes)
        nothing = ir.Constant(kind, ir.Undefined)
        rest = builder.sub(width, _I64((self.count - 1) * lanes))
        spread = builder.shuffle_vector(
            builder.insert_element(nothing, rest, _I32(0)),
            nothing,
            ir.Constant(ir.VectorType(_I32, lanes), [0] * lanes),
        )
        return builder.icmp_signed("<", ir.Constant(kind, list(range(lanes))), spread)

    def _load(self, pointer: ir.Value, j: int) -> ir.Value:
        builder, lanes = self.builder, self.shape.lanes
        place = builder.gep(pointer, [_I64(j * lanes)])
        address = builder.bitcast(place, self.kind.as_pointer())
        if self._mask is None or j < self.count - 1:
            return builder.load(address, align=self.shape.element.itemsize)
        name = f"llvm.masked.load.v{lanes}f{self.shape.element.bits}.p0"
        declared = builder.module.globals.get(name)
        if declared is None:
            kind = ir.FunctionType(self.kind, [self.kind.as_pointer(), self._mask.type, self.kind])
            declared = ir.Function(builder.module, kind, name)
        return builder.call(declared, [address, self._mask, self.zero])


Emit = Callable[[ir.Function, ChannelVectors], None]


def depthwise_arguments(shape: TileShape) -> tuple[str, ...]:
    """The types of (addresses, taps, first, width, weights, weight_row, out)."""
    element = f"{shape.dtype}*"
    return ("int64*", "int64", "int64", "int64", element, "int64", element)


def width_switch(function: ir.Function, shape: TileShape, emit: Emit) -> None:
    """Write the function that calls the variant for a width, 1 to shape.columns.

    `emit` writes the body of one variant, from the builder's place at its entry on.
    """
    builder = ir.IRBuilder(function.append_basic_block("entry"))
    width = function.args[3]
    whole_vectors = builder.udiv(width, _I64(shape.lanes))
    is_partial = builder.icmp_unsigned("!=", builder.urem(width, _I64(shape.lanes)), _I64(0))
    key = builder.add(builder.mul(whole_vectors, _I64(2)), builder.zext(is_partial, _I64))
    impossible = function.append_basic_block("impossible")
    choice = builder.switch(key, impossible)
    builder.position_at_end(impossible)
    builder.unreachable()
    for count in range(1, shape.vectors + 1):
        for partial in (False, True):
            name = f"{function.name}.{count}{'.partial' if partial else ''}"
            variant = ir.Function(function.module, function.function_type, name)
            variant.linkage = "internal"
            variant.attributes.add("noinline")
            for argument in (variant.args[4], variant.args[6]):
                argument.add_attribute("noalias")
            emit(variant, ChannelVectors(variant, shape, count, partial))
            block = function.append_basic_block(f"vectors.{count}")
            choice.add_case(_I64(2 * (count - 1) + 1 if partial else 2 * count), block)
            builder.position_at_end(block)
            builder.call(variant, function.args)
            builder.ret_void()
