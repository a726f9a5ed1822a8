"""What the templates of matmul and convolution share: how work is cut into tiles, and the loop that runs one.

A step's *tile* is a group of rows by a group of panels (columns) of one product. In it, every panel of B is
taken once and swept over the rows in *blocks*, each the rows of one register tile, so that the panel stays
in the caches; meanwhile the next panel is prefetched. The addresses of the rows stand in a table in scratch
memory. Long sums of a product are added up in parts: all the tile's panels are swept for some of the terms before the
next terms', so that what is read of the rows stays in the caches as well. Panels of narrow floats are widened into
scratch memory before the sweep where that has several blocks: each of them would spend instructions on it.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from onnxsmith_compiler.codegen.epilogue import Epilogue
from onnxsmith_compiler.codegen.row_tile import ROW_TILE_PANELS, row_tile_name
from onnxsmith_compiler.codegen.source import KernelSource, Parameter
from onnxsmith_compiler.codegen.tile_shapes import TileShape, narrow_tile
from onnxsmith_compiler.ir import dim as dims
from onnxsmith_compiler.ir.dim import Dim

ADDRESS_BYTES = 8
CACHE_LINE = 64
_GRANULE = 8
_WIDENED_BLOCKS = 3
"""So many blocks make it worth while to widen a panel first."""


def indent(lines: Iterable[str], depth: int = 1) -> list[str]:
    """`lines`, each `depth` levels further in."""
    return ["    " * depth + line for line in lines]


def kernel_text(parameters: Iterable[Parameter], body: Iterable[str]) -> str:
    """The text of a kernel that runs `body` and returns 0."""
    names = ["ctx", *(parameter.name for parameter in parameters), "begin", "end"]
    return "\n".join([f"def kernel({', '.join(names)}):", *indent([*body, "return 0"]), ""])


def kernel_source(label: str, parameters: Iterable[Parameter], body: Iterable[str]) -> KernelSource:
    """The kernel that runs `body`. Its time goes into tiles, so that unrolling the loops around them gains nothing."""
    parameters = tuple(parameters)
    return KernelSource(label, kernel_text(parameters, body), parameters, unroll=False)


def sizes(*names: str) -> tuple[Parameter, ...]:
    return tuple(Parameter(name, "int64") for name in names)


@dataclass(frozen=True)
class Sweep:
    """How a template lays out the table of row addresses that `panel_sweep` reads.

    All are expressions: `taps` the number of taps; `table` the table of the current block, whose first row
    is row `row` and whose number is `block` in the tile; `row_bytes` about how many bytes lie between the
    first elements of successive rows; `follow` the address behind the last element that the block reads,
    near which the next block's rows begin. `in_parts`: the sweep is one of several, over the lines of `sum_parts`.
    """

    taps: str
    table: str
    row_bytes: str
    follow: str
    in_parts: bool = False


def panel_sweep(
    shape: TileShape, epilogue: Epilogue, sweep: Sweep, *, last_columns: int | None, batch: str
) -> list[str]:
    """Lines that run the panels [first_panel, end_panel) over a tile's rows, in blocks of the tile's height.

    Reads `b_matrix` (the product's first panel), `depth` (elements of a row in one tap), `first_row`,
    `row_count`, `n_size`, `panels`, `column_origin` (the epilogue's n for the product's first column) and, where panels
    are of narrow floats, `wide` (room in scratch memory, see `widened_bytes`). `sums` has room for a register tile; a
    sweep in parts takes it from `partial`, with room for all the tile's sums. `last_columns` is what
    `columns_of_last_panel` says.
    """
    width, height = shape.columns, shape.rows
    setup, choice = _prefetching(shape, epilogue, sweep, batch)
    return [
        f"blocks = (row_count + {height - 1}) // {height}",
        f"steps = {sweep.taps} * depth",
        *setup,
        *([] if shape.wide is None else [f"is_wide = blocks >= {_WIDENED_BLOCKS}"]),
        "for panel_index in range(first_panel, end_panel):",
        *indent(_panel_lines(shape, sweep)),
        f"    first_column = panel_index * {width}",
        *([] if shape.wide is None else indent(_widen_panel(width))),
        "    for block in range(blocks):",
        f"        row = block * {height}",
        f"        rows = min({height}, row_count - row)",
        *indent(choice, 2),
        *(indent(_partial_sums(shape), 2) if sweep.in_parts else []),
        *indent(panel_block(shape, epilogue, sweep, last_columns, batch, widened=shape.wide is not None), 2),
    ]


def sum_parts(lines: Iterable[str]) -> list[str]:
    """Lines that run `lines`, a sweep in parts, for each part of the sums' `k_size` terms, `terms_per_part` of them.

    They set `depth`, `first_term` and `is_last`. Sums of all the tile's blocks wait in `partial` for their next part.
    """
    return [
        "parts = max(1, int_div(k_size + terms_per_part - 1, terms_per_part))",
        "for part in range(parts):",
        "    first_term = part * terms_per_part",
        "    depth = min(terms_per_part, k_size - first_term)",
        "    is_last = part == parts - 1",
        *indent(lines),
    ]


def _partial_sums(shape: TileShape) -> list[str]:
    return [
        "waiting = (panel_index - first_panel) * blocks + block if parts > 1 else 0",
        f"sums = offset(partial, waiting * {shape.rows * shape.columns})",
    ]


def _panel_lines(shape: TileShape, sweep: Sweep) -> list[str]:
    """Lines that find the panel's part, and the address of the part that is read after it."""
    if not sweep.in_parts:
        return [
            f"panel = offset(b_matrix, panel_index * steps * {shape.columns})",
            f"next_panel = address(panel) + steps * {shape.panel_row_bytes}",
        ]
    return [
        "place = panel_index * k_size + first_term",
        f"panel = offset(b_matrix, place * {shape.columns})",
        "next_place = place + k_size",
        "if panel_index == end_panel - 1:",
        "    next_place = end_panel * k_size if is_last else first_panel * k_size + first_term + depth",
        f"next_panel = address(panel) + (next_place - place) * {shape.panel_row_bytes}",
    ]


def widened_bytes(shape: TileShape, steps: Dim) -> Dim:
    """Bytes of scratch memory that `panel_sweep` needs for sums of `steps` terms: a widened panel, if it makes one."""
    return 0 if shape.wide is None else steps * shape.wide.panel_row_bytes


def _widen_panel(width: int) -> list[str]:
    return [
        "if is_wide:",
        f"    for i in range(steps * {width}):",
        "        store(wide, i, load(panel, i))",
    ]


def panel_block(
    shape: TileShape, epilogue: Epilogue, sweep: Sweep, last_columns: int | None, batch: str, *, widened: bool = False
) -> list[str]:
    """Lines that multiply a block by `panel`, number `panel_index` of `panels`, and hand it to the epilogue.

    `widened`: the panel may be in `wide` (if `is_wide`).
    """

    resume = "first_term" if sweep.in_parts else "0"

    def call(tile: TileShape) -> list[str]:
        line = f"{tile.name}({sweep.table}, rows, {sweep.taps}, depth, panel, sums, ahead, share, {resume})"
        if not widened or tile.wide is None:
            return [line]
        wide = f"{tile.wide.name}({sweep.table}, rows, {sweep.taps}, depth, wide, sums, ahead, share, {resume})"
        return ["if is_wide:", f"    {wide}", "else:", f"    {line}"]

    def finish(lines: list[str]) -> list[str]:
        return ["if is_last:", *indent(lines)] if sweep.in_parts else lines

    whole = call(shape)
    narrow = None if last_columns is None else narrow_tile(shape, last_columns)
    if narrow is None:
        return [*whole, *finish(epilogue_block(shape, epilogue, batch, last_columns))]
    return [
        "if panel_index < panels - 1:",
        *indent([*whole, *finish(_epilogue_loops(shape, epilogue, str(shape.columns), batch))]),
        "else:",
        *indent([*call(narrow), *finish(_epilogue_loops(narrow, epilogue, str(last_columns), batch))]),
    ]


def columns_of_last_panel(shape: TileShape, n: Dim) -> int | None:
    """How many of n columns are in the last panel, if it is known and not so odd that vectors do not fit: else None."""
    rest = dims.modulo(n, shape.columns)
    if not isinstance(rest, int) or rest % min(_GRANULE, shape.lanes):
        return None
    return rest or shape.columns


def row_sweep(shape: TileShape, epilogue: Epilogue, *, batch: str) -> list[str]:
    """Lines that run the panels [first_panel, end_panel) over a tile's only row, whose address is first in `table`.

    They read what those of `panel_sweep` read; `sums` has room for ROW_TILE_PANELS panels. Several panels are read side
    by side: one stream alone leaves most of the bandwidth of memory unused.
    """
    width = shape.columns
    return [
        f"for panel_index in range(first_panel, end_panel, {ROW_TILE_PANELS}):",
        f"    panel_count = min({ROW_TILE_PANELS}, end_panel - panel_index)",
        f"    panel = offset(b_matrix, panel_index * depth * {width})",
        f"    {row_tile_name(shape)}(load(table, 0), depth, panel, panel_count, sums, {width})",
        f"    first_column = panel_index * {width}",
        f"    columns = min(panel_count * {width}, n_size - first_column)",
        "    m_index = first_row",
        *indent(epilogue_columns(epilogue, "columns", "j", batch)),
    ]


def _prefetching(shape: TileShape, epilogue: Epilogue, sweep: Sweep, batch: str) -> tuple[list[str], list[str]]:
    """Lines that choose what a block prefetches while it is computed: those before the sweep, and those in it.

    Where the tile has only some of the panels, it is the next panel, a share of it with each block. Where it has all of
    them, they are at hand: then it is the rows of the next block with the first panel, and the place of the next
    block's results with the others (with the first too where sums are so short that results are more than rows).
    """
    height = shape.rows
    all_at_hand = "end_panel - first_panel == panels and m_size > rows_per_tile"
    setup = [f"has_all = {all_at_hand}{' and parts == 1' if sweep.in_parts else ''}"]
    rows = [f"    ahead = {sweep.follow}", "    share = row_share"]
    panel = [
        "    ahead = next_panel + steps * block * panel_share",
        "    share = panel_share",
    ]
    if epilogue.destination is None:
        setup += _shares(shape, sweep, "0")
        return setup, ["if has_all and panel_index == first_panel:", *rows, "else:", *panel]
    here = epilogue.destination("first_row", "column_origin", batch)
    below = epilogue.destination(f"(first_row + {height})", "column_origin", batch)
    setup += [
        f"results = {below}",
        f"block_bytes = results - ({here})",
        *_shares(shape, sweep, "block_bytes"),
        "row_panels = load(shares, 2)",
        "result_share = load(shares, 3)",
    ]
    results = [
        "    ahead = results + block * block_bytes + (panel_index - row_panels) * steps * result_share",
        "    share = result_share",
    ]
    return setup, [
        "if has_all and panel_index < row_panels:",
        *rows,
        "elif has_all:",
        *results,
        "else:",
        *panel,
    ]


def _shares(shape: TileShape, sweep: Sweep, block_bytes: str) -> list[str]:
    rows_bytes = f"{shape.rows} * {sweep.row_bytes}"
    return [
        "shares = stack(int64, 4)",
        f"prefetch_shares(shares, blocks, steps, panels, {shape.panel_row_bytes}, {rows_bytes}, {block_bytes})",
        "panel_share = load(shares, 0)",
        "row_share = load(shares, 1)",
    ]


def epilogue_block(shape: TileShape, epilogue: Epilogue, batch: str, last_columns: int | None) -> list[str]:
    """Lines that hand the first `rows` rows of the tile `sums` to the epilogue; `last_columns`: of the last panel.

    Loops over a constant number of columns vectorise without a remainder, so that whole panels have loops of their own.
    """
    whole = _epilogue_loops(shape, epilogue, str(shape.columns), batch)
    if last_columns == shape.columns:
        return whole
    if last_columns is None:
        part = ["columns = n_size - first_column", *_epilogue_loops(shape, epilogue, "columns", batch)]
    else:
        part = _epilogue_loops(shape, epilogue, str(last_columns), batch)
    return [f"if n_size - first_column >= {shape.columns}:", *indent(whole), "else:", *indent(part)]


def _epilogue_loops(shape: TileShape, epilogue: Epilogue, columns: str, batch: str) -> list[str]:
    return [
        "for i in range(rows):",
        "    m_index = first_row + row + i",
        *indent(epilogue_columns(epilogue, columns, f"i * {shape.columns} + j", batch)),
    ]


def epilogue_columns(epilogue: Epilogue, columns: str, place: str, batch: str) -> list[str]:
    """Lines that hand `columns` results of row `m_index` to the epilogue, the j-th from `place` in `sums`."""
    return [
        f"for j in range({columns}):",
        "    n_index = column_origin + first_column + j",
        f"    total = load(sums, {place})",
        *indent(epilogue.lines("total", "m_index", "n_index", batch)),
    ]


def tile_position(*, batched: bool) -> list[str]:
    """Lines that find the tile's rows, panels and product from `tile`: panels run fastest, products slowest.

    So a thread that takes tiles from one end has whole rows, as it had in the step before and will have in the next:
    what it reads is in its own core's caches, and what it writes is wanted there.
    """
    lines = [
        "row_group = int_div(tile, panel_groups)",
        "panel_group = int_rem(tile, panel_groups)",
        "first_row = row_group * rows_per_tile",
        "row_count = min(rows_per_tile, m_size - first_row)",
        "first_panel = panel_group * panels_per_tile",
        "end_panel = min(first_panel + panels_per_tile, panels)",
    ]
    if batched:
        lines[:1] = [
            "row_group = int_rem(int_div(tile, panel_groups), row_groups)",
            "batch = int_div(tile, row_groups * panel_groups)",
        ]
    return lines


def tile_counts(width: int, *, batched: bool) -> list[str]:
    """Lines that count the groups of panels, and those of rows where there are several products."""
    rows = ["row_groups = int_div(m_size + rows_per_tile - 1, rows_per_tile)"]
    return [
        *(rows if batched else []),
        f"panels = (n_size + {width - 1}) // {width}",
        "panel_groups = int_div(panels + panels_per_tile - 1, panels_per_tile)",
    ]
