"""The table of input pixels that convolution kernels read: an address for every output pixel and tap of a
tile.

A tap that falls into the padding has the address of a row of zeros. Where the taps of the innermost axis
are merged into one run of memory, a run that leaves the image at a side has the address of a copy that is
filled up with zeros.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from onnxsmith_compiler.codegen.contraction_source import ADDRESS_BYTES, CACHE_LINE, Tiling, indent
from onnxsmith_compiler.codegen.tap_addresses import tap_addresses_name
from onnxsmith_compiler.ir.dim import Dim
from onnxsmith_compiler.ir.dtype import DType

_AXES = "zyx"
_SIZES_OF_AXIS = ("in", "out", "window", "stride", "dilation", "pad")
# Addresses are computed in vectors of this many.
_VECTOR = 8


@dataclass(frozen=True)
class PixelTable:
    """A table for a `window` over 1 to 3 spatial axes of images of `dtype`, for blocks of `rows` output
    pixels.

    `merged`: the taps of the innermost axis are one. The kernel's text depends on the number of axes alone,
    not on the window's extents, which are parameters.
    """

    window: tuple[int, ...]
    merged: bool
    rows: int
    dtype: DType

    @property
    def axes(self) -> str:
        """A letter for each spatial axis, outermost first; they end the names of sizes and strides."""
        return axes_of(len(self.window))

    @property
    def sizes(self) -> tuple[str, ...]:
        """Names of the kernel's parameters that describe the images and how the window moves."""
        return sizes_of(self.axes)

    @property
    def taps(self) -> int:
        """How many taps there are."""
        return math.prod(self.window[:-1] if self.merged else self.window)

    @property
    def run(self) -> int:
        """How many pixels one tap covers."""
        return self.window[-1] if self.merged else 1

    @property
    def stride(self) -> int:
        """Entries from one tap of a block to the next: its rows, in whole vectors."""
        return -(-self.rows // _VECTOR) * _VECTOR

    @property
    def run_text(self) -> str:
        """The expression of `run` in the kernel."""
        return "window_x" if self.merged else "1"

    @property
    def end_text(self) -> str:
        """The expression of where in scratch memory that ends which `setup` lays out; in bytes."""
        rows = f"pitch * {self.dtype.itemsize}"
        return (
            f"table_bytes + {rows} * (1 + {self._blocks} * taps * {self.rows})"
            if self.merged
            else f"table_bytes + {rows}"
        )

    @property
    def _blocks(self) -> str:
        """The expression of the blocks of a tile."""
        return f"((rows_per_tile + {self.rows - 1}) // {self.rows})"

    def scratch(self, depth: Dim, tiling: Tiling) -> Dim:
        """Bytes of scratch that `setup` lays out, for taps of `depth` elements."""
        entries = -(-tiling.rows // self.rows) * self.taps
        copies = entries * self.rows if self.merged else 0
        return entries * self.stride * ADDRESS_BYTES + (1 + copies) * (depth * self.dtype.itemsize + CACHE_LINE)

    def setup(self) -> list[str]:
        """Lines that lay out scratch memory; they read `depth`, the elements of a tap.

        They define `taps`, `block_entries` (of the table, for a block of rows) and the table itself, `table`.
        """
        line = CACHE_LINE // self.dtype.itemsize
        tapped = [f"window_{axis}" for axis in self.axes][: -1 if self.merged else None]
        lines = [
            f"taps = {' * '.join(tapped) or '1'}",
            f"block_entries = taps * {self.stride}",
            f"table_bytes = {self._blocks} * block_entries * {ADDRESS_BYTES}",
            "table = scratch(ctx, int64, 0)",
            f"zeros = scratch(ctx, {self.dtype}, table_bytes)",
            "for i in range(depth):",
            f"    store(zeros, i, {self.dtype.compute}(0.0))",
            "nowhere = address(zeros)",
            f"pitch = (depth + {line - 1}) // {line} * {line}",
            *[f"at_{axis} = stack(int64, {self.stride})" for axis in self.axes],
            f"starts = stack(int64, {self.stride})",
            f"pixel_bytes = channels * {self.dtype.itemsize}",
            f"image_pixels = {' * '.join(f'out_{axis}' for axis in self.axes)}",
        ]
        if self.merged:
            lines.append(f"copies = scratch(ctx, {self.dtype}, table_bytes + pitch * {self.dtype.itemsize})")
        return lines

    def fill(self, first_channel: str) -> list[str]:
        """Lines that fill the tile's table, block by block; taps begin at `first_channel`."""
        position = ["image = int_div(first_row, image_pixels)", "rest = first_row - image * image_pixels"]
        for axis in reversed(self.axes[1:]):
            position += [f"pixel_{axis} = int_rem(rest, out_{axis})", f"rest = int_div(rest, out_{axis})"]
        return [
            f"origin = address(x) + {first_channel} * {self.dtype.itemsize}",
            *position,
            f"pixel_{self.axes[0]} = rest",
            f"for block in range((row_count + {self.rows - 1}) // {self.rows}):",
            f"    rows = min({self.rows}, row_count - block * {self.rows})",
            *indent(self._positions()),
            f"    {self._addresses()}",
            *(indent(self._edges()) if self.merged else []),
        ]

    def _positions(self) -> list[str]:
        """Lines that note where the windows of a block's rows begin; entries past the last row repeat it.

        Rows that are neighbours on one line of the image are stepped through without asking where it ends.
        """
        inner, outer = self.axes[-1], self.axes[:-1]
        names = [f"at_{axis}" for axis in self.axes] + ["starts"]
        place = "image"
        for axis in self.axes:
            place = f"({place} * in_{axis} + {axis}_index)"
        here = [f"{axis}_index = pixel_{axis} * stride_{axis} - pad_{axis}" for axis in self.axes]
        start = f"{place} * pixel_bytes + origin"
        return [
            f"if pixel_{inner} + rows <= out_{inner}:",
            *indent(here),
            f"    start = {start}",
            f"    for i in range({self.stride}):",
            f"        step = min(i, rows - 1) * stride_{inner}",
            *[f"        store(at_{axis}, i, {axis}_index)" for axis in outer],
            f"        store(at_{inner}, i, {inner}_index + step)",
            "        store(starts, i, start + step * pixel_bytes)",
            f"    pixel_{inner} += rows - 1",
            *indent(next_pixel(self.axes)),
            "else:",
            "    for i in range(rows):",
            *indent(here, 2),
            *[f"        store(at_{axis}, i, {axis}_index)" for axis in self.axes],
            f"        store(starts, i, {start})",
            *indent(next_pixel(self.axes), 2),
            f"    for i in range(rows, {self.stride}):",
            *[f"        store({name}, i, load({name}, rows - 1))" for name in names],
        ]

    def _addresses(self) -> str:
        """A call that fills a block's part of the table: all taps for all rows."""
        call = ["offset(table, block * block_entries)", "starts", "nowhere"]
        step = "pixel_bytes"
        groups: list[str] = []
        for axis in reversed(self.axes):
            groups.append(f"at_{axis}, in_{axis}, window_{axis}, dilation_{axis}, {step} * dilation_{axis}")
            step = f"in_{axis} * {step}"
        taken = groups[1:] if self.merged else groups
        name = tap_addresses_name(len(taken), self.stride)
        return f"{name}({', '.join(call + taken[::-1])})"

    def _edges(self) -> list[str]:
        """Lines that replace merged runs that leave the image sideways by copies with zeros outside."""
        copied = [
            "left = load(at_x, i)",
            "if left < 0 or left + window_x > in_x:",
            "    for tap in range(taps):",
            f"        slot = block * block_entries + tap * {self.stride} + i",
            "        place = load(table, slot)",
            "        if place != nowhere:",
            f"            copy = offset(copies, ((block * taps + tap) * {self.rows} + i) * pitch)",
            f"            source = offset(x, (place - address(x)) // {self.dtype.itemsize})",
            "            for j in range(depth):",
            f"                store(copy, j, {self.dtype.compute}(0.0))",
            "            inside = min(window_x, in_x - left) * channels",
            "            for j in range(max(0, -left) * channels, inside):",
            "                store(copy, j, load(source, j))",
            "            store(table, slot, address(copy))",
        ]
        return [
            "leaving = 0",
            f"for i in range({self.rows}):",
            "    left = load(at_x, i)",
            "    leaving = leaving | left | (in_x - window_x - left)",
            "if leaving < 0:",
            f"    for i in range({self.rows}):",
            *indent(copied, 2),
        ]


def axes_of(rank: int) -> str:
    """A letter for each of 1 to 3 spatial axes, outermost first."""
    return _AXES[-rank:]


def sizes_of(axes: str) -> tuple[str, ...]:
    """Names of the parameters that describe images and how a window moves over them."""
    return tuple(f"{name}_{axis}" for axis in axes for name in _SIZES_OF_AXIS)


def next_pixel(axes: str) -> list[str]:
    """Lines that step from one output position to the next, in row-major order through the images."""
    if not axes:
        return ["image += 1"]
    outer, inner = axes[:-1], axes[-1]
    return [
        f"pixel_{inner} += 1",
        f"if pixel_{inner} == out_{inner}:",
        f"    pixel_{inner} = 0",
        *indent(next_pixel(outer)),
    ]
