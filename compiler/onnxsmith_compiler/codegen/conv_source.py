"""Prints convolutions of channels-last images, [N, spatial..., C], as matrix products whose rows are pixels.

No matrix of windows is stored: a tile's table holds, for every output pixel and tap, the address of the
input pixel, or that of a row of zeros where the tap falls into the padding.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from onnxsmith_compiler.codegen.contraction_source import (
    ADDRESS_BYTES,
    CACHE_LINE,
    Sweep,
    Tiling,
    block_plan,
    ceil_div,
    choose_tiling,
    indent,
    kernel_source,
    panel_sweep,
    sizes,
    tile_counts,
    tile_position,
)
from onnxsmith_compiler.codegen.epilogue import Epilogue
from onnxsmith_compiler.codegen.source import KernelSource, Parameter
from onnxsmith_compiler.codegen.target import Target
from onnxsmith_compiler.codegen.tiles import TileShape
from onnxsmith_compiler.ir.dim import Dim

_AXES = "zyx"
_MERGED_CHANNELS = 16


@dataclass(frozen=True)
class ConvForm:
    """What is baked into a convolution kernel.

    `window`: the extent of the window on each of the 1 to 3 spatial axes. `merged`: the taps of the
    innermost axis are one run of memory, which needs one group and dilation 1 there; it pays where channels
    are few. `whole_panels`: the output channels of a group are a multiple of the tile's columns.
    """

    tile: TileShape
    window: tuple[int, ...]
    merged: bool
    whole_panels: bool

    @property
    def axes(self) -> str:
        return _AXES[-len(self.window) :]

    @property
    def tap_window(self) -> tuple[int, ...]:
        """The extents of the axes that have taps of their own."""
        return self.window[:-1] if self.merged else self.window

    @property
    def taps(self) -> int:
        count = 1
        for extent in self.tap_window:
            count *= extent
        return count

    def tiles(self, pixels: Dim, outputs: Dim, groups: int, tiling: Tiling) -> Dim:
        """The number of tiles of a step; `pixels`: of all output images, `outputs`: channels of one group."""
        panels = ceil_div(outputs, self.tile.columns)
        return groups * ceil_div(pixels, tiling.rows) * ceil_div(panels, tiling.panels)

    def scratch(self, channels: Dim, tiling: Tiling) -> Dim:
        """Bytes of scratch a thread needs; `channels`: of one group."""
        run = channels * (self.window[-1] if self.merged else 1) * self.tile.element.itemsize
        copies = self._blocks(tiling) * self.taps * self.tile.rows if self.merged else 0
        return self._table_bytes(tiling) + (1 + copies) * (run + CACHE_LINE)

    def _blocks(self, tiling: Tiling) -> int:
        return -(-tiling.rows // self.tile.rows)

    def _table_bytes(self, tiling: Tiling) -> int:
        return self._blocks(tiling) * self.taps * self.tile.table_stride * ADDRESS_BYTES

    def cost(self, channels: Dim, tiling: Tiling, target: Target) -> Dim:
        """About how many nanoseconds a tile takes; `channels`: of one group."""
        per_nanosecond = 6 * target.vector_bits // self.tile.element.bits
        depth = channels * self.taps * (self.window[-1] if self.merged else 1)
        return (tiling.rows * tiling.panels * self.tile.columns * depth) // per_nanosecond + 500


def conv_tiling(
    form: ConvForm, pixels: int | None, outputs: int | None, channels: int | None, target: Target
) -> Tiling:
    """Rows and panels of a tile for sizes that may be unknown (None); `outputs`, `channels`: of one group."""
    depth = None if channels is None else channels * form.taps * (form.window[-1] if form.merged else 1)
    return choose_tiling(form.tile, pixels, outputs, depth, channels, target)


def merges_taps(channels: int | None, groups: int, dilations: Sequence[int]) -> bool:
    """Whether a convolution should be `merged`; `channels`: of the image, None where unknown."""
    return channels is not None and channels < _MERGED_CHANNELS and groups == 1 and dilations[-1] == 1


def conv_source(form: ConvForm, epilogue: Epilogue, label: str = "conv") -> KernelSource:
    """The kernel of `form`.

    Parameters, in order: `x` (the images, dense), `w` (panels, as `packing.pack_conv` lays them out), the
    epilogue's, m_size (output pixels of all images), n_size (output channels of a group), channels (of a
    pixel of x), group_channels (of a group), then for each spatial axis, outermost first, the sizes of
    input and output, stride, dilation and padding before it, and rows_per_tile, panels_per_tile (a Tiling).
    The epilogue's m counts the output pixels, n the output channels of all groups, batch the groups.
    """
    dtype = form.tile.dtype
    geometry = [f"{name}_{axis}" for axis in form.axes for name in ("in", "out", "stride", "dilation", "pad")]
    parameters = (
        Parameter("x", f"{dtype}*"),
        Parameter("w", f"{dtype}*"),
        *epilogue.parameters,
        *sizes("m_size", "n_size", "channels", "group_channels"),
        *sizes(*geometry, "rows_per_tile", "panels_per_tile"),
    )
    return kernel_source(label, parameters, _Printer(form, epilogue).body())


class _Printer:
    def __init__(self, form: ConvForm, epilogue: Epilogue) -> None:
        self.form, self.epilogue = form, epilogue
        self.element = form.tile.element.itemsize
        self.stride = form.tile.table_stride

    def body(self) -> list[str]:
        form = self.form
        tile = form.tile
        taps = form.taps
        run = f"group_channels * {form.window[-1]}" if form.merged else "group_channels"
        block_table = f"{taps * self.stride}"
        sweep = Sweep(
            taps=str(taps),
            table=f"offset(table, block * {block_table})",
            row_bytes=f"stride_x * channels * {self.element}",
            follow=f"load(table, block * {block_table} + {(taps - 1) * self.stride} + rows - 1)"
            f" + depth * {self.element}",
        )
        pixels = " * ".join(f"out_{axis}" for axis in form.axes)
        per_tile = [
            *tile_position(tile.columns, True),
            f"b_matrix = offset(w, batch * panels * {taps} * depth * {tile.columns})",
            "column_origin = batch * n_size",
            *block_plan(tile),
            *self._table(),
            *panel_sweep(tile, self.epilogue, sweep, whole_panels=form.whole_panels, batch="batch"),
        ]
        return [
            f"table_bytes = (rows_per_tile + {tile.rows - 1}) // {tile.rows}"
            f" * {taps * self.stride * ADDRESS_BYTES}",
            "table = scratch(ctx, int64, 0)",
            f"zeros = scratch(ctx, {tile.dtype}, table_bytes)",
            f"sums = stack({tile.dtype}, {tile.rows * tile.columns})",
            *[f"at_{axis} = stack(int64, {self.stride})" for axis in form.axes],
            f"images = stack(int64, {self.stride})",
            f"depth = {run}",
            f"pitch = (depth + {CACHE_LINE // self.element - 1}) // {CACHE_LINE // self.element}"
            f" * {CACHE_LINE // self.element}",
            *(
                [f"copies = scratch(ctx, {tile.dtype}, table_bytes + pitch * {self.element})"]
                if form.merged
                else []
            ),
            "for i in range(depth):",
            f"    store(zeros, i, {tile.dtype}(0.0))",
            "nowhere = address(zeros)",
            f"image_pixels = {pixels}",
            *tile_counts(tile.columns),
            "for tile in range(begin, end):",
            *indent(per_tile),
        ]

    def _table(self) -> list[str]:
        """Lines that fill the tile's table, block by block."""
        axes = self.form.axes
        position = ["image = int_div(first_row, image_pixels)", "rest = first_row - image * image_pixels"]
        for axis in reversed(axes[1:]):
            position += [f"pixel_{axis} = int_rem(rest, out_{axis})", f"rest = int_div(rest, out_{axis})"]
        return [
            *position,
            f"pixel_{axes[0]} = rest",
            "row = 0",
            "for block in range(blocks):",
            "    rows = min(tall if block < tall_blocks else tall - 2, row_count - row)",
            "    row += rows",
            *indent(self._positions()),
            f"    slots = block * {self.form.taps * self.stride}",
            *indent(self._addresses()),
            *(indent(self._edges()) if self.form.merged else []),
        ]

    def _positions(self) -> list[str]:
        """Lines that note where the windows of a block's rows begin; entries past the last row repeat it."""
        axes = self.form.axes
        size = " * ".join([f"in_{axis}" for axis in axes])
        names = [f"at_{axis}" for axis in axes] + ["images"]
        return [
            "for i in range(rows):",
            *[f"    store(at_{axis}, i, pixel_{axis} * stride_{axis} - pad_{axis})" for axis in axes],
            f"    start = image * {size} * channels + batch * group_channels",
            f"    store(images, i, address(x) + start * {self.element})",
            *indent(_next_pixel(axes)),
            f"for i in range(rows, {self.stride}):",
            *[f"    store({name}, i, load({name}, rows - 1))" for name in names],
        ]

    def _addresses(self) -> list[str]:
        """Lines that fill a block's part of the table: all taps for all rows."""
        form = self.form
        tested = form.axes[: len(form.tap_window)]
        lines = []
        for depth, (axis, extent) in enumerate(zip(tested, form.tap_window, strict=True)):
            lines += indent([f"for tap_{axis} in range({extent}):"], depth)
        tap = "0"
        for axis, extent in zip(tested, form.tap_window, strict=True):
            tap = f"tap_{axis}" if tap == "0" else f"({tap} * {extent} + tap_{axis})"
        inner = [f"for i in range({self.stride}):"]
        inside, place = [], ""
        for axis in form.axes:
            step = f" + tap_{axis} * dilation_{axis}" if axis in tested else ""
            inner.append(f"    {axis}_index = load(at_{axis}, i){step}")
            place = f"({place} * in_{axis} + {axis}_index)" if place else f"{axis}_index"
            if axis in tested:
                inside.append(f"({axis}_index >= 0) & ({axis}_index < in_{axis})")
        inner.append(f"    place = load(images, i) + {place} * channels * {self.element}")
        if inside:
            inner.append(f"    place = select({' & '.join(inside)}, place, nowhere)")
        inner.append(f"    store(table, slots + {tap} * {self.stride} + i, place)")
        return [*lines, *indent(inner, len(tested))]

    def _edges(self) -> list[str]:
        """Lines that replace runs of merged taps that leave the image sideways by copies, zeros outside."""
        extent = self.form.window[-1]
        taps = self.form.taps
        return [
            f"for i in range({self.form.tile.rows}):",
            "    left = load(at_x, i)",
            f"    if left < 0 or left + {extent} > in_x:",
            f"        for tap in range({taps}):",
            f"            slot = slots + tap * {self.stride} + i",
            "            place = load(table, slot)",
            "            if place != nowhere:",
            f"                number = (block * {taps} + tap) * {self.form.tile.rows} + i",
            "                copy = offset(copies, number * pitch)",
            f"                source = offset(x, (place - address(x)) // {self.element})",
            "                for j in range(depth):",
            f"                    store(copy, j, {self.form.tile.dtype}(0.0))",
            f"                inside = min({extent}, in_x - left) * channels",
            "                for j in range(max(0, -left) * channels, inside):",
            "                    store(copy, j, load(source, j))",
            "                store(table, slot, address(copy))",
        ]


def _next_pixel(axes: str) -> list[str]:
    """Lines that step from one output pixel to the next, in row-major order through the images."""
    outer, inner = axes[:-1], axes[-1]
    carry = _next_pixel(outer) if outer else ["image += 1"]
    return [
        f"pixel_{inner} += 1",
        f"if pixel_{inner} == out_{inner}:",
        f"    pixel_{inner} = 0",
        *indent(carry),
    ]
