"""Prints convolutions of channels-last images, [N, spatial..., C], as matrix products whose rows are pixels.

No matrix of windows is stored: register tiles read the pixels through a table of addresses (`pixel_table`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from onnxsmith_compiler.codegen.contraction_source import (
    Sweep,
    indent,
    kernel_source,
    panel_sweep,
    sizes,
    tile_counts,
    tile_position,
    widened_bytes,
)
from onnxsmith_compiler.codegen.epilogue import Epilogue
from onnxsmith_compiler.codegen.pixel_table import PixelTable
from onnxsmith_compiler.codegen.source import KernelSource, Parameter
from onnxsmith_compiler.codegen.target import Target
from onnxsmith_compiler.codegen.tile_shapes import TileShape
from onnxsmith_compiler.codegen.tiling import Tiling, ceil_div, choose_tiling
from onnxsmith_compiler.ir.dim import Dim

_MERGED_CHANNELS = 16


@dataclass(frozen=True)
class ConvForm:
    """What is baked into a convolution kernel.

    `window`: the extent of the window on each of the 1 to 3 spatial axes. `merged`: the taps of the
    innermost axis are one run of memory, which needs one group and dilation 1 there; it pays where channels
    are few. `last_columns`: what `columns_of_last_panel` says.
    """

    tile: TileShape
    window: tuple[int, ...]
    merged: bool
    last_columns: int | None

    @property
    def table(self) -> PixelTable:
        return PixelTable(self.window, self.merged, self.tile.rows, self.tile.left)

    def tiles(self, pixels: Dim, outputs: Dim, groups: int, tiling: Tiling) -> Dim:
        """The number of tiles of a step; `pixels`: of all output images, `outputs`: channels of one group."""
        panels = ceil_div(outputs, self.tile.columns)
        return groups * ceil_div(pixels, tiling.rows) * ceil_div(panels, tiling.panels)

    def scratch(self, channels: Dim, tiling: Tiling) -> Dim:
        """Bytes of scratch a thread needs; `channels`: of one group."""
        depth = channels * self.table.run
        return self.table.scratch(depth, tiling) + widened_bytes(self.tile, self.table.taps * depth)

    def cost(self, channels: Dim, tiling: Tiling, target: Target) -> Dim:
        """About how many nanoseconds a tile takes; `channels`: of one group."""
        per_nanosecond = 6 * target.vector_bits // self.tile.left.bits
        depth = channels * self.table.taps * self.table.run
        return (tiling.rows * tiling.panels * self.tile.columns * depth) // per_nanosecond + 500


def conv_tiling(
    form: ConvForm, pixels: int | None, outputs: int | None, channels: int | None, target: Target
) -> Tiling:
    """Rows and panels of a tile for sizes that may be unknown (None); `outputs`, `channels`: of one group."""
    depth = None if channels is None else channels * form.table.taps * form.table.run
    return choose_tiling(form.tile, pixels, outputs, depth, channels, target)


def merges_taps(channels: int | None, groups: int, dilations: Sequence[int]) -> bool:
    """Whether a convolution should be `merged`; `channels`: of the image, None where unknown."""
    return channels is not None and channels < _MERGED_CHANNELS and groups == 1 and dilations[-1] == 1


def conv_source(form: ConvForm, epilogue: Epilogue, label: str = "conv") -> KernelSource:
    """The kernel of `form`.

    Parameters, in order: `x` (the images, dense), `w` (panels, as `ops.packed.PackedConv` has them), the
    epilogue's, m_size (output pixels of all images), n_size (output channels of a group), channels (of a
    pixel of x), group_channels (of a group), then for each spatial axis, outermost first, the sizes of
    input, output and window, stride, dilation and padding before it, and rows_per_tile, panels_per_tile (a
    Tiling). The epilogue's m counts the output pixels, n the output channels of all groups, batch the groups.
    """
    tile, table = form.tile, form.table
    parameters = (
        Parameter("x", f"{tile.left}*"),
        Parameter("w", f"{tile.panel_element}*"),
        *epilogue.parameters,
        *sizes("m_size", "n_size", "channels", "group_channels"),
        *sizes(*table.sizes, "rows_per_tile", "panels_per_tile"),
    )
    last = f"load(table, block * block_entries + (taps - 1) * {table.stride} + rows - 1)"
    sweep = Sweep(
        taps="taps",
        table="offset(table, block * block_entries)",
        row_bytes=f"stride_x * channels * {tile.left.itemsize}",
        follow=f"{last} + depth * {tile.left.itemsize}",
    )
    per_tile = [
        *tile_position(batched=True),
        f"b_matrix = offset(w, batch * panels * taps * depth * {tile.columns})",
        "column_origin = batch * n_size",
        *table.fill("batch * group_channels"),
        *panel_sweep(tile, epilogue, sweep, last_columns=form.last_columns, batch="batch"),
    ]
    body = [
        f"depth = group_channels * {table.run_text}",
        *table.setup(),
        *([] if tile.wide is None else [f"wide = scratch(ctx, {tile.dtype}, {table.end_text})"]),
        f"sums = stack({tile.dtype}, {tile.rows * tile.columns})",
        *tile_counts(tile.columns, batched=True),
        "for tile in range(begin, end):",
        *indent(per_tile),
    ]
    return kernel_source(label, parameters, body)
