"""Prints convolutions of 3 by 3 windows moved by one, after Winograd: fewer multiplications for more memory.

The output is cut into blocks of 2 by 2 or 4 by 4 pixels. A step's tile is a group of blocks by a group of panels:
the patches that its blocks depend on are transformed, each element of the transform is a matrix product of its own
(blocks by input channels by output channels), and the products are transformed back into pixels.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from onnxsmith_compiler.codegen.contraction_source import (
    ADDRESS_BYTES,
    CACHE_LINE,
    epilogue_columns,
    indent,
    kernel_source,
    sizes,
    tile_counts,
    tile_position,
)
from onnxsmith_compiler.codegen.epilogue import Epilogue
from onnxsmith_compiler.codegen.pixel_table import PixelTable
from onnxsmith_compiler.codegen.source import KernelSource, Parameter
from onnxsmith_compiler.codegen.target import Target
from onnxsmith_compiler.codegen.tile_shapes import TileShape, tile_shape
from onnxsmith_compiler.codegen.tiling import Tiling, ceil_div, ceil_to
from onnxsmith_compiler.codegen.winograd_transforms import BLOCKS, WINDOW, input_name, output_name
from onnxsmith_compiler.ir.dim import Dim

_ELEMENT_BYTES = 4
_LINE_ELEMENTS = CACHE_LINE // _ELEMENT_BYTES
# What a tile of a step takes at the most, in register tiles: bounds scratch memory.
MOST_BLOCK_GROUPS = 8
# Measured: a core does 3 to 7 multiply-adds while a byte comes from beyond its own caches.
_MULTIPLY_ADDS_PER_FAR_BYTE = 6
# Measured: for each output pixel and channel, both transforms and their stores take as long as so many.
_MULTIPLY_ADDS_PER_TRANSFORMED = 32
_TYPICAL_EXTENT = 56
_FEWEST_ROWS = 4
_WORTHWHILE = 0.95


@dataclass(frozen=True)
class WinogradForm:
    """What is baked into a kernel: outputs are computed in blocks of `block` by `block` pixels.

    `whole_panels`: the output channels are a multiple of the tile's columns.
    """

    tile: TileShape
    block: int
    whole_panels: bool

    @property
    def patch(self) -> int:
        """The extent of the inputs that a block depends on, on each axis."""
        return self.block + WINDOW - 1

    @property
    def elements(self) -> int:
        return self.patch**2

    @property
    def table(self) -> PixelTable:
        return PixelTable((self.patch, self.patch), False, self.tile.rows, self.tile.element)

    def tiles(self, blocks: Dim, outputs: Dim, tiling: Tiling) -> Dim:
        """The number of tiles of a step; `blocks`: of all output images."""
        return ceil_div(blocks, tiling.rows) * ceil_div(ceil_div(outputs, self.tile.columns), tiling.panels)

    def scratch(self, channels: Dim, tiling: Tiling) -> Dim:
        """Bytes of scratch a thread needs."""
        addresses = ceil_to(tiling.rows * ADDRESS_BYTES, CACHE_LINE)
        elements = (channels + 2 * _LINE_ELEMENTS) + tiling.panels * self.tile.columns
        return (
            self.table.scratch(channels, tiling) + addresses + self.elements * tiling.rows * elements * _ELEMENT_BYTES
        )

    def cost(self, channels: Dim, tiling: Tiling, target: Target) -> Dim:
        """About how many nanoseconds a tile takes."""
        per_nanosecond = 4 * target.vector_bits // self.tile.element.bits
        products = tiling.panels * self.tile.columns * channels
        return self.elements * tiling.rows * (products + 8 * channels) // per_nanosecond + 500


def _duration(multiply_adds: float, far_bytes: float) -> float:
    """About how many multiply-adds could be done in the time of these, while memory beyond the caches is read.

    The two overlap, if not fully.
    """
    waiting = far_bytes * _MULTIPLY_ADDS_PER_FAR_BYTE
    return max(multiply_adds, waiting) + min(multiply_adds, waiting) / 4


def winograd_tiling(form: WinogradForm, blocks: int | None, outputs: int, channels: int, target: Target) -> Tiling:
    """Blocks and panels of a tile; `blocks`: of all output images, None where unknown.

    Every group of blocks reads the weights of its panels, and has its transforms written and read again: what does not
    fit into the second-level cache comes from further away. A group of more blocks reads weights less often, a group
    of fewer keeps its transforms near; and panels may be divided between cores, which then transform the same inputs.
    Where weights are far, a group is two of the tile's heights at least.
    """
    panels = -(-outputs // form.tile.columns)
    near = target.l2 // 2 // _ELEMENT_BYTES
    weights_are_far = form.elements * outputs * channels > near

    def duration(tiling: Tiling) -> float:
        columns = tiling.panels * form.tile.columns
        products = form.elements * tiling.rows * channels * columns
        transforms = form.elements * tiling.rows * (channels + columns)
        far = (2 * transforms if transforms > near else 0) + weights_are_far * form.elements * channels * columns
        own = _duration(products + _transform_work(form.block, tiling.rows, channels, columns), far * _ELEMENT_BYTES)
        if blocks is None:
            return own / tiling.rows
        tiles = -(-blocks // tiling.rows) * -(-panels // tiling.panels)
        return own * -(-tiles // target.cores)

    parts = (1,) if blocks is None else (1, min(panels, target.cores))
    height = form.tile.rows
    needed = MOST_BLOCK_GROUPS if blocks is None else -(-max(1, blocks) // height)
    most = min(MOST_BLOCK_GROUPS, needed)
    fewest = min(2, most) if weights_are_far else 1
    heights = [height * count for count in range(fewest, most + 1)]
    return min((Tiling(rows, -(-panels // part)) for rows in heights for part in parts), key=duration)


def _transform_work(block: int, blocks: int, channels: int, outputs: int) -> int:
    """Both transforms and the epilogue in multiply-adds."""
    return _MULTIPLY_ADDS_PER_TRANSFORMED * block**2 * blocks * (channels + outputs)


def winograd_block(
    target: Target, channels: int, outputs: int, height: int | None, width: int | None, weight_bytes: int
) -> int:
    """The extent of the blocks by which a convolution of 3 by 3 windows in float32 is fastest, 0 where it is direct.

    `height` and `width` are those of an output image, None where unknown, `weight_bytes` those of an element of the
    direct convolution's weights. Channels must fill whole vectors.
    """
    if channels % tile_shape(target, "float32", outputs).lanes:
        return 0
    sizes = (_TYPICAL_EXTENT if height is None else height, _TYPICAL_EXTENT if width is None else width)
    weights = channels * outputs

    def duration(block: int) -> float:
        elements = (block + WINDOW - 1) ** 2
        blocks = math.prod(-(-size // block) for size in sizes)
        work = elements * max(blocks, _FEWEST_ROWS) * weights + _transform_work(block, blocks, channels, outputs)
        return _duration(work, elements * weights * _ELEMENT_BYTES)

    direct = _duration(WINDOW**2 * math.prod(sizes) * weights, WINDOW**2 * weights * weight_bytes)
    best = min(BLOCKS, key=duration)
    return best if duration(best) < _WORTHWHILE * direct else 0


def winograd_source(form: WinogradForm, epilogue: Epilogue, label: str = "winograd") -> KernelSource:
    """The kernel of `form`.

    Parameters, in order: `x` (the images, [N, height, width, channels], dense), `w` (transformed weights in panels,
    as `ops.winograd.WinogradConv` has them), the epilogue's, m_size (blocks of all images), n_size (output channels),
    channels (of a pixel of x, a multiple of the tile's lanes), then for both axes the size of the input, the blocks
    of an image, and the extent, stride, dilation and padding of the window of patches, the height and width of
    the output, and rows_per_tile, panels_per_tile (a Tiling; rows are blocks). The epilogue's m counts the output
    pixels, n the output channels; batch is 0.
    """
    tile, table = form.tile, form.table
    parameters = (
        Parameter("x", f"{tile.dtype}*"),
        Parameter("w", f"{tile.dtype}*"),
        *epilogue.parameters,
        *sizes("m_size", "n_size", "channels", *table.sizes, "height", "width", "rows_per_tile", "panels_per_tile"),
    )
    body = [
        "depth = channels",
        *table.setup(),
        *_scratch_lines(form),
        f"sums = stack({tile.dtype}, {form.block**2 * tile.columns})",
        "column_origin = 0",
        *tile_counts(tile.columns, batched=False),
        "transformed = -1",
        "for tile in range(begin, end):",
        *indent(tile_position(batched=False)),
        f"    blocks = (row_count + {tile.rows - 1}) // {tile.rows}",
        "    if row_group != transformed:",
        "        transformed = row_group",
        *indent([*table.fill("0"), *_transform_inputs(form)], 2),
        *indent([*_multiply(form), *_transform_outputs(form, epilogue)]),
    ]
    return kernel_source(label, parameters, body)


def _scratch_lines(form: WinogradForm) -> list[str]:
    """Lines that lay out scratch memory behind the table: row addresses, transformed patches, and products.

    Rows of patches are an odd number of cache lines apart, which spreads them over the sets.
    """
    columns, line = form.tile.columns, _LINE_ELEMENTS
    address_bytes = f"(rows_per_tile * {ADDRESS_BYTES} + {CACHE_LINE - 1}) // {CACHE_LINE} * {CACHE_LINE}"
    return [
        f"addresses_at = table_bytes + pitch * {_ELEMENT_BYTES}",
        f"patches_at = addresses_at + {address_bytes}",
        f"row_pitch = (channels + {line - 1}) // {2 * line} * {2 * line} + {line}",
        "patch_step = rows_per_tile * row_pitch",
        f"product_step = panels_per_tile * rows_per_tile * {columns}",
        "addresses = scratch(ctx, int64, addresses_at)",
        f"patches = scratch(ctx, {form.tile.dtype}, patches_at)",
        f"products = scratch(ctx, {form.tile.dtype}, patches_at + {form.elements * _ELEMENT_BYTES} * patch_step)",
    ]


def _transform_inputs(form: WinogradForm) -> list[str]:
    height, stride = form.tile.rows, form.table.stride
    source = f"offset(table, block * block_entries + row - block * {height})"
    name = input_name(form.block, form.tile.lanes)
    return [
        "for row in range(row_count):",
        f"    block = row // {height}",
        f"    {name}({source}, {stride}, channels, offset(patches, row * row_pitch), patch_step)",
    ]


def _multiply(form: WinogradForm) -> list[str]:
    tile = form.tile
    product = f"products, element * product_step + ((panel_index - first_panel) * rows_per_tile + row) * {tile.columns}"
    return [
        f"share = int_div({tile.columns * _ELEMENT_BYTES - 1} + blocks, blocks)",
        f"for element in range({form.elements}):",
        f"    for i in range(blocks * {tile.rows}):",
        "        row = element * rows_per_tile + min(i, row_count - 1)",
        "        store(addresses, i, address(offset(patches, row * row_pitch)))",
        "    for panel_index in range(first_panel, end_panel):",
        f"        panel = offset(w, (element * panels + panel_index) * channels * {tile.columns})",
        "        for block in range(blocks):",
        f"            row = block * {tile.rows}",
        f"            rows = min({tile.rows}, row_count - row)",
        f"            ahead = address(panel) + channels * ({tile.columns * _ELEMENT_BYTES} + block * share)",
        "            block_table = offset(addresses, row)",
        f"            {tile.name}(block_table, rows, 1, channels, panel, offset({product}), ahead, share, 0)",
    ]


def _transform_outputs(form: WinogradForm, epilogue: Epilogue) -> list[str]:
    tile, block = form.tile, form.block
    product = f"offset(products, ((panel_index - first_panel) * rows_per_tile + row) * {tile.columns})"
    columns = str(tile.columns) if form.whole_panels else f"min({tile.columns}, n_size - first_column)"
    pixel = [
        "m_index = (image * height + top + dy) * width + left + dx",
        *epilogue_columns(epilogue, columns, f"(dy * {block} + dx) * {tile.columns} + j", "0"),
    ]
    return [
        "for row in range(row_count):",
        "    line = int_div(first_row + row, out_x)",
        "    image = int_div(line, out_y)",
        f"    top = (line - image * out_y) * {block}",
        f"    left = (first_row + row - line * out_x) * {block}",
        "    for panel_index in range(first_panel, end_panel):",
        f"        first_column = panel_index * {tile.columns}",
        f"        {output_name(block, tile.lanes)}({product}, product_step, {tile.columns}, sums)",
        f"        for dy in range(min({block}, height - top)):",
        f"            for dx in range(min({block}, width - left)):",
        *indent(pixel, 4),
    ]
