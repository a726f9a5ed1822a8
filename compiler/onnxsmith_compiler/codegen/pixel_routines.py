"""Routines that find where the windows of a block of output pixels begin, for the table of pixels that kernels read.

Their text is the same for every kernel of so many spatial axes, and long: it is compiled once and not in each kernel.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from types import MappingProxyType

from onnxsmith_compiler.codegen.kernel_function import Intrinsic
from onnxsmith_compiler.codegen.routines import printed_routine
from onnxsmith_compiler.ir.dtype import BFLOAT16, FLOAT32, FLOAT64, DType

AXES = "zyx"
STARTS_SIZES = ("in", "out", "stride", "pad")
"""What `pixel_starts` is told of each axis."""
STRIDES = (8, 16, 24)
"""Entries of a block that there are routines for."""
_ELEMENTS = (FLOAT32, FLOAT64, BFLOAT16)


def pixel_starts_name(axes: int, stride: int) -> str:
    return f"pixel_starts_{axes}x{stride}"


def pixel_edges_name(stride: int, element: str) -> str:
    return f"pixel_edges_{stride}_{element}"


def pixel_starts(axes: int, stride: int) -> Intrinsic:
    """The routine `pixel_starts_{axes}x{stride}(at, starts, row, rows, origin, pixel_bytes, in, out, stride, pad)`.

    The sizes are those of each axis, outermost first. Of the output pixels row to row + rows - 1, in row-major order
    through the images, it notes where their windows begin: in `at` the index on each axis, `stride` entries each, and
    in `starts` the address, of pixels of `pixel_bytes` from `origin` on. Entries past the last pixel repeat it. The
    pointers are int64*.
    """
    names = AXES[-axes:]
    sizes = [f"{name}_{axis}" for axis in names for name in STARTS_SIZES]
    parameters = ["at", "starts", "row", "rows", "origin", "pixel_bytes", *sizes]
    body = [*_position(names), *_starts(names, stride)]
    text = "\n    ".join([f"def kernel({', '.join(parameters)}):", *body, ""])
    arguments = ["int64*", "int64*", *["int64"] * (len(parameters) - 2)]
    return printed_routine(pixel_starts_name(axes, stride), arguments, text)


def _position(axes: str) -> list[str]:
    """Lines that find the first pixel."""
    lines = ["rest = row"]
    for axis in reversed(axes):
        lines += [f"pixel_{axis} = int_rem(rest, out_{axis})", f"rest = int_div(rest, out_{axis})"]
    return [*lines, "image = rest"]


def _starts(axes: str, stride: int) -> list[str]:
    """Rows that are neighbours on one line of the image are stepped through without asking where it ends."""
    inner = axes[-1]
    place = "image"
    for axis in axes:
        place = f"({place} * in_{axis} + {axis}_index)"
    here = [f"{axis}_index = pixel_{axis} * stride_{axis} - pad_{axis}" for axis in axes]
    start = f"{place} * pixel_bytes + origin"
    stores = [(f"{number * stride} + i", f"{axis}_index") for number, axis in enumerate(axes)]
    stepped = [(place, f"{value} + step" if value == f"{inner}_index" else value) for place, value in stores]
    entries = range(len(axes))
    return [
        f"if pixel_{inner} + rows <= out_{inner}:",
        *_indented(here),
        f"    start = {start}",
        f"    for i in range({stride}):",
        f"        step = min(i, rows - 1) * stride_{inner}",
        *[f"        store(at, {place}, {value})" for place, value in stepped],
        "        store(starts, i, start + step * pixel_bytes)",
        "else:",
        "    for i in range(rows):",
        *_indented(here, 2),
        *[f"        store(at, {place}, {value})" for place, value in stores],
        f"        store(starts, i, {start})",
        *_indented(next_pixel(axes), 2),
        f"    for i in range(rows, {stride}):",
        *[f"        store(at, {n * stride} + i, load(at, {n * stride} + rows - 1))" for n in entries],
        "        store(starts, i, load(starts, rows - 1))",
    ]


def next_pixel(axes: str) -> list[str]:
    """Lines that step from one output position to the next, in row-major order through the images."""
    if not axes:
        return ["image += 1"]
    outer, inner = axes[:-1], axes[-1]
    return [
        f"pixel_{inner} += 1",
        f"if pixel_{inner} == out_{inner}:",
        f"    pixel_{inner} = 0",
        *_indented(next_pixel(outer)),
    ]


def pixel_edges(stride: int, element: DType) -> Intrinsic:
    """The routine `pixel_edges_{stride}_{element.name}`, for taps that are runs of pixels on a line of the image.

    Of the entries of a block's `table`, those of runs that leave the image at a side come to be addresses of copies
    with zeros outside. `at` has where the runs begin on the innermost axis, of `in_x` pixels. A run has `window_x`
    pixels of `channels`, `depth` elements in all; copies are `pitch` elements apart, for `rows` pixels of each tap.
    """
    body = f"""
    leaving = 0
    for i in range(rows):
        left = load(at, i)
        leaving = leaving | left | (in_x - window_x - left)
    if leaving < 0:
        for i in range(rows):
            left = load(at, i)
            if left < 0 or left + window_x > in_x:
                for tap in range(taps):
                    place = load(table, tap * {stride} + i)
                    if place != nowhere:
                        copy = offset(copies, (tap * rows + i) * pitch)
                        source = offset(x, (place - address(x)) // {element.itemsize})
                        for j in range(depth):
                            store(copy, j, {element.compute.name}(0.0))
                        inside = min(window_x, in_x - left) * channels
                        for j in range(max(0, -left) * channels, inside):
                            store(copy, j, load(source, j))
                        store(table, tap * {stride} + i, address(copy))
        for i in range(rows, {stride}):
            for tap in range(taps):
                store(table, tap * {stride} + i, load(table, tap * {stride} + rows - 1))
"""
    sizes = ["nowhere", "rows", "taps", "pitch", "depth", "channels", "window_x", "in_x"]
    text = f"def kernel(table, at, x, copies, {', '.join(sizes)}):" + body
    arguments = ["int64*", "int64*", f"{element.name}*", f"{element.name}*", *["int64"] * len(sizes)]
    return printed_routine(pixel_edges_name(stride, element.name), arguments, text)


def _indented(lines: list[str], depth: int = 1) -> list[str]:
    return ["    " * depth + line for line in lines]


PIXEL_ROUTINES: Mapping[str, Intrinsic] = MappingProxyType(
    {
        made.name: made
        for made in (
            *itertools.starmap(pixel_starts, itertools.product(range(1, len(AXES) + 1), STRIDES)),
            *itertools.starmap(pixel_edges, itertools.product(STRIDES, _ELEMENTS)),
        )
    }
)
"""Every such routine that printed kernels may call, by name."""
