"""The inner loop of depthwise convolution along a row of pixels, as a macro intrinsic.

A tile computes neighbouring output pixels of one image row. Every input pixel is loaded once for each row of the window
and used by all outputs that it belongs to, with the window's row in registers, so that arithmetic and not loads
bounds it. Each sum is one chain of fused multiply-adds from zero in the order of the taps.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import numpy as np
from llvmlite import ir

from onnxsmith_compiler.codegen.channel_vectors import ChannelVectors, depthwise_arguments, width_switch
from onnxsmith_compiler.codegen.depthwise_tile import DepthwiseShape
from onnxsmith_compiler.codegen.kernel_function import Intrinsic
from onnxsmith_compiler.codegen.routines import routine
from onnxsmith_compiler.codegen.storage import array_pointer
from onnxsmith_compiler.codegen.target import Target
from onnxsmith_compiler.codegen.tiles import FLOATS, elements_at, multiply_add

_I64 = ir.IntType(64)
_ROWS = 7
_WINDOWS = (3, 5, 7)
_STRIDES = (1, 2)


@dataclass(frozen=True)
class DepthwiseRowShape(DepthwiseShape):
    """`rows` pixels by `vectors` vectors of channels, for windows of `window` pixels that move by `stride`."""

    window: int
    stride: int

    @property
    def name(self) -> str:
        kind = f"{self.rows}x{self.vectors}_f{self.element.bits}x{self.lanes}"
        return f"depthwise_row_{kind}_window{self.window}_stride{self.stride}"

    @property
    def pixels(self) -> int:
        """How many input pixels of a row the outputs depend on."""
        return (self.rows - 1) * self.stride + self.window

    @property
    def table_stride(self) -> int:
        """Entries of the table of pixel addresses from one row of the window to the next."""
        return -(-self.pixels // 8) * 8


def _shapes() -> tuple[DepthwiseRowShape, ...]:
    shapes = []
    # (lanes of float32, vectors): AVX-512, AVX2, NEON, SSE.
    for lanes, vectors in ((16, 2), (8, 1), (4, 2), (4, 1)):
        for window in _WINDOWS:
            for stride in _STRIDES:
                shapes.append(DepthwiseRowShape(_ROWS, vectors, lanes, "float32", window, stride))
    return tuple(shapes)


def depthwise_row_shape(
    target: Target, dtype: str, window: int, stride: int, dilation: int
) -> DepthwiseRowShape | None:
    """The tile for a window's extent, stride and dilation along the row; None where there is none."""
    fitting = [
        shape
        for shape in DEPTHWISE_ROW_SHAPES
        if (shape.dtype, shape.window, shape.stride, 1) == (dtype, window, stride, dilation)
        and shape.lanes * shape.element.bits == target.vector_bits
        and (shape.rows + shape.window + 1) * shape.vectors <= target.vector_registers
    ]
    return max(fitting, key=lambda shape: shape.vectors, default=None)


def depthwise_row_intrinsic(shape: DepthwiseRowShape) -> Intrinsic:
    """The intrinsic `shape.name(pixels, window_rows, first, width, weights, weight_row, out)`.

    out[i, j] = sum over t, u of x(t, i * stride + u)[first + j] * weights[(t * window + u) * weight_row + j] for
    i < shape.rows and j < width, where x(t, p) are the elements at address pixels[t * shape.table_stride + p].
    `width` is 1 to shape.columns; nothing past it is read. `out` is dense, shape.rows * columns elements, aligned to 64
    bytes.
    """

    def build(function: ir.Function, target: Target) -> None:
        width_switch(function, shape, functools.partial(_emit, shape, target))

    return routine(shape.name, depthwise_arguments(shape), build, _reference(shape))


def _reference(shape: DepthwiseRowShape) -> Callable[..., None]:
    def reference(
        pixels: Any, window_rows: int, first: int, width: int, weights: Any, weight_row: int, out: Any
    ) -> None:
        table, w, result = array_pointer(pixels), array_pointer(weights), array_pointer(out)
        y = result.array[result.start :][: shape.rows * shape.columns].reshape(shape.rows, shape.columns)
        skipped = first * shape.element.itemsize
        for i in range(shape.rows):
            total = np.zeros(width, y.dtype)
            for t in range(window_rows):
                for u in range(shape.window):
                    entry = table.start + t * shape.table_stride + i * shape.stride + u
                    x = elements_at(int(table.array[entry]) + skipped, width, shape.dtype)
                    tap = w.start + (t * shape.window + u) * weight_row
                    total += x * w.array[tap : tap + width]
            y[i, :width] = total

    return reference


def _emit(shape: DepthwiseRowShape, target: Target, function: ir.Function, vectors: ChannelVectors) -> None:
    """Write the loop over the window's rows for a number of vectors."""
    builder = vectors.builder
    pixels, window_rows, first, _, weights, weight_row, out = function.args
    entry = builder.block
    each_row, done = function.append_basic_block("row"), function.append_basic_block("done")
    builder.branch(each_row)

    builder.position_at_end(each_row)
    row, at_weights, at_pixels = (builder.phi(kind) for kind in (_I64, weights.type, pixels.type))
    for phi, start in ((row, _I64(0)), (at_weights, weights), (at_pixels, pixels)):
        phi.add_incoming(start, entry)
    totals = [[builder.phi(vectors.kind) for _ in range(vectors.count)] for _ in range(shape.rows)]
    taps, place = [], at_weights
    for _ in range(shape.window):
        taps.append(vectors.load(place))
        place = builder.gep(place, [weight_row])
    sums: list[list[ir.Value]] = [list(phis) for phis in totals]
    for pixel in range(shape.pixels):
        word = builder.load(builder.gep(at_pixels, [_I64(pixel)]))
        address = builder.inttoptr(word, FLOATS[shape.dtype].as_pointer())
        x = vectors.load(builder.gep(address, [first]))
        for output, tap in _users(shape, pixel):
            terms = zip(x, taps[tap], sums[output], strict=True)
            sums[output] = [multiply_add(builder, target, *term) for term in terms]
    for phis, values in zip(totals, sums, strict=True):
        for phi, value in zip(phis, values, strict=True):
            phi.add_incoming(vectors.zero, entry)
            phi.add_incoming(value, each_row)
    following = builder.add(row, _I64(1))
    row.add_incoming(following, each_row)
    at_weights.add_incoming(place, each_row)
    at_pixels.add_incoming(builder.gep(at_pixels, [_I64(shape.table_stride)]), each_row)
    builder.cbranch(builder.icmp_signed("<", following, window_rows), each_row, done)

    builder.position_at_end(done)
    vectors.store(sums, out, shape.columns)
    builder.ret_void()


def _users(shape: DepthwiseRowShape, pixel: int) -> Sequence[tuple[int, int]]:
    """The (output, tap) pairs that read an input pixel."""
    pairs = ((output, pixel - output * shape.stride) for output in range(shape.rows))
    return [(output, tap) for output, tap in pairs if 0 <= tap < shape.window]


DEPTHWISE_ROW_SHAPES: tuple[DepthwiseRowShape, ...] = _shapes()
DEPTHWISE_ROW_TILES: Mapping[str, Intrinsic] = MappingProxyType(
    {shape.name: depthwise_row_intrinsic(shape) for shape in DEPTHWISE_ROW_SHAPES}
)
"""Every such tile that printed kernels may call, by name."""
