"""What the templates of matmul and convolution share: how work is cut into tiles, and the loop that runs one.

A step's *tile* is a group of rows by a group of panels (columns) of one product. In it, every panel of B is
taken once and swept over the rows in *blocks*, each the rows of one register tile, so that the panel stays
in the caches; meanwhile the next panel is prefetched. The addresses of the rows stand in a table in scratch
memory.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from onnxsmith_compiler.codegen.epilogue import Epilogue
from onnxsmith_compiler.codegen.source import KernelSource, Parameter
from onnxsmith_compiler.codegen.tiles import TileShape

ADDRESS_BYTES = 8
SCRATCH_ALIGNMENT = 64


@dataclass(frozen=True)
class Tiling:
    """How many rows and how many panels of columns one tile of a step covers."""

    rows: int
    panels: int


def indent(lines: Iterable[str], depth: int = 1) -> list[str]:
    """`lines`, each `depth` levels further in."""
    return ["    " * depth + line for line in lines]


def kernel_text(parameters: Iterable[Parameter], body: Iterable[str]) -> str:
    """The text of a kernel that runs `body` and returns 0."""
    names = ["ctx", *(parameter.name for parameter in parameters), "begin", "end"]
    return "\n".join([f"def kernel({', '.join(names)}):", *indent([*body, "return 0"]), ""])


def kernel_source(label: str, parameters: Iterable[Parameter], body: Iterable[str]) -> KernelSource:
    parameters = tuple(parameters)
    return KernelSource(label, kernel_text(parameters, body), parameters)


def sizes(*names: str) -> tuple[Parameter, ...]:
    return tuple(Parameter(name, "int64") for name in names)


def block_plan(shape: TileShape) -> list[str]:
    """Lines that cut `row_count` rows (at least 1) into `blocks` of even height, all alike but for two rows.

    The first `tall_blocks` have `tall` rows, the others two fewer, the last one what is left.
    """
    height = shape.rows
    return [
        f"blocks = (row_count + {height - 1}) // {height}",
        "tall = ((row_count + blocks - 1) // blocks + 1) // 2 * 2",
        "tall_blocks = (row_count - blocks * (tall - 2) + 1) // 2",
        f"step = ({shape.columns - 1} + blocks) // blocks",
    ]


def panel_sweep(
    shape: TileShape, epilogue: Epilogue, *, taps: str, whole_panels: bool, row_table: str, batch: str
) -> list[str]:
    """Lines that run the panels [first_panel, end_panel) over a tile's rows, in `block_plan`'s blocks.

    Reads `b_matrix` (the product's first panel), `depth` (elements of a row in one tap), `first_row`,
    `row_count`, `n_size`; `row_table` is the expression of the table for the block that begins `row` rows
    into the tile. Where `whole_panels` is set, n_size is a multiple of the panel's width.
    """
    width = shape.columns
    call = f"{shape.name}({row_table}, rows, {taps}, depth, panel, sums, ahead, step)"
    whole = _epilogue_loops(shape, epilogue, str(width), batch)
    part = _epilogue_loops(shape, epilogue, "columns", batch)
    if not whole_panels:
        whole = [
            f"columns = min({width}, n_size - first_column)",
            f"if columns == {width}:",
            *indent(whole),
            "else:",
            *indent(part),
        ]
    return [
        f"panel_size = {taps} * depth * {width}",
        "next_rows = offset(a_matrix, (first_row + tall) * a_row)",
        f"row_step = min(16, tall * a_row // max(1, {taps} * depth))",
        "for panel_index in range(first_panel, end_panel):",
        "    panel = offset(b_matrix, panel_index * panel_size)",
        f"    first_column = panel_index * {width}",
        "    ahead = offset(panel, panel_size)",
        "    row = 0",
        "    for block in range(blocks):",
        "        rows = min(tall if block < tall_blocks else tall - 2, row_count - row)",
        "        for i in range(rows):",
        f"            prefetch_write(y0, (first_row + row + i) * y1 + first_column)",
        f"            prefetch_write(y0, (first_row + row + i) * y1 + first_column+16)",
        "        if panel_index == first_panel:",
        f"            {call.replace('ahead, step', 'next_rows, row_step')}",
        "            next_rows = offset(next_rows, rows * a_row)",
        "        else:",
        f"            {call}",
        f"            ahead = offset(ahead, {taps} * depth * step)",
        *indent(whole, 2),
        "        row += rows",
    ]


def _epilogue_loops(shape: TileShape, epilogue: Epilogue, columns: str, batch: str) -> list[str]:
    lines = epilogue.lines("total", "m_index", "n_index", batch)
    return [
        "for i in range(rows):",
        "    m_index = first_row + row + i",
        f"    for j in range({columns}):",
        "        n_index = first_column + j",
        f"        total = load(sums, i * {shape.columns} + j)",
        *indent(lines, 2),
    ]


def tile_position(width: int, batched: bool) -> list[str]:
    """Lines that find the tile's rows, panels and product from `tile`: rows run fastest, products slowest."""
    lines = [
        "row_group = tile % row_groups",
        "panel_group = tile // row_groups",
        "first_row = row_group * rows_per_tile",
        "row_count = min(rows_per_tile, m_size - first_row)",
        "first_panel = panel_group * panels_per_tile",
        "end_panel = min(first_panel + panels_per_tile, panels)",
    ]
    if batched:
        lines[1:2] = [
            "panel_group = tile // row_groups % panel_groups",
            "batch = tile // (row_groups * panel_groups)",
        ]
    return lines


def tile_counts(width: int) -> list[str]:
    """Lines that count the groups of rows and of panels."""
    return [
        "row_groups = (m_size + rows_per_tile - 1) // rows_per_tile",
        f"panels = (n_size + {width - 1}) // {width}",
        "panel_groups = (panels + panels_per_tile - 1) // panels_per_tile",
    ]
