"""Prints depthwise convolutions by rows: a block is some neighbouring output pixels of one image row.

For windows that `depthwise_row_tile` has a tile for. The table holds, for each row of the window, the addresses of
the input pixels that the block depends on; pixels in the padding have the address of zeros.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from onnxsmith_compiler.codegen.contraction_source import (
    ADDRESS_BYTES,
    CACHE_LINE,
    epilogue_block,
    indent,
    kernel_source,
    sizes,
    tile_counts,
)
from onnxsmith_compiler.codegen.depthwise_row_tile import DepthwiseRowShape
from onnxsmith_compiler.codegen.epilogue import Epilogue
from onnxsmith_compiler.codegen.pixel_routines import next_pixel
from onnxsmith_compiler.codegen.pixel_sums import sum_block
from onnxsmith_compiler.codegen.pixel_table import axes_of, sizes_of
from onnxsmith_compiler.codegen.source import KernelSource, Parameter
from onnxsmith_compiler.codegen.tap_addresses import tap_addresses_name
from onnxsmith_compiler.codegen.target import Target
from onnxsmith_compiler.codegen.tiling import Tiling, ceil_div, ceil_to, part_count
from onnxsmith_compiler.ir import dim as dims
from onnxsmith_compiler.ir.dim import Dim

_BLOCKS_PER_TILE = 16
# Channels are cut only into parts of so many panels: each part finds the addresses of the pixels anew.
_FEWEST_PANELS = 4
# All blocks take so many panels before the next: few enough that the rows of pixels that windows share stay in the
# first-level cache, enough that what is read of a pixel is a run of memory.
_STRIP_PANELS = 4


@dataclass(frozen=True)
class DepthwiseRowForm:
    """What is baked into the kernel; `window`: the extent on 1 to 3 spatial axes, the last one the tile's.

    `last_columns`: what `columns_of_last_panel` says. A Tiling's rows count blocks.
    """

    tile: DepthwiseRowShape
    window: tuple[int, ...]
    last_columns: int | None

    def tiles(self, positions: Sequence[Dim], channels: Dim, tiling: Tiling) -> Dim:
        """The number of tiles of a step; `positions`: images, then the output's spatial sizes."""
        blocks = self.rows(positions)
        return ceil_div(blocks, tiling.rows) * ceil_div(ceil_div(channels, self.tile.columns), tiling.panels)

    @property
    def row_unit(self) -> int:
        """What a Tiling's rows are multiples of."""
        return 1

    def rows(self, positions: Sequence[Dim]) -> Dim:
        """All that a Tiling's rows count: blocks."""
        return dims.product(positions[:-1]) * ceil_div(positions[-1], self.tile.rows)

    def tiling(self, positions: Sequence[Dim], channels: Dim, target: Target) -> Tiling:
        """Blocks and panels of a tile: all panels, unless there are too few blocks for all cores.

        The convolutions around it are cut by pixels too: each core finds in its caches what it wrote.
        """
        panels = part_count(channels, self.tile.columns) if isinstance(channels, int) else 1
        blocks = self.rows(positions)
        if not isinstance(blocks, int):
            return Tiling(_BLOCKS_PER_TILE, max(1, panels))
        tiles = max(1, round(blocks / _BLOCKS_PER_TILE))
        if blocks < 2 * target.cores and panels >= _FEWEST_PANELS * target.cores:
            return Tiling(max(1, part_count(blocks, tiles)), part_count(panels, target.cores))
        even = ceil_to(tiles, target.cores)
        return Tiling(max(1, part_count(blocks, even if even <= 2 * tiles else tiles)), max(1, panels))

    def scratch(self, channels: Dim, tiling: Tiling) -> Dim:
        """Bytes of scratch a thread needs."""
        entries = tiling.rows * (self._window_rows * self.tile.table_stride + 2)
        return entries * ADDRESS_BYTES + channels * self.tile.element.itemsize + CACHE_LINE

    def cost(self, tiling: Tiling, target: Target) -> Dim:
        """About how many nanoseconds a tile takes."""
        per_nanosecond = 3 * target.vector_bits // self.tile.element.bits
        terms = math.prod(self.window) + 4
        return tiling.rows * self.tile.rows * tiling.panels * self.tile.columns * terms // per_nanosecond + 500

    def source(self, epilogue: Epilogue, label: str = "depthwise") -> KernelSource:
        """The kernel; its parameters are those of `DepthwiseForm.source`."""
        tile, axes = self.tile, axes_of(len(self.window))
        parameters = (
            Parameter("x", f"{tile.dtype}*"),
            Parameter("w", f"{tile.dtype}*"),
            *epilogue.parameters,
            *sizes("m_size", "n_size", *sizes_of(axes), "rows_per_tile", "panels_per_tile"),
        )
        return kernel_source(label, parameters, _body(tile, axes, epilogue, self.last_columns))

    @property
    def _window_rows(self) -> int:
        return math.prod(self.window[:-1])


def _body(tile: DepthwiseRowShape, axes: str, epilogue: Epilogue, last_columns: int | None) -> list[str]:
    names = [f"at_{axis}" for axis in axes] + ["starts"]
    window_rows = " * ".join(f"window_{axis}" for axis in axes[:-1]) or "1"
    work = [
        f"first_column = panel_index * {tile.columns}",
        f"columns = min({tile.columns}, n_size - first_column)",
        "first_row = load(block_rows, block)",
        "rows = load(block_rows, rows_per_tile + block)",
        "block_table = offset(table, block * block_entries)",
        "weights = offset(w, first_column)",
        f"{tile.name}(block_table, window_rows, first_column, columns, weights, n_size, sums)",
        *epilogue_block(tile, epilogue, "0", last_columns),
        *sum_block(tile, epilogue, "first_block + block", last_columns),
    ]
    return [
        f"window_rows = {window_rows}",
        f"block_entries = window_rows * {tile.table_stride}",
        "block_rows = scratch(ctx, int64, 0)",
        "table = offset(block_rows, 2 * rows_per_tile)",
        f"zeros = scratch(ctx, {tile.dtype}, rows_per_tile * (block_entries + 2) * {ADDRESS_BYTES})",
        "for i in range(n_size):",
        f"    store(zeros, i, {tile.dtype}(0.0))",
        *[f"{name} = stack(int64, {tile.table_stride})" for name in names],
        f"sums = stack({tile.dtype}, {tile.rows * tile.columns})",
        f"pixel_bytes = n_size * {tile.element.itemsize}",
        "row = 0",
        "column_origin = 0",
        f"segments = (out_x + {tile.rows - 1}) // {tile.rows}",
        "all_blocks = int_div(m_size, out_x) * segments",
        *tile_counts(tile.columns, batched=False),
        "for tile in range(begin, end):",
        "    row_group = int_div(tile, panel_groups)",
        "    first_panel = int_rem(tile, panel_groups) * panels_per_tile",
        "    first_block = row_group * rows_per_tile",
        "    block_count = min(rows_per_tile, all_blocks - first_block)",
        *indent(_fill_table(tile, axes)),
        "    end_panel = min(first_panel + panels_per_tile, panels)",
        f"    for strip in range(first_panel, end_panel, {_STRIP_PANELS}):",
        "        for block in range(block_count):",
        f"            for panel_index in range(strip, min(strip + {_STRIP_PANELS}, end_panel)):",
        *indent(work, 4),
    ]


def _fill_table(tile: DepthwiseRowShape, axes: str) -> list[str]:
    """Lines that fill the tile's table, and note for each block its first output pixel and how many it has."""
    lines = ["line = int_div(first_block, segments)", "segment = first_block - line * segments", "rest = line"]
    for axis in reversed(axes[:-1]):
        lines += [f"pixel_{axis} = int_rem(rest, out_{axis})", f"rest = int_div(rest, out_{axis})"]
    position = "image"
    for axis in axes:
        position = f"({position} * in_{axis} + {axis}_index)"
    call = ["offset(table, block * block_entries)", "starts", "address(zeros)"]
    step = "in_x * pixel_bytes"
    outer = []
    for axis in reversed(axes[:-1]):
        outer.append(f"at_{axis}, in_{axis}, window_{axis}, dilation_{axis}, {step} * dilation_{axis}")
        step = f"in_{axis} * {step}"
    call += [*reversed(outer), "at_x, in_x, 1, 1, 0"]
    return [
        *lines,
        "image = rest",
        "for block in range(block_count):",
        f"    first_pixel = segment * {tile.rows}",
        "    store(block_rows, block, line * out_x + first_pixel)",
        f"    store(block_rows, rows_per_tile + block, min({tile.rows}, out_x - first_pixel))",
        *[f"    {axis}_index = pixel_{axis} * stride_{axis} - pad_{axis}" for axis in axes[:-1]],
        "    x_index = first_pixel * stride_x - pad_x",
        f"    start = address(x) + {position} * pixel_bytes",
        f"    for i in range({tile.table_stride}):",
        *[f"        store(at_{axis}, i, {axis}_index)" for axis in axes[:-1]],
        "        store(at_x, i, x_index + i)",
        "        store(starts, i, start + i * pixel_bytes)",
        f"    {tap_addresses_name(len(axes), tile.table_stride)}({', '.join(call)})",
        "    segment += 1",
        "    if segment == segments:",
        "        segment = 0",
        "        line += 1",
        *indent(next_pixel(axes[:-1]), 2),
    ]
