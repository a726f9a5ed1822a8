"""Prints depthwise convolutions of channels-last images, [N, spatial..., C]: one window for each channel."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from onnxsmith_compiler.codegen.contraction_source import (
    columns_of_last_panel,
    epilogue_block,
    indent,
    kernel_source,
    sizes,
    tile_counts,
    tile_position,
)
from onnxsmith_compiler.codegen.depthwise_row_source import DepthwiseRowForm
from onnxsmith_compiler.codegen.depthwise_row_tile import depthwise_row_shape
from onnxsmith_compiler.codegen.depthwise_tile import DepthwiseShape, depthwise_shape
from onnxsmith_compiler.codegen.epilogue import Epilogue
from onnxsmith_compiler.codegen.pixel_table import PixelTable
from onnxsmith_compiler.codegen.source import KernelSource, Parameter
from onnxsmith_compiler.codegen.target import Target
from onnxsmith_compiler.codegen.tiling import Tiling, ceil_div, ceil_to
from onnxsmith_compiler.ir import dim as dims
from onnxsmith_compiler.ir.dim import Dim

_ROWS_PER_TILE = 96


@dataclass(frozen=True)
class DepthwiseForm:
    """What is baked into a depthwise kernel: its tile and the `window`'s extent on 1 to 3 spatial axes.

    `last_columns`: what `columns_of_last_panel` says.
    """

    tile: DepthwiseShape
    window: tuple[int, ...]
    last_columns: int | None

    @property
    def table(self) -> PixelTable:
        return PixelTable(self.window, False, self.tile.rows, self.tile.element)

    def tiles(self, positions: Sequence[Dim], channels: Dim, tiling: Tiling) -> Dim:
        """The number of tiles of a step; `positions`: images, then the output's spatial sizes."""
        panels = ceil_div(channels, self.tile.columns)
        return ceil_div(dims.product(positions), tiling.rows) * ceil_div(panels, tiling.panels)

    @property
    def row_unit(self) -> int:
        """What a Tiling's rows are multiples of."""
        return self.tile.rows

    def rows(self, positions: Sequence[Dim]) -> Dim:
        """All that a Tiling's rows count."""
        return dims.product(positions)

    def tiling(self, positions: Sequence[Dim], channels: Dim, target: Target) -> Tiling:
        """Rows and panels of a tile."""
        rows, pixels = _ROWS_PER_TILE, dims.product(positions)
        if isinstance(pixels, int):
            rows = -(-pixels // max(1, round(pixels / rows)))
        panels = -(-channels // self.tile.columns) if isinstance(channels, int) else 1
        return Tiling(ceil_to(max(1, rows), self.tile.rows), max(1, panels))

    def scratch(self, channels: Dim, tiling: Tiling) -> Dim:
        """Bytes of scratch a thread needs."""
        return self.table.scratch(channels, tiling)

    def cost(self, tiling: Tiling, target: Target) -> Dim:
        """About how many nanoseconds a tile takes."""
        per_nanosecond = 2 * target.vector_bits // self.tile.element.bits
        taps = self.table.taps
        return tiling.rows * tiling.panels * self.tile.columns * (taps + 4) // per_nanosecond + 500

    def source(self, epilogue: Epilogue, label: str = "depthwise") -> KernelSource:
        """The kernel.

        Parameters, in order: `x` (the images, dense), `w` ([window..., C], dense), the epilogue's, m_size (output
        pixels of all images), n_size (channels), then for each spatial axis, outermost first, the sizes of input,
        output and window, stride, dilation and padding before it, and rows_per_tile, panels_per_tile (a Tiling). The
        epilogue's m counts the output pixels, n the channels; batch is 0.
        """
        tile, table = self.tile, self.table
        parameters = (
            Parameter("x", f"{tile.dtype}*"),
            Parameter("w", f"{tile.dtype}*"),
            *epilogue.parameters,
            *sizes("m_size", "n_size", *table.sizes, "rows_per_tile", "panels_per_tile"),
        )
        return kernel_source(label, parameters, _body(tile, table, epilogue, self.last_columns))


def depthwise_form(
    target: Target,
    dtype: str,
    channels: Dim,
    window: Sequence[int],
    strides: Sequence[int],
    dilations: Sequence[int],
) -> DepthwiseForm | DepthwiseRowForm:
    """The kernel for a depthwise convolution in `dtype`, "float32" or "float64"."""
    row = depthwise_row_shape(target, dtype, window[-1], strides[-1], dilations[-1])
    if row is not None:
        return DepthwiseRowForm(row, tuple(window), columns_of_last_panel(row, channels))
    tile = depthwise_shape(target, dtype)
    return DepthwiseForm(tile, tuple(window), columns_of_last_panel(tile, channels))


def _body(tile: DepthwiseShape, table: PixelTable, epilogue: Epilogue, last_columns: int | None) -> list[str]:
    block_table = "offset(table, block * block_entries)"
    panel = [
        f"first_column = panel_index * {tile.columns}",
        f"columns = min({tile.columns}, n_size - first_column)",
        f"for block in range((row_count + {tile.rows - 1}) // {tile.rows}):",
        f"    row = block * {tile.rows}",
        f"    rows = min({tile.rows}, row_count - row)",
        f"    {tile.name}({block_table}, taps, first_column, columns, offset(w, first_column), n_size, sums)",
        *indent(epilogue_block(tile, epilogue, "0", last_columns)),
    ]
    per_tile = [
        *tile_position(batched=False),
        *table.fill("0"),
        "for panel_index in range(first_panel, end_panel):",
        *indent(panel),
    ]
    return [
        "channels = n_size",
        "depth = n_size",
        "column_origin = 0",
        *table.setup(),
        f"sums = stack({tile.dtype}, {tile.rows * tile.columns})",
        *tile_counts(tile.columns, batched=False),
        "for tile in range(begin, end):",
        *indent(per_tile),
    ]
