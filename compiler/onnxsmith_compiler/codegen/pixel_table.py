"""The table of input pixels that convolution kernels read: an address for every output pixel and tap of a
tile.

A tap that falls into the padding has the address of a row of zeros. Where the taps of the innermost axis
are merged into one run of memory, a run that leaves the image at a side has the address of a copy that is
filled up with zeros.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from onnxsmith_compiler.codegen.contraction_source import ADDRESS_BYTES, CACHE_LINE
from onnxsmith_compiler.codegen.pixel_routines import AXES, STARTS_SIZES, pixel_edges_name, pixel_starts_name
from onnxsmith_compiler.codegen.tap_addresses import tap_addresses_name
from onnxsmith_compiler.codegen.tiling import Tiling
from onnxsmith_compiler.ir.dim import Dim
from onnxsmith_compiler.ir.dtype import DType

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
        copies = f" * (1 + {self._blocks} * taps * {self.rows})" if self.merged else ""
        return f"table_bytes + pitch * {self.dtype.itemsize}{copies}"

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
            f"at = stack(int64, {len(self.axes) * self.stride})",
            f"starts = stack(int64, {self.stride})",
            f"pixel_bytes = channels * {self.dtype.itemsize}",
        ]
        if self.merged:
            lines.append(f"copies = scratch(ctx, {self.dtype}, table_bytes + pitch * {self.dtype.itemsize})")
        return lines

    def fill(self, first_channel: str) -> list[str]:
        """Lines that fill the tile's table, block by block; taps begin at `first_channel`."""
        sizes = [f"{name}_{axis}" for axis in self.axes for name in STARTS_SIZES]
        starts = pixel_starts_name(len(self.axes), self.stride)
        return [
            f"origin = address(x) + {first_channel} * {self.dtype.itemsize}",
            f"for block in range((row_count + {self.rows - 1}) // {self.rows}):",
            f"    first = block * {self.rows}",
            f"    rows = min({self.rows}, row_count - first)",
            f"    {starts}(at, starts, first_row + first, rows, origin, pixel_bytes, {', '.join(sizes)})",
            f"    {self._addresses()}",
            *([f"    {self._edges()}"] if self.merged else []),
        ]

    def _addresses(self) -> str:
        """A call that fills a block's part of the table: all taps for all rows."""
        call = ["offset(table, block * block_entries)", "starts", "nowhere"]
        step = "pixel_bytes"
        groups: list[str] = []
        for number, axis in reversed(list(enumerate(self.axes))):
            at = f"offset(at, {number * self.stride})"
            groups.append(f"{at}, in_{axis}, window_{axis}, dilation_{axis}, {step} * dilation_{axis}")
            step = f"in_{axis} * {step}"
        taken = groups[1:] if self.merged else groups
        name = tap_addresses_name(len(taken), self.stride)
        return f"{name}({', '.join(call + taken[::-1])})"

    def _edges(self) -> str:
        """A call that replaces merged runs that leave the image sideways by copies with zeros outside."""
        arguments = [
            "offset(table, block * block_entries)",
            f"offset(at, {(len(self.axes) - 1) * self.stride})",
            "x",
            f"offset(copies, block * taps * {self.rows} * pitch)",
            *("nowhere", "rows", "taps", "pitch", "depth", "channels", "window_x", "in_x"),
        ]
        return f"{pixel_edges_name(self.stride, self.dtype.name)}({', '.join(arguments)})"


def axes_of(rank: int) -> str:
    """A letter for each of 1 to 3 spatial axes, outermost first."""
    return AXES[-rank:]


def sizes_of(axes: str) -> tuple[str, ...]:
    """Names of the parameters that describe images and how a window moves over them."""
    return tuple(f"{name}_{axis}" for axis in axes for name in _SIZES_OF_AXIS)
