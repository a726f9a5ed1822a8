"""The inner loop of depthwise convolution as a macro intrinsic: every channel is a sum over taps of its own.

A tile computes `rows` output pixels for up to `columns` channels, which lie along the vectors, with all
sums in registers. Each sum is one chain of fused multiply-adds from zero in the order of the taps.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import numpy as np
from llvmlite import ir
from numba.core import types

from onnxsmith_compiler.codegen.kernel_function import Intrinsic
from onnxsmith_compiler.codegen.storage import StoragePointer, array_pointer
from onnxsmith_compiler.codegen.target import Target
from onnxsmith_compiler.codegen.tiles import FLOATS, TileShape, elements_at, multiply_add
from onnxsmith_compiler.ir.dtype import INT64

_I32 = ir.IntType(32)
_I64 = ir.IntType(64)
_ALIGNMENT = 64


@dataclass(frozen=True)
class DepthwiseShape(TileShape):
    """`rows` pixels by `vectors` vectors of channels."""

    @property
    def name(self) -> str:
        return f"depthwise_{self.rows}x{self.vectors}_f{self.element.bits}x{self.lanes}"


def _depthwise_shapes() -> tuple[DepthwiseShape, ...]:
    shapes = []
    # (lanes of float32, rows, vectors): AVX-512, AVX2, NEON, SSE.
    for lanes, rows, vectors in ((16, 6, 4), (8, 6, 2), (4, 6, 4), (4, 6, 2)):
        shapes.append(DepthwiseShape(rows, vectors, lanes, "float32"))
        shapes.append(DepthwiseShape(rows, vectors, lanes // 2, "float64"))
    return tuple(shapes)


def depthwise_shape(target: Target, dtype: str) -> DepthwiseShape:
    """The tile for `dtype`, "float32" or "float64"."""
    lanes = target.vector_bits // (32 if dtype == "float32" else 64)
    fitting = [
        shape
        for shape in DEPTHWISE_SHAPES
        if (shape.lanes, shape.dtype) == (lanes, dtype)
        and (shape.rows + 1) * shape.vectors + 1 <= target.vector_registers
    ]
    return max(fitting, key=lambda shape: shape.vectors)


def depthwise_intrinsic(shape: DepthwiseShape) -> Intrinsic:
    """The intrinsic `shape.name(rows, taps, channel, width, weights, weight_row, out)`.

    out[i, j] = sum over t of x(i, t)[channel + j] * weights[t * weight_row + channel + j] for i <
    shape.rows and j < width, where x(i, t) are the elements at address rows[t * shape.table_stride + i].
    `width` is 1 to shape.columns; nothing past it is read. `out` is dense, shape.rows * columns elements,
    aligned to 64 bytes.
    """

    def definition(context: Any, *kinds: Any) -> Any:
        element, size = StoragePointer(shape.element), types.int64
        expected = (StoragePointer(INT64), size, size, size, element, size, element)
        if len(kinds) != len(expected):
            return None
        for given, wanted in zip(kinds, expected, strict=True):
            if given != wanted and not (wanted is size and isinstance(given, types.Integer)):
                return None

        def emit(context: Any, builder: ir.IRBuilder, signature: Any, arguments: Any) -> ir.Value:
            builder.call(_tile_function(builder.module, shape, context.kernel_target), arguments)
            return context.get_dummy_value()

        return types.void(*expected), emit

    return Intrinsic(shape.name, definition, _reference(shape))


def _reference(shape: DepthwiseShape) -> Any:
    def reference(
        rows: Any, taps: int, channel: int, width: int, weights: Any, weight_row: int, out: Any
    ) -> None:
        table, w, result = array_pointer(rows), array_pointer(weights), array_pointer(out)
        y = result.array[result.start :][: shape.rows * shape.columns].reshape(shape.rows, shape.columns)
        skipped = channel * shape.element.itemsize
        for i in range(shape.rows):
            total = np.zeros(width, y.dtype)
            for tap in range(taps):
                address = int(table.array[table.start + tap * shape.table_stride + i])
                first = w.start + tap * weight_row + channel
                total += elements_at(address + skipped, width, shape.dtype) * w.array[first : first + width]
            y[i, :width] = total

    return reference


def _tile_function(module: ir.Module, shape: DepthwiseShape, target: Target) -> ir.Function:
    """The module's own function that picks the variant for a width; made on first use."""
    name = f"onnxsmith.{shape.name}"
    if name in module.globals:
        return module.globals[name]
    element = FLOATS[shape.dtype].as_pointer()
    kind = ir.FunctionType(ir.VoidType(), [_I64.as_pointer(), _I64, _I64, _I64, element, _I64, element])
    function = ir.Function(module, kind, name)
    function.attributes.add("noinline")
    builder = ir.IRBuilder(function.append_basic_block("entry"))
    width = function.args[3]
    whole_vectors = builder.udiv(width, _I64(shape.lanes))
    is_partial = builder.icmp_unsigned("!=", builder.urem(width, _I64(shape.lanes)), _I64(0))
    key = builder.add(builder.mul(whole_vectors, _I64(2)), builder.zext(is_partial, _I64))
    impossible = function.append_basic_block("impossible")
    choice = builder.switch(key, impossible)
    builder.position_at_end(impossible)
    builder.unreachable()
    for vectors in range(1, shape.vectors + 1):
        for partial in (False, True):
            variant = ir.Function(module, kind, f"{name}.{vectors}{'.partial' if partial else ''}")
            variant.attributes.add("noinline")
            for argument in (variant.args[4], variant.args[6]):
                argument.add_attribute("noalias")
            _Emitter(variant, shape, vectors, partial, target).emit()
            block = function.append_basic_block(f"vectors.{vectors}")
            choice.add_case(_I64(2 * (vectors - 1) + 1 if partial else 2 * vectors), block)
            builder.position_at_end(block)
            builder.call(variant, function.args)
            builder.ret_void()
    return function


class _Emitter:
    """Writes the loop over taps for `vectors` vectors, the last of which may be `partial`."""

    def __init__(
        self, function: ir.Function, shape: DepthwiseShape, vectors: int, partial: bool, target: Target
    ) -> None:
        self.function, self.shape, self.vectors, self.partial = function, shape, vectors, partial
        self.target = target
        self.element = FLOATS[shape.dtype]
        self.vector = ir.VectorType(self.element, shape.lanes)
        self.zero = ir.Constant(self.vector, [0.0] * shape.lanes)
        self.builder = ir.IRBuilder(function.append_basic_block("entry"))

    def emit(self) -> None:
        builder, shape = self.builder, self.shape
        rows, taps, channel, width, weights, weight_row, out = self.function.args
        entry = builder.block
        each_tap = self.function.append_basic_block("tap")
        done = self.function.append_basic_block("done")
        mask = self._mask(width) if self.partial else None
        first_weights = builder.gep(weights, [channel])
        builder.branch(each_tap)

        builder.position_at_end(each_tap)
        tap = builder.phi(_I64)
        at_weights = builder.phi(weights.type)
        at_rows = builder.phi(rows.type)
        starts = ((tap, _I64(0)), (at_weights, first_weights), (at_rows, rows))
        for phi, start in starts:
            phi.add_incoming(start, entry)
        sums = [[builder.phi(self.vector) for _ in range(self.vectors)] for _ in range(shape.rows)]
        kernel = [self._load(at_weights, j, mask) for j in range(self.vectors)]
        for i, row in enumerate(sums):
            word = builder.load(builder.gep(at_rows, [_I64(i)]))
            pixel = builder.gep(builder.inttoptr(word, self.element.as_pointer()), [channel])
            for j, total in enumerate(row):
                x = self._load(pixel, j, mask)
                new = multiply_add(builder, self.target, x, kernel[j], total)
                total.add_incoming(self.zero, entry)
                total.add_incoming(new, each_tap)
                row[j] = new
        next_tap = builder.add(tap, _I64(1))
        tap.add_incoming(next_tap, each_tap)
        at_weights.add_incoming(builder.gep(at_weights, [weight_row]), each_tap)
        at_rows.add_incoming(builder.gep(at_rows, [_I64(shape.table_stride)]), each_tap)
        builder.cbranch(builder.icmp_signed("<", next_tap, taps), each_tap, done)

        builder.position_at_end(done)
        for i, row in enumerate(sums):
            for j, value in enumerate(row):
                place = builder.gep(out, [_I64(i * shape.columns + j * shape.lanes)])
                builder.store(value, builder.bitcast(place, self.vector.as_pointer()), align=_ALIGNMENT)
        builder.ret_void()

    def _mask(self, width: ir.Value) -> ir.Value:
        """Which lanes of the last vector there are."""
        builder, lanes = self.builder, self.shape.lanes
        kind = ir.VectorType(_I64, lanes)
        rest = builder.sub(width, _I64((self.vectors - 1) * lanes))
        first = builder.insert_element(ir.Constant(kind, ir.Undefined), rest, _I32(0))
        zeros = ir.Constant(ir.VectorType(_I32, lanes), [0] * lanes)
        spread = builder.shuffle_vector(first, ir.Constant(kind, ir.Undefined), zeros)
        return builder.icmp_signed("<", ir.Constant(kind, list(range(lanes))), spread)

    def _load(self, pointer: ir.Value, j: int, mask: ir.Value | None) -> ir.Value:
        builder, lanes = self.builder, self.shape.lanes
        place = builder.gep(pointer, [_I64(j * lanes)])
        address = builder.bitcast(place, self.vector.as_pointer())
        alignment = self.shape.element.itemsize
        if mask is None or j < self.vectors - 1:
            return builder.load(address, align=alignment)
        name = f"llvm.masked.load.v{lanes}f{self.shape.element.bits}.p0"
        declared = builder.module.globals.get(name)
        if declared is None:
            kind = ir.FunctionType(self.vector, [self.vector.as_pointer(), mask.type, self.vector])
            declared = ir.Function(builder.module, kind, name)
        return builder.call(declared, [address, mask, self.zero])


DEPTHWISE_SHAPES: tuple[DepthwiseShape, ...] = _depthwise_shapes()
DEPTHWISE_TILES: Mapping[str, Intrinsic] = MappingProxyType(
    {shape.name: depthwise_intrinsic(shape) for shape in DEPTHWISE_SHAPES}
)
"""Every depthwise tile that printed kernels may call, by name."""
