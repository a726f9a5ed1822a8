"""The inner loop of depthwise convolution as a macro intrinsic: every channel is a sum over taps of its own.

A tile computes `rows` output pixels for up to `columns` channels, which lie along the vectors, with all
sums in registers. Each sum is one chain of fused multiply-adds from zero in the order of the taps.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import numpy as np
from llvmlite import ir

from onnxsmith_compiler.codegen.channel_vectors import ChannelVectors, depthwise_arguments, width_switch
from onnxsmith_compiler.codegen.kernel_function import Intrinsic
from onnxsmith_compiler.codegen.routines import routine
from onnxsmith_compiler.codegen.storage import array_pointer
from onnxsmith_compiler.codegen.target import Target
from onnxsmith_compiler.codegen.tile_shapes import TileShape
from onnxsmith_compiler.codegen.tiles import FLOATS, elements_at, multiply_add

_I64 = ir.IntType(64)


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
    """The intrinsic `shape.name(rows, taps, first, width, weights, weight_row, out)`.

    out[i, j] = sum over t of x(i, t)[first + j] * weights[t * weight_row + j] for i <
    shape.rows and j < width, where x(i, t) are the elements at address rows[t * shape.table_stride + i].
    `width` is 1 to shape.columns; nothing past it is read. `out` is dense, shape.rows * columns elements,
    aligned to 64 bytes.
    """

    def build(function: ir.Function, target: Target) -> None:
        width_switch(function, shape, functools.partial(_emit, shape, target))

    return routine(shape.name, depthwise_arguments(shape), build, _reference(shape))


def _reference(shape: DepthwiseShape) -> Any:
    def reference(rows: Any, taps: int, first: int, width: int, weights: Any, weight_row: int, out: Any) -> None:
        table, w, result = array_pointer(rows), array_pointer(weights), array_pointer(out)
        y = result.array[result.start :][: shape.rows * shape.columns].reshape(shape.rows, shape.columns)
        skipped = first * shape.element.itemsize
        for i in range(shape.rows):
            total = np.zeros(width, y.dtype)
            for tap in range(taps):
                address = int(table.array[table.start + tap * shape.table_stride + i])
                place = w.start + tap * weight_row
                total += elements_at(address + skipped, width, shape.dtype) * w.array[place : place + width]
            y[i, :width] = total

    return reference


def _emit(shape: DepthwiseShape, target: Target, function: ir.Function, vectors: ChannelVectors) -> None:
    """Write the loop over the taps for a number of vectors."""
    builder = vectors.builder
    rows, taps, first, _, weights, weight_row, out = function.args
    entry = builder.block
    each_tap, done = function.append_basic_block("tap"), function.append_basic_block("done")
    builder.branch(each_tap)

    builder.position_at_end(each_tap)
    tap, at_weights, at_rows = (builder.phi(kind) for kind in (_I64, weights.type, rows.type))
    for phi, start in ((tap, _I64(0)), (at_weights, weights), (at_rows, rows)):
        phi.add_incoming(start, entry)
    totals = [[builder.phi(vectors.kind) for _ in range(vectors.count)] for _ in range(shape.rows)]
    kernel = vectors.load(at_weights)
    sums = []
    for i, row in enumerate(totals):
        word = builder.load(builder.gep(at_rows, [_I64(i)]))
        address = builder.inttoptr(word, FLOATS[shape.dtype].as_pointer())
        x = vectors.load(builder.gep(address, [first]))
        sums.append([multiply_add(builder, target, *terms) for terms in zip(x, kernel, row, strict=True)])
        for phi, value in zip(row, sums[-1], strict=True):
            phi.add_incoming(vectors.zero, entry)
            phi.add_incoming(value, each_tap)
    following = builder.add(tap, _I64(1))
    tap.add_incoming(following, each_tap)
    at_weights.add_incoming(builder.gep(at_weights, [weight_row]), each_tap)
    at_rows.add_incoming(builder.gep(at_rows, [_I64(shape.table_stride)]), each_tap)
    builder.cbranch(builder.icmp_signed("<", following, taps), each_tap, done)

    builder.position_at_end(done)
    vectors.store(sums, out, shape.columns)
    builder.ret_void()


DEPTHWISE_SHAPES: tuple[DepthwiseShape, ...] = _depthwise_shapes()
DEPTHWISE_TILES: Mapping[str, Intrinsic] = MappingProxyType(
    {shape.name: depthwise_intrinsic(shape) for shape in DEPTHWISE_SHAPES}
)
"""Every depthwise tile that printed kernels may call, by name."""
