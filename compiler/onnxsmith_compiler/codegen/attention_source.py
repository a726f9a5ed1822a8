"""Prints attention, softmax(score(Q K^T)) V, as one kernel that holds no more of the scores than a block of
rows.

For each head the keys are transposed into panels and the values copied into panels, in scratch memory.
Then, block of queries by block: products with the keys by register tiles, softmax over whole rows, products
with the values.
"""

from __future__ import annotations

from dataclasses import dataclass

from onnxsmith_compiler.codegen.contraction_source import (
    ADDRESS_BYTES,
    CACHE_LINE,
    ceil_div,
    ceil_to,
    indent,
    kernel_source,
    sizes,
)
from onnxsmith_compiler.codegen.epilogue import Epilogue, Score
from onnxsmith_compiler.codegen.source import KernelSource, Parameter
from onnxsmith_compiler.codegen.target import Target
from onnxsmith_compiler.codegen.tiles import TileShape
from onnxsmith_compiler.codegen.transpose import transpose_name
from onnxsmith_compiler.ir.dim import Dim

_TABLE_ENTRIES = 16


@dataclass(frozen=True)
class AttentionForm:
    """What is baked into an attention kernel.

    `dtype` is the name of the DType of Q, K and V; all arithmetic is in the tile's type. `causal`: a query
    sees the keys up to its own position, which is its index plus the parameter `past`.
    """

    tile: TileShape
    dtype: str
    causal: bool = False

    def tiles(self, batch: Dim, heads: Dim, queries: Dim, rows_per_tile: int) -> Dim:
        """The number of tiles of a step."""
        return batch * heads * ceil_div(queries, rows_per_tile)

    def scratch(self, keys: Dim, depth: Dim, width: Dim) -> Dim:
        """Bytes of scratch a thread needs; `depth`: elements of a query and a key, `width`: of a value."""
        columns = self.tile.columns
        key_panels, value_panels = ceil_div(keys, columns), ceil_div(width, columns)
        panels = key_panels * columns * depth + value_panels * columns * keys
        rows = self.tile.rows * (depth + keys + 2 * _padding(self.tile))
        element = self.tile.element.itemsize
        return _header_bytes(self.tile) + (rows + panels) * element + 4 * CACHE_LINE

    def cost(self, keys: Dim, depth: Dim, width: Dim, rows_per_tile: int, target: Target) -> Dim:
        """About how many nanoseconds a tile takes."""
        per_nanosecond = 4 * target.vector_bits // self.tile.element.bits
        return rows_per_tile * keys * (depth + width + 32) // per_nanosecond + 1000


def _padding(tile: TileShape) -> int:
    """The most elements that `_pitch_text` adds to a row."""
    return 3 * CACHE_LINE // tile.element.itemsize


def _header_bytes(tile: TileShape) -> int:
    """Bytes before the rows: the table of addresses, and the reciprocals of the sums of a block's rows."""
    return ceil_to(_TABLE_ENTRIES * ADDRESS_BYTES + tile.rows * tile.element.itemsize, CACHE_LINE)


def attention_rows_per_tile(form: AttentionForm, batch_heads: int | None, queries: int | None, target: Target) -> int:
    """Queries of one head that make a tile: many, to pack keys and values seldom, but enough tiles for all cores."""
    most = 16 * form.tile.rows
    if queries is None:
        return most
    rows = -(-queries // max(1, round(queries / most)))
    if batch_heads is not None and batch_heads < 2 * target.cores:
        parts = -(-2 * target.cores // max(1, batch_heads))
        rows = min(rows, max(2 * form.tile.rows, -(-queries // parts)))
    return ceil_to(max(1, rows), form.tile.rows)


def attention_source(form: AttentionForm, score: Score, epilogue: Epilogue, label: str = "attention") -> KernelSource:
    """The kernel of `form`.

    Parameters, in order: `q`, `k`, `v` (of form.dtype), the score's, the epilogue's, heads, heads_per_key
    (query heads that share one head of keys and values), queries, keys, depth (elements of a query and a
    key), width (of a value), for each of q, k, v the first element and the strides over batch, head and row
    in elements (the last axis has stride 1), `past` where causal, rows_per_tile. The epilogue's m is the
    query, n the element of the value, batch is batch * heads + head. A query that sees no key gives zeros.
    """
    return kernel_source(label, _parameters(form, score, epilogue), _Printer(form, score, epilogue).body())


def _parameters(form: AttentionForm, score: Score, epilogue: Epilogue) -> tuple[Parameter, ...]:
    operands = [f"{name}_{part}" for name in "qkv" for part in ("first", "batch", "head", "row")]
    return (
        *(Parameter(name, f"{form.dtype}*") for name in "qkv"),
        *score.parameters,
        *epilogue.parameters,
        *sizes("heads", "heads_per_key", "queries", "keys", "depth", "width", *operands),
        *(sizes("past") if form.causal else ()),
        *sizes("rows_per_tile"),
    )


class _Printer:
    def __init__(self, form: AttentionForm, score: Score, epilogue: Epilogue) -> None:
        self.form, self.score, self.epilogue = form, score, epilogue
        self.tile = form.tile
        self.columns = form.tile.columns
        self.element = form.tile.element.itemsize
        self.suffix = f"f{form.tile.element.bits}"

    def body(self) -> list[str]:
        return [
            *self._layout(),
            "row_groups = int_div(queries + rows_per_tile - 1, rows_per_tile)",
            "packed = -1",
            "for tile in range(begin, end):",
            "    row_group = int_rem(tile, row_groups)",
            "    product = int_div(tile, row_groups)",
            "    batch = int_div(product, heads)",
            "    head = product - batch * heads",
            "    key_head = int_div(head, heads_per_key)",
            "    if batch * heads + key_head != packed:",
            "        packed = batch * heads + key_head",
            *indent(self._pack_keys(), 2),
            *indent(self._pack_values(), 2),
            "    first_row = row_group * rows_per_tile",
            "    row_count = min(rows_per_tile, queries - first_row)",
            f"    for row in range(0, row_count, {self.tile.rows}):",
            f"        rows = min({self.tile.rows}, row_count - row)",
            *indent(self._scores(), 2),
            *indent(self._softmax(), 2),
            *indent(self._values(), 2),
        ]

    def _layout(self) -> list[str]:
        """Lines that lay out scratch memory."""
        kind, rows = self.tile.dtype, self.tile.rows
        line = CACHE_LINE // self.element
        return [
            f"depth_pitch = (depth + {2 * line - 1}) // {2 * line} * {2 * line} + {line}",
            f"key_pitch = (keys + {2 * line - 1}) // {2 * line} * {2 * line} + {line}",
            f"key_panels = (keys + {self.columns - 1}) // {self.columns}",
            f"value_panels = (width + {self.columns - 1}) // {self.columns}",
            "table = scratch(ctx, int64, 0)",
            f"scales = scratch(ctx, {kind}, {_TABLE_ENTRIES * ADDRESS_BYTES})",
            f"staged = scratch(ctx, {kind}, {_header_bytes(self.tile)})",
            f"weights = offset(staged, {rows} * depth_pitch)",
            f"key_panel = offset(weights, {rows} * key_pitch)",
            f"value_panel = offset(key_panel, key_panels * depth * {self.columns})",
            f"sums = stack({kind}, {rows * self.columns})",
        ]

    def _pack_keys(self) -> list[str]:
        """Lines that transpose a head's keys into panels; columns past the last key are left as they are."""
        columns, lanes = self.columns, self.tile.lanes
        has_squares = self.form.dtype == self.tile.dtype
        square = (
            f"{transpose_name(self.tile.dtype, lanes)}(offset(source, i), k_row, offset(out, i * {columns}), {columns})"
        )
        return [
            "k_start = k_first + batch * k_batch + key_head * k_head",
            f"for key in range(0, keys, {lanes}):",
            "    source = offset(k, k_start + key * k_row)",
            f"    out = offset(key_panel, key // {columns} * {columns} * depth + key % {columns})",
            f"    squares = depth // {lanes} * {lanes}" if has_squares else "    squares = 0",
            f"    if key + {lanes} > keys:",
            "        squares = 0",
            *([f"    for i in range(0, squares, {lanes}):", f"        {square}"] if has_squares else []),
            f"    for j in range(min({lanes}, keys - key)):",
            "        for i in range(squares, depth):",
            f"            store(out, i * {columns} + j, load(source, j * k_row + i))",
        ]

    def _pack_values(self) -> list[str]:
        """Lines that copy a head's values into panels; columns past the width are left as they are."""
        columns = self.columns
        return [
            "v_start = v_first + batch * v_batch + key_head * v_head",
            f"for first in range(0, width, {columns}):",
            f"    used = min({columns}, width - first)",
            "    for key in range(keys):",
            "        source = offset(v, v_start + key * v_row + first)",
            f"        out = offset(value_panel, first * keys + key * {columns})",
            "        for j in range(used):",
            "            store(out, j, load(source, j))",
        ]

    def _scores(self) -> list[str]:
        """Lines that write the scores of a block's queries to `weights`."""
        columns = self.columns
        lines, score = self.score.lines("total", "batch", "head", "query", "key")
        seen = "min(keys, max(0, first_row + row + rows + past))" if self.form.causal else "keys"
        return [
            f"seen = {seen}",
            "q_start = q_first + batch * q_batch + head * q_head + (first_row + row) * q_row",
            "for i in range(rows):",
            "    for d in range(depth):",
            "        store(staged, i * depth_pitch + d, load(q, q_start + i * q_row + d))",
            *_point_table(self.tile.rows, "staged", "depth_pitch"),
            f"for first_key in range(0, seen, {columns}):",
            "    panel = offset(key_panel, first_key * depth)",
            f"    {self.tile.name}(table, rows, 1, depth, panel, sums, address(panel), 0)",
            f"    used = min({columns}, seen - first_key)",
            "    for i in range(rows):",
            "        query = first_row + row + i",
            "        out = offset(weights, i * key_pitch + first_key)",
            "        for j in range(used):",
            "            key = first_key + j",
            f"            total = load(sums, i * {columns} + j)",
            *indent(lines, 3),
            f"            store(out, j, {score})",
        ]

    def _softmax(self) -> list[str]:
        """Lines that turn a block's scores into weights and the reciprocals of their sums."""
        kind = self.tile.dtype
        own = "min(seen, max(0, first_row + row + i + past + 1))" if self.form.causal else "seen"
        return [
            "for i in range(rows):",
            "    out = offset(weights, i * key_pitch)",
            f"    own = {own}",
            f"    largest = -{kind}(inf)",
            "    for j in range(own):",
            "        largest = maximum(largest, load(out, j))",
            f"    total = {kind}(0.0)",
            "    for j in range(own):",
            f"        weight = exp_{self.suffix}(load(out, j) - largest)",
            "        store(out, j, weight)",
            "        total = sum_step(total, weight)",
            "    for j in range(own, seen):",
            f"        store(out, j, {kind}(0.0))",
            f"    store(scales, i, {kind}(1.0) / total if own > 0 else {kind}(0.0))",
            *_point_table(self.tile.rows, "weights", "key_pitch"),
        ]

    def _values(self) -> list[str]:
        """Lines that multiply a block's weights by the values and hand the results to the epilogue."""
        columns = self.columns
        lines = self.epilogue.lines("total", "m_index", "n_index", "product")
        return [
            f"for first in range(0, width, {columns}):",
            "    panel = offset(value_panel, first * keys)",
            f"    {self.tile.name}(table, rows, 1, seen, panel, sums, address(panel), 0)",
            f"    used = min({columns}, width - first)",
            "    for i in range(rows):",
            "        m_index = first_row + row + i",
            "        scale = load(scales, i)",
            "        for j in range(used):",
            "            n_index = first + j",
            f"            total = load(sums, i * {columns} + j) * scale",
            *indent(lines, 3),
        ]


def _point_table(height: int, rows: str, pitch: str) -> list[str]:
    """Lines that fill the table with the addresses of a block's rows in scratch memory."""
    return [
        f"for i in range({height}):",
        f"    store(table, i, address(offset({rows}, min(i, rows - 1) * {pitch})))",
    ]
