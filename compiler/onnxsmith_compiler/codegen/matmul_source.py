"""Prints matrix products: C[batch, M, N] = A[batch, M, K] x B[batch, K, N], B in packed panels."""

from __future__ import annotations

from dataclasses import dataclass

from onnxsmith_compiler.codegen.contraction_source import (
    ADDRESS_BYTES,
    CACHE_LINE,
    Sweep,
    indent,
    kernel_source,
    panel_sweep,
    row_sweep,
    sizes,
    sum_parts,
    tile_counts,
    tile_position,
    widened_bytes,
)
from onnxsmith_compiler.codegen.epilogue import Epilogue
from onnxsmith_compiler.codegen.row_tile import ROW_TILE_PANELS
from onnxsmith_compiler.codegen.source import KernelSource, Parameter
from onnxsmith_compiler.codegen.target import Target
from onnxsmith_compiler.codegen.tile_shapes import TileShape
from onnxsmith_compiler.codegen.tiling import Tiling, ceil_div, ceil_to, choose_tiling, single_row_tiling
from onnxsmith_compiler.ir import dim as dims
from onnxsmith_compiler.ir.dim import Dim

_AXES = "pqr"
_TABLE_BYTES = f"(rows_per_tile * {ADDRESS_BYTES} + {CACHE_LINE - 1}) // {CACHE_LINE} * {CACHE_LINE}"


@dataclass(frozen=True)
class MatmulForm:
    """What is baked into a matmul kernel.

    `last_columns`: what `columns_of_last_panel` says. `batch_axes`: the number of axes, 0 to 3, over
    which A and B vary with strides of their own (axes over which B stays the same belong to M where A
    allows it). `single_row`: M is 1.
    """

    tile: TileShape
    last_columns: int | None
    batch_axes: int = 0
    single_row: bool = False

    def tiles(self, m: Dim, n: Dim, batch: Dim, tiling: Tiling) -> Dim:
        """The number of tiles of a step that multiplies `batch` products of m by n."""
        panels = ceil_div(n, self.tile.columns)
        return batch * ceil_div(m, tiling.rows) * ceil_div(panels, tiling.panels)

    def scratch(self, k: Dim, tiling: Tiling) -> Dim:
        """Bytes of scratch a thread needs: addresses of rows, a widened panel, sums.

        Raises ValueError where the tiling's rows are no multiple of the register tile's.
        """
        table = _table_bytes(self.tile, tiling.rows)
        if self.single_row:
            return table
        terms = k if tiling.terms is None else dims.minimum(k, tiling.terms)
        waiting = self.tile.rows if tiling.terms is None else tiling.rows * tiling.panels
        return table + widened_bytes(self.tile, terms) + waiting * self.tile.columns * self.tile.element.itemsize

    def tiling_arguments(self, k: Dim, tiling: Tiling) -> tuple[Dim, ...]:
        """The kernel's last arguments: the tiling, for sums of k terms."""
        if self.single_row:
            return tiling.rows, tiling.panels
        return tiling.rows, tiling.panels, k if tiling.terms is None else tiling.terms

    def cost(self, k: Dim, tiling: Tiling, target: Target) -> Dim:
        """About how many nanoseconds a tile takes."""
        per_nanosecond = 6 * target.vector_bits // self.tile.left.bits
        return (tiling.rows * tiling.panels * self.tile.columns * k + 500 * per_nanosecond) // per_nanosecond


def _table_bytes(tile: TileShape, rows: int) -> int:
    if rows % tile.rows:
        raise ValueError(f"a tile of {rows} rows is no whole number of register tiles of {tile.rows}")
    return ceil_to(rows * ADDRESS_BYTES, CACHE_LINE)


def matmul_tiling(form: MatmulForm, m: int | None, n: int | None, k: int | None, target: Target) -> Tiling:
    """Rows and panels of a tile for sizes that may be unknown (None)."""
    if form.single_row:
        return single_row_tiling(form.tile, n, target)
    return choose_tiling(form.tile, m, n, k, k, target, in_parts=True)


def matmul_source(form: MatmulForm, epilogue: Epilogue, label: str = "matmul") -> KernelSource:
    """The kernel of `form`.

    Parameters, in order: `a`, `b`, the epilogue's, m_size, n_size, k_size, `a_row` (elements between rows of A, which
    are dense), for each batch axis its size and the strides of A and of B in elements, rows_per_tile, panels_per_tile
    and, but for a single row, terms_per_part (a Tiling). A has the type of the tile's left operand, B that of its
    panels; B is laid out as `ops.packed.pack_columns` does, with panels of the tile's columns.
    """
    axes = _AXES[: form.batch_axes]
    strides = [name for axis in axes for name in (f"size_{axis}", f"a_{axis}", f"b_{axis}")]
    parameters = (
        Parameter("a", f"{form.tile.left}*"),
        Parameter("b", f"{form.tile.panel_element}*"),
        *epilogue.parameters,
        *sizes("m_size", "n_size", "k_size", "a_row", *strides, "rows_per_tile", "panels_per_tile"),
        *(() if form.single_row else sizes("terms_per_part")),
    )
    width = form.tile.columns
    batch = "batch" if axes else "0"
    per_tile = [*tile_position(batched=bool(axes)), *_batch_lines(axes), *_panels(form, epilogue, batch)]
    body = [
        "table = scratch(ctx, int64, 0)",
        *_room_for_sums(form),
        *tile_counts(width, batched=bool(axes)),
        "column_origin = 0",
        "for tile in range(begin, end):",
        *indent(per_tile),
    ]
    return kernel_source(label, parameters, body)


def _room_for_sums(form: MatmulForm) -> list[str]:
    tile = form.tile
    if form.single_row:
        return [f"sums = stack({tile.dtype}, {ROW_TILE_PANELS * tile.columns})"]
    if tile.wide is None:
        return [f"partial = scratch(ctx, {tile.dtype}, {_TABLE_BYTES})"]
    widened = f"min(k_size, terms_per_part) * {tile.wide.panel_row_bytes}"
    return [
        f"wide = scratch(ctx, {tile.dtype}, {_TABLE_BYTES})",
        f"partial = scratch(ctx, {tile.dtype}, {_TABLE_BYTES} + {widened})",
    ]


def _panels(form: MatmulForm, epilogue: Epilogue, batch: str) -> list[str]:
    if form.single_row:
        start = "address(offset(a_matrix, first_row * a_row))"
        return ["depth = k_size", f"store(table, 0, {start})", *row_sweep(form.tile, epilogue, batch=batch)]
    element = form.tile.left.itemsize
    sweep = Sweep(
        taps="1",
        table="offset(table, row)",
        row_bytes=f"a_row * {element}",
        follow=f"load(table, row + rows - 1) + depth * {element}",
        in_parts=True,
    )
    swept = panel_sweep(form.tile, epilogue, sweep, last_columns=form.last_columns, batch=batch)
    return sum_parts([*_row_addresses(form), *swept])


def _batch_lines(axes: str) -> list[str]:
    """Lines that find the product's first element of A and first panel of B."""
    if not axes:
        return ["b_matrix = b", "a_matrix = a"]
    lines = ["rest = batch", "a_start = 0", "b_start = 0"]
    for axis in reversed(axes):
        lines += [
            f"b_start += int_rem(rest, size_{axis}) * b_{axis}",
            f"a_start += int_rem(rest, size_{axis}) * a_{axis}",
            f"rest = int_div(rest, size_{axis})",
        ]
    return [*lines, "b_matrix = offset(b, b_start)", "a_matrix = offset(a, a_start)"]


def _row_addresses(form: MatmulForm) -> list[str]:
    """Lines that fill the table with the addresses of the elements number `first_term` of the tile's rows."""
    height, element = form.tile.rows, form.tile.left.itemsize
    entries = f"(row_count + {height - 1}) // {height} * {height}"
    return [
        "start = address(offset(a_matrix, first_row * a_row + first_term))",
        f"row_addresses(table, start, a_row * {element}, row_count, {entries})",
    ]
