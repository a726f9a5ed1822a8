"""Prints depthwise convolutions of channels-last images, [N, spatial..., C]: one window for each channel."""

from __future__ import annotations

from dataclasses import dataclass

from onnxsmith_compiler.codegen.contraction_source import (
    Tiling,
    ceil_div,
    ceil_to,
    epilogue_loops,
    indent,
    kernel_source,
    sizes,
    tile_counts,
    tile_position,
)
from onnxsmith_compiler.codegen.depthwise_tile import DepthwiseShape
from onnxsmith_compiler.codegen.epilogue import Epilogue
from onnxsmith_compiler.codegen.pixel_table import PixelTable
from onnxsmith_compiler.codegen.source import KernelSource, Parameter
from onnxsmith_compiler.codegen.target import Target
from onnxsmith_compiler.ir.dim import Dim

_ROWS_PER_TILE = 96


@dataclass(frozen=True)
class DepthwiseForm:
    """What is baked into a depthwise kernel: its tile and the `window`'s extent on 1 to 3 spatial axes."""

    tile: DepthwiseShape
    window: tuple[int, ...]

    @property
    def table(self) -> PixelTable:
        return PixelTable(self.window, False, self.tile.rows, self.tile.element)

    def tiles(self, pixels: Dim, channels: Dim, tiling: Tiling) -> Dim:
        """The number of tiles of a step; `pixels`: of all output images."""
        panels = ceil_div(channels, self.tile.columns)
        return ceil_div(pixels, tiling.rows) * ceil_div(panels, tiling.panels)

    def scratch(self, channels: Dim, tiling: Tiling) -> Dim:
        """Bytes of scratch a thread needs."""
        return self.table.scratch(channels, tiling)

    def cost(self, tiling: Tiling, target: Target) -> Dim:
        """About how many nanoseconds a tile takes."""
        per_nanosecond = 2 * target.vector_bits // self.tile.element.bits
        taps = self.table.taps
        return tiling.rows * tiling.panels * self.tile.columns * (taps + 4) // per_nanosecond + 500


def depthwise_tiling(form: DepthwiseForm, pixels: int | None, channels: int | None) -> Tiling:
    """Rows and panels of a tile for sizes that may be unknown (None)."""
    rows = _ROWS_PER_TILE
    if pixels is not None:
        rows = -(-pixels // max(1, round(pixels / rows)))
    panels = 1 if channels is None else -(-channels // form.tile.columns)
    return Tiling(ceil_to(max(1, rows), form.tile.rows), max(1, panels))


def depthwise_source(form: DepthwiseForm, epilogue: Epilogue, label: str = "depthwise") -> KernelSource:
    """The kernel of `form`.

    Parameters, in order: `x` (the images, dense), `w` ([window..., C], dense), the epilogue's, m_size
    (output pixels of all images), n_size (channels), then for each spatial axis, outermost first, the sizes
    of input, output and window, stride, dilation and padding before it, and rows_per_tile, panels_per_tile
    (a Tiling). The epilogue's m counts the output pixels, n the channels; batch is 0.
    """
    tile, table = form.tile, form.table
    parameters = (
        Parameter("x", f"{tile.dtype}*"),
        Parameter("w", f"{tile.dtype}*"),
        *epilogue.parameters,
        *sizes("m_size", "n_size", *table.sizes, "rows_per_tile", "panels_per_tile"),
    )
    block_table = "offset(table, block * block_entries)"
    call = f"{tile.name}({block_table}, taps, first_column, columns, w, n_size, sums)"
    panel = [
        f"first_column = panel_index * {tile.columns}",
        f"columns = min({tile.columns}, n_size - first_column)",
        f"for block in range((row_count + {tile.rows - 1}) // {tile.rows}):",
        f"    row = block * {tile.rows}",
        f"    rows = min({tile.rows}, row_count - row)",
        f"    {call}",
        *indent(epilogue_loops(tile, epilogue, "columns", "0")),
    ]
    per_tile = [
        *tile_position(tile.columns, False),
        *table.fill("0"),
        "for panel_index in range(first_panel, end_panel):",
        *indent(panel),
    ]
    body = [
        "channels = n_size",
        "depth = n_size",
        "column_origin = 0",
        *table.setup(),
        f"sums = stack({tile.dtype}, {tile.rows * tile.columns})",
        *tile_counts(tile.columns),
        "for tile in range(begin, end):",
        *indent(per_tile),
    ]
    return kernel_source(label, parameters, body)
