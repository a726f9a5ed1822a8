"""Prints depthwise convolutions of a product that is never stored: of the 1 by 1 convolution that makes their channels.

A tile takes neighbouring lines of the output, a *band*, and some panels of channels. For each panel it multiplies the
lines of the input that the band depends on into scratch memory, with zeros for the padding around them, and then moves
the window over what is there. Lines at the edge of two bands are computed in both. Each element is the same chain of
multiply-adds as in a product that is stored.
"""

from __future__ import annotations

from dataclasses import dataclass

from onnxsmith_compiler.codegen.contraction_source import (
    ADDRESS_BYTES,
    CACHE_LINE,
    Sweep,
    epilogue_block,
    indent,
    kernel_source,
    panel_block,
    sizes,
    tile_counts,
)
from onnxsmith_compiler.codegen.depthwise_row_tile import DepthwiseRowShape
from onnxsmith_compiler.codegen.epilogue import Epilogue
from onnxsmith_compiler.codegen.pixel_sums import sum_block
from onnxsmith_compiler.codegen.pixel_table import sizes_of
from onnxsmith_compiler.codegen.source import KernelSource, Parameter
from onnxsmith_compiler.codegen.target import Target
from onnxsmith_compiler.codegen.tile_shapes import TileShape
from onnxsmith_compiler.codegen.tiling import TILES_PER_CORE, Tiling, part_count
from onnxsmith_compiler.ir.dim import Dim

_SHARE_OF_L2 = 4
"""The part of the second-level cache that a band's lines may take is one of so many."""


@dataclass(frozen=True)
class Lines:
    """How a window moves over images: sizes of input, output and window, strides, dilations and padding before.

    Of two axes each, lines first.
    """

    input: tuple[int, int]
    output: tuple[int, int]
    window: tuple[int, int]
    strides: tuple[int, int]
    dilations: tuple[int, int]
    before: tuple[int, int]

    def under(self, band: int) -> int:
        """How many lines of the input `band` lines of the output depend on."""
        return (band - 1) * self.strides[0] + (self.window[0] - 1) * self.dilations[0] + 1


@dataclass(frozen=True)
class ExpandedDepthwiseForm:
    """What is baked into the kernel: the tiles of the product and of the convolution.

    `last_columns`: what `columns_of_last_panel` says of the product, `last_channels` of the convolution. A Tiling's
    rows count lines of the output.
    """

    product: TileShape
    tile: DepthwiseRowShape
    last_columns: int | None
    last_channels: int | None

    @property
    def place(self) -> str:
        """Where the product's epilogue stores a result: a pointer and an element."""
        return f"line, (row + i) * {self.product.columns} + j"

    def tiles(self, images: Dim, channels: int, lines: Lines, tiling: Tiling) -> Dim:
        """The number of tiles of a step."""
        return images * (part_count(lines.output[0], tiling.rows) * part_count(self.panels(channels), tiling.panels))

    def panels(self, channels: int) -> int:
        return part_count(channels, self.product.columns)

    def tiling(self, channels: int, lines: Lines, target: Target) -> Tiling:
        """Lines and panels of a tile: bands as large as the cache allows, and enough tiles for all cores."""
        band = self.largest_band(lines, target)
        bands = max(part_count(lines.output[0], band), part_count(TILES_PER_CORE * target.cores, self.panels(channels)))
        return Tiling(part_count(lines.output[0], bands), 1)

    def largest_band(self, lines: Lines, target: Target) -> int:
        room = target.l2 // _SHARE_OF_L2 // (self._pitch(lines) * self._pixel_bytes)
        return max(1, (room - lines.under(1)) // lines.strides[0] + 1)

    def scratch(self, lines: Lines, tiling: Tiling) -> int:
        """Bytes of scratch a thread needs."""
        table = lines.window[0] * self.tile.table_stride * ADDRESS_BYTES
        return table + lines.under(tiling.rows) * self._pitch(lines) * self._pixel_bytes + CACHE_LINE

    def cost(self, depth: int, lines: Lines, tiling: Tiling, target: Target) -> int:
        """About how many nanoseconds a tile takes; `depth`: terms of a sum of the product."""
        per_nanosecond = 6 * target.vector_bits // self.product.element.bits
        expanded = lines.under(tiling.rows) * lines.input[1] * (depth + 2)
        moved = tiling.rows * lines.output[1] * 2 * (lines.window[0] * lines.window[1] + 4)
        return (expanded + moved) * tiling.panels * self.product.columns // per_nanosecond + 500

    def source(self, inner: Epilogue, epilogue: Epilogue) -> KernelSource:
        """The kernel.

        Parameters, in order: `a` (the images that are expanded, dense), `b` (the product's panels), those of its
        epilogue, which stores to `place`, `w` ([window..., C], dense), those of the convolution's epilogue, n_size
        (channels), k_size (of `a`), then for lines and pixels the sizes of input, output and window, stride, dilation
        and padding before it, and rows_per_tile, panels_per_tile (a Tiling).
        """
        parameters = (
            Parameter("a", f"{self.product.dtype}*"),
            Parameter("b", f"{self.product.panel_element}*"),
            *inner.parameters,
            Parameter("w", f"{self.tile.dtype}*"),
            *epilogue.parameters,
            *sizes("n_size", "k_size", *sizes_of("yx"), "rows_per_tile", "panels_per_tile"),
        )
        body = [*self._setup(), "for tile in range(begin, end):", *indent(self._tile(inner, epilogue))]
        return kernel_source("expanded_depthwise", parameters, body)

    @property
    def _pixel_bytes(self) -> int:
        return self.product.columns * self.product.element.itemsize

    def _pitch(self, lines: Lines) -> int:
        """Pixels of a line in scratch: what the last block reads may lie behind the image and its padding."""
        blocks = part_count(lines.output[1], self.tile.rows)
        reach = (blocks * self.tile.rows - 1) * self.tile.stride + self.tile.window
        return max(lines.before[1] + lines.input[1], reach)

    def _setup(self) -> list[str]:
        """Lines that lay out scratch memory: addresses of the pixels under the first window, and zeros beside lines."""
        tile, width = self.tile, self.product.columns
        reach = f"(segments * {tile.rows} - 1) * {tile.stride} + {tile.window}"
        sums = max(self.product.rows * width, tile.rows * tile.columns)
        return [
            "depth = k_size",
            f"pixel_bytes = depth * {tile.element.itemsize}",
            "column_origin = 0",
            f"segments = (out_x + {tile.rows - 1}) // {tile.rows}",
            f"pitch = max(pad_x + in_x, {reach})",
            "lines = (rows_per_tile - 1) * stride_y + (window_y - 1) * dilation_y + 1",
            "table = scratch(ctx, int64, 0)",
            f"expanded = scratch(ctx, {tile.dtype}, window_y * {tile.table_stride * ADDRESS_BYTES})",
            "for tap in range(window_y):",
            f"    for i in range({tile.table_stride}):",
            f"        place = address(expanded) + (tap * dilation_y * pitch + i) * {self._pixel_bytes}",
            f"        store(table, tap * {tile.table_stride} + i, place)",
            f"pixels = stack(int64, {self.product.table_stride})",
            f"sums = stack({tile.dtype}, {sums})",
            "for y in range(lines):",
            f"    line = offset(expanded, y * pitch * {width})",
            f"    for i in range(pad_x * {width}):",
            f"        store(line, i, {tile.dtype}(0.0))",
            f"    for i in range((pad_x + in_x) * {width}, pitch * {width}):",
            f"        store(line, i, {tile.dtype}(0.0))",
            *tile_counts(width, batched=False),
            "bands = int_div(out_y + rows_per_tile - 1, rows_per_tile)",
        ]

    def _tile(self, inner: Epilogue, epilogue: Epilogue) -> list[str]:
        width = self.product.columns
        return [
            "band = int_div(tile, panel_groups)",
            "first_panel = (tile - band * panel_groups) * panels_per_tile",
            "image = int_div(band, bands)",
            "first_line = (band - image * bands) * rows_per_tile",
            "line_count = min(rows_per_tile, out_y - first_line)",
            "first_y = first_line * stride_y - pad_y",
            "for panel_index in range(first_panel, min(first_panel + panels_per_tile, panels)):",
            f"    panel = offset(b, panel_index * depth * {width})",
            f"    panel_column = panel_index * {width}",
            "    made = 0",
            "    for y in range(line_count):",
            "        needed = y * stride_y + (window_y - 1) * dilation_y + 1",
            "        for under in range(made, needed):",
            f"            line = offset(expanded, (under * pitch + pad_x) * {width})",
            "            if first_y + under < 0 or first_y + under >= in_y:",
            f"                for i in range(in_x * {width}):",
            f"                    store(line, i, {self.tile.dtype}(0.0))",
            "            else:",
            "                first_row = (image * in_y + first_y + under) * in_x",
            *indent(self._expand(inner), 4),
            "        made = needed",
            "        first_row = (image * out_y + first_line + y) * out_x",
            *indent(self._move(epilogue), 2),
        ]

    def _expand(self, epilogue: Epilogue) -> list[str]:
        """Lines that multiply the pixels of a line, `first_row` of `a` and the following, by the panel."""
        shape = self.product
        sweep = Sweep("1", "pixels", "", "")
        return [
            "first_column = panel_column",
            f"for row in range(0, in_x, {shape.rows}):",
            f"    rows = min({shape.rows}, in_x - row)",
            "    start = address(offset(a, (first_row + row) * depth))",
            f"    for i in range({shape.rows}):",
            "        store(pixels, i, start + min(i, rows - 1) * pixel_bytes)",
            "    ahead = start + rows * pixel_bytes",
            f"    share = {shape.rows * shape.element.itemsize}",
            *indent(panel_block(shape, epilogue, sweep, self.last_columns, "0")),
        ]

    def _move(self, epilogue: Epilogue) -> list[str]:
        """Lines that move the window along an output line, over the `part` of the panel that a tile takes."""
        tile, width = self.tile, self.product.columns
        block = [
            f"row = segment * {tile.rows}",
            f"rows = min({tile.rows}, out_x - row)",
            f"first = (y * stride_y * pitch + row * {tile.stride}) * {width} + first_column - panel_column",
            f"{tile.name}(table, window_y, first, columns, offset(w, first_column), n_size, sums)",
            *epilogue_block(tile, epilogue, "0", self.last_channels),
            *sum_block(tile, epilogue, "(image * out_y + first_line + y) * segments + segment", self.last_channels),
        ]
        return [
            f"for first_column in range(panel_column, min(panel_column + {width}, n_size), {tile.columns}):",
            f"    columns = min({tile.columns}, n_size - first_column)",
            "    for segment in range(segments):",
            *indent(block, 2),
        ]
