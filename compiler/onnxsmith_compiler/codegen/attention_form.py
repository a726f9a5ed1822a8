"""What is baked into an attention kernel, how its work is cut into tiles, and the scratch memory that these take."""

from __future__ import annotations

from dataclasses import dataclass

from onnxsmith_compiler.codegen.contraction_source import ADDRESS_BYTES, CACHE_LINE
from onnxsmith_compiler.codegen.target import Target
from onnxsmith_compiler.codegen.tile_shapes import TileShape
from onnxsmith_compiler.codegen.tiling import ceil_div, ceil_to
from onnxsmith_compiler.ir.dim import Dim

TABLE_BYTES = 16 * ADDRESS_BYTES
"""Size of the table of row addresses, the first thing in scratch memory."""


@dataclass(frozen=True)
class AttentionForm:
    """What is baked into an attention kernel.

    `dtype` is the name of the DType of Q, K and V; all arithmetic is in the tile's type. Products run over `outer`
    axes. `causal`: a query sees the keys up to its own position, which is its index plus the parameter `past`.
    """

    tile: TileShape
    dtype: str
    outer: int = 2
    scale: float = 1.0
    causal: bool = False

    def tiles(self, products: Dim, queries: Dim, rows_per_tile: int) -> Dim:
        """The number of tiles of a step."""
        return products * ceil_div(queries, rows_per_tile)

    @property
    def line(self) -> int:
        """Elements of a line of the cache."""
        return CACHE_LINE // self.tile.element.itemsize

    def pitch(self, size: str) -> str:
        """The text of the distance between rows of `size` elements, at most three lines more: an odd number of lines,
        so that rows do not compete for the same ones."""
        return f"({size} + {2 * self.line - 1}) // {2 * self.line} * {2 * self.line} + {self.line}"

    @property
    def staged_rows(self) -> int:
        """Rows of the memory in which queries, or keys that fill no square, are staged."""
        return max(self.tile.rows, self.tile.lanes)

    @property
    def header_bytes(self) -> int:
        """Bytes before the rows: the table of addresses, and one element for each of a block's rows."""
        return ceil_to(TABLE_BYTES + self.tile.rows * self.tile.element.itemsize, CACHE_LINE)

    def scratch(self, keys: Dim, depth: Dim, width: Dim) -> Dim:
        """Bytes of scratch a thread needs; `depth`: elements of a query and a key, `width`: of a value."""
        columns, padding = self.tile.columns, 3 * self.line
        key_panels, value_panels = ceil_div(keys, columns), ceil_div(width, columns)
        panels = key_panels * columns * (depth + padding) + value_panels * columns * keys
        rows = self.staged_rows * (depth + padding) + self.tile.rows * (keys + padding)
        return self.header_bytes + (rows + panels) * self.tile.element.itemsize + 4 * CACHE_LINE

    def cost(self, keys: Dim, depth: Dim, width: Dim, rows_per_tile: int, target: Target) -> Dim:
        """About how many nanoseconds a tile takes."""
        per_nanosecond = 4 * target.vector_bits // self.tile.element.bits
        return rows_per_tile * keys * (depth + width + 32) // per_nanosecond + 1000


def attention_rows_per_tile(form: AttentionForm, products: int | None, queries: int | None, target: Target) -> int:
    """Queries of one product that make a tile: many, to pack keys and values seldom, but enough tiles for all cores."""
    most = 16 * form.tile.rows
    if queries is None:
        return most
    rows = -(-queries // max(1, round(queries / most)))
    if products is not None and products < 2 * target.cores:
        parts = -(-2 * target.cores // max(1, products))
        rows = min(rows, max(2 * form.tile.rows, -(-queries // parts)))
    return ceil_to(max(1, rows), form.tile.rows)
