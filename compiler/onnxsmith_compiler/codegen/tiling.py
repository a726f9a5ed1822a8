"""How a contraction's work is cut into the tiles of its step, by a model of the target's caches and cores."""

from __future__ import annotations

from dataclasses import dataclass

from onnxsmith_compiler.codegen.row_tile import ROW_TILE_PANELS
from onnxsmith_compiler.codegen.target import Target
from onnxsmith_compiler.codegen.tile_shapes import TileShape
from onnxsmith_compiler.ir.dim import Dim

TILES_PER_CORE = 4
"""Fewer would leave cores idle at the end of a step."""
_TYPICAL_DEPTH = 512
_FEW_BLOCKS = 2
_FEW_PANELS = 3
_MANY_BLOCKS = 16
_LARGE_TILE = 8_000_000
"""Multiply-adds from which on a tile is cut once more, so that no core waits long for the last one."""
_FEWEST_TERMS = 256
"""Each part of a sum costs a trip of the register tile to memory and back."""
_TERMS_UNIT = 64


@dataclass(frozen=True)
class Tiling:
    """How many rows, a multiple of the register tile's, and how many panels of columns a tile of a step covers.

    `terms`: how many of each sum it adds up at a time, for all its rows and panels; None for all. It changes no bit.
    """

    rows: int
    panels: int
    terms: int | None = None


def choose_tiling(
    tile: TileShape,
    m: int | None,
    n: int | None,
    depth: int | None,
    row: int | None,
    target: Target,
    *,
    in_parts: bool = False,
) -> Tiling:
    """A Tiling for a product of m rows and n columns with sums of `depth` terms; None for what is unknown.

    `row` is about how many elements of memory a further row takes. Where all of B fits into half of the
    second-level cache, a tile is few rows by all panels; otherwise as many rows share a panel as fit beside it, for
    all of their sums' terms at a time or, where it may be `in_parts`, for fewer.
    Tiles are made smaller where there would be too few of them for all cores. Panels that are to be widened are swept
    over many rows wherever B fits.
    """
    element, height = tile.left.itemsize, tile.rows
    fitting = _panels_beside(tile, depth, target)
    if n is not None and part_count(n, tile.columns) <= fitting and tile.wide is None:
        rows = _FEW_BLOCKS * height
        few_tiles = m is not None and part_count(m, rows) < TILES_PER_CORE * target.cores
        if few_tiles and part_count(n, tile.columns) <= _FEW_PANELS:
            rows = height
        return Tiling(rows, _even_panels(tile, m, n, rows, fitting, depth, target))
    terms = None
    if in_parts and (m is None or m > _FEW_BLOCKS * height):
        terms = _terms_at_a_time(tile, depth, target)
    if terms is not None:
        row, fitting = terms, _panels_beside(tile, terms, target)
    room = target.l2 // 2 // (max(1, row or depth or _TYPICAL_DEPTH) * element)
    rows = max(height, min(_MANY_BLOCKS * height, room))
    if m is not None:
        rows = part_count(m, max(1, part_count(m, rows)))
    rows = ceil_to(max(1, rows), height)
    return Tiling(rows, _even_panels(tile, m, n, rows, fitting, depth, target, terms), terms)


def single_row_tiling(tile: TileShape, n: int | None, target: Target) -> Tiling:
    """A Tiling for a product of one row and n columns (None: unknown): at least as many panels as are read together."""
    if n is None:
        return Tiling(tile.rows, ROW_TILE_PANELS)
    groups = part_count(max(1, n), tile.columns * ROW_TILE_PANELS)
    return Tiling(tile.rows, ROW_TILE_PANELS * max(1, groups // (TILES_PER_CORE * target.cores)))


def _panels_beside(tile: TileShape, terms: int | None, target: Target) -> int:
    """How many panels of so many terms may lie beside a tile's rows in the second-level cache."""
    return max(2, target.l2 // 2 // (max(1, terms or _TYPICAL_DEPTH) * tile.panel_row_bytes))


def _terms_at_a_time(tile: TileShape, depth: int | None, target: Target) -> int | None:
    """Into how long parts sums of `depth` terms (None: unknown) are cut; None where one would not be worth it.

    For that many terms, as many rows as a tile has at most take a third of the second-level cache.
    """
    fitting = target.l2 // 3 // (_MANY_BLOCKS * tile.rows * tile.left.itemsize)
    most = max(_FEWEST_TERMS, fitting // _TERMS_UNIT * _TERMS_UNIT)
    if depth is None:
        return most
    return None if 2 * depth <= 3 * most else ceil_to(_even(depth, most), _TERMS_UNIT)


def _even_panels(
    tile: TileShape,
    m: int | None,
    n: int | None,
    rows: int,
    most: int,
    depth: int | None,
    target: Target,
    terms: int | None = None,
) -> int:
    """Panels of a tile, at most `most`, that cut all panels into equal parts, enough of them for all cores.

    Where sums are added up so many `terms` at a time, tiles are no smaller than that: each reads all its rows anew.
    """
    if n is None:
        return most
    panels = part_count(max(1, n), tile.columns)
    groups = TILES_PER_CORE * target.cores
    # A last group of few rows hardly counts.
    fewest = groups if m is None else part_count(groups * rows, max(rows, m))
    work = rows * part_count(panels, fewest) * tile.columns * (depth or _TYPICAL_DEPTH)
    if target.cores > 1 and terms is None and work > _LARGE_TILE:
        fewest *= 2
    return min(_even(panels, most), _even(panels, max(1, panels // fewest)))


def _even(whole: int, most: int) -> int:
    """What each of as few equal parts as possible has of `whole`, at most `most`."""
    return part_count(whole, part_count(whole, most))


def part_count(whole: int, part: int) -> int:
    """How many parts of `part` it takes for `whole`."""
    return -(-whole // part)


def ceil_div(a: Dim, b: int) -> Dim:
    return (a + (b - 1)) // b


def ceil_to(value: int, multiple: int) -> int:
    return -(-value // multiple) * multiple
