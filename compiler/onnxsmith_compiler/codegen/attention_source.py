"""Prints attention, softmax(score(Q K^T)) V, as one kernel that holds no more of the scores than a block of
rows.

For each product the keys are transposed into panels and the values copied into panels, in scratch memory, once
where products that follow each other share them. Then, block of queries by block: products with the keys by
register tiles, softmax over whole rows, products with the values.
"""

from __future__ import annotations

from onnxsmith_compiler.codegen.attention_form import TABLE_BYTES, AttentionForm
from onnxsmith_compiler.codegen.attention_softmax import softmax_name
from onnxsmith_compiler.codegen.contraction_source import indent, kernel_source, sizes
from onnxsmith_compiler.codegen.epilogue import Score
from onnxsmith_compiler.codegen.scalar_text import literal
from onnxsmith_compiler.codegen.source import KernelSource, Parameter
from onnxsmith_compiler.codegen.transpose import transpose_name


def attention_source(form: AttentionForm, score: Score, label: str = "attention") -> KernelSource:
    """The kernel of `form`.

    Parameters, in order: `q`, `k`, `v` (of form.dtype), the score's, `y` (of form.dtype), the sizes of the outer axes,
    queries, keys, depth (elements of a query and a key), width (of a value), for each of q, k, v and y the first
    element and the strides over the outer axes and the rows in elements (the last axis has stride 1), `past` where
    causal, rows_per_tile. A query that sees no key gives zeros.
    """
    return kernel_source(label, _parameters(form, score), _Printer(form, score).body())


def _axis_names(count: int) -> list[str]:
    return [f"outer_{letter}" for letter in "abcdefgh"[:count]]


def _parameters(form: AttentionForm, score: Score) -> tuple[Parameter, ...]:
    axes = _axis_names(form.outer)
    operands = [f"{name}_{part}" for name in "qkvy" for part in ("first", *axes, "row")]
    return (
        *(Parameter(name, f"{form.dtype}*") for name in "qkv"),
        *score.parameters,
        Parameter("y", f"{form.dtype}*", noalias=True),
        *sizes(*(f"{axis}_size" for axis in axes), "queries", "keys", "depth", "width", *operands),
        *(sizes("past") if form.causal else ()),
        *sizes("rows_per_tile"),
    )


class _Printer:
    def __init__(self, form: AttentionForm, score: Score) -> None:
        self.form, self.score = form, score
        self.tile = form.tile
        self.columns = form.tile.columns

    def body(self) -> list[str]:
        return [
            *self._layout(),
            "row_groups = int_div(queries + rows_per_tile - 1, rows_per_tile)",
            "packed_keys = -1",
            "packed_values = -1",
            "for tile in range(begin, end):",
            "    product = int_div(tile, row_groups)",
            "    first_row = (tile - product * row_groups) * rows_per_tile",
            "    row_count = min(rows_per_tile, queries - first_row)",
            *indent(self._origins()),
            "    if k_start != packed_keys:",
            "        packed_keys = k_start",
            *indent(self._pack_keys(), 2),
            "    if v_start != packed_values:",
            "        packed_values = v_start",
            *indent(self._pack_values(), 2),
            f"    for row in range(first_row, first_row + row_count, {self.tile.rows}):",
            f"        rows = min({self.tile.rows}, first_row + row_count - row)",
            *indent(self._scores(), 2),
            *indent(self._softmax(), 2),
            *indent(self._values(), 2),
        ]

    def _origins(self) -> list[str]:
        """Lines that find the indices of a product, and its first elements in all tensors."""
        axes = _axis_names(self.form.outer)
        lines = ["rest = product"]
        for axis in axes[:0:-1]:
            lines += [f"{axis} = int_rem(rest, {axis}_size)", f"rest = int_div(rest, {axis}_size)"]
        lines += [f"{axes[0]} = rest"]
        for name in "qkvy":
            lines.append(f"{name}_start = " + " + ".join([f"{name}_first", *(f"{a} * {name}_{a}" for a in axes)]))
        return [*lines, *self.score.origin(axes)]

    def _layout(self) -> list[str]:
        """Lines that lay out scratch memory."""
        kind, rows = self.tile.dtype, self.tile.rows
        return [
            f"depth_pitch = {self.form.pitch('depth')}",
            f"key_pitch = {self.form.pitch('keys')}",
            f"square_depth = (depth + {self.tile.lanes - 1}) // {self.tile.lanes} * {self.tile.lanes}",
            f"key_panels = (keys + {self.columns - 1}) // {self.columns}",
            f"value_panels = (width + {self.columns - 1}) // {self.columns}",
            "table = scratch(ctx, int64, 0)",
            f"scales = scratch(ctx, {kind}, {TABLE_BYTES})",
            f"staged = scratch(ctx, {kind}, {self.form.header_bytes})",
            f"weights = offset(staged, {self.form.staged_rows} * depth_pitch)",
            f"key_panel = offset(weights, {rows} * key_pitch)",
            f"value_panel = offset(key_panel, key_panels * square_depth * {self.columns})",
            f"sums = stack({kind}, {rows * self.columns})",
            f"tops = stack({kind}, {rows * self.columns})",
        ]

    def _pack_keys(self) -> list[str]:
        """Lines that transpose a product's keys into panels, square by square.

        The last key fills what is left of the last panel: what scratch memory held before may be subnormal numbers,
        which processors multiply a hundred times slower.
        """
        columns, lanes = self.columns, self.tile.lanes
        transpose = transpose_name(self.tile.dtype, lanes)
        stage = [
            f"for j in range({lanes}):",
            *indent(self._stage("offset(k, k_start + min(key + j, keys - 1) * k_row)", "j")),
        ]
        out = f"offset(key_panel, key // {columns} * {columns} * square_depth + key % {columns} + i * {columns})"
        staged = [*stage, f"for i in range(0, depth, {lanes}):"]
        staged += [f"    {transpose}(offset(staged, i), depth_pitch, {out}, {columns})"]
        lines = [f"for key in range(0, key_panels * {columns}, {lanes}):"]
        if self.form.dtype != self.tile.dtype:
            return [*lines, *indent(staged)]
        return [
            *lines,
            f"    if key + {lanes} <= keys and square_depth == depth:",
            f"        for i in range(0, depth, {lanes}):",
            f"            {transpose}(offset(k, k_start + key * k_row + i), k_row, {out}, {columns})",
            "    else:",
            *indent(staged, 2),
        ]

    def _stage(self, source: str, row: str, scale: float = 1.0) -> list[str]:
        """Lines that copy a row of `depth` elements to row `row` of `staged`, with zeros up to whole vectors.

        Rows there do not compete for the same lines of the cache.
        """
        lanes = self.tile.lanes
        element = self._zero_beyond("load(source, first + d)", "first + d < depth")
        factor = "" if scale == 1.0 else f" * {literal(scale, self.tile.element)}"
        return [
            f"source = {source}",
            f"out = offset(staged, {row} * depth_pitch)",
            f"for first in range(0, depth, {lanes}):",
            f"    for d in range({lanes}):",
            f"        store(out, first + d, ({element}){factor})",
        ]

    def _pack_values(self) -> list[str]:
        """Lines that copy a product's values into panels, with zeros past the width."""
        columns = self.columns
        return [
            f"for first in range(0, width, {columns}):",
            f"    used = min({columns}, width - first)",
            "    for key in range(keys):",
            "        source = offset(v, v_start + key * v_row + first)",
            f"        out = offset(value_panel, first * keys + key * {columns})",
            f"        for j in range({columns}):",
            f"            store(out, j, {self._zero_beyond('load(source, j)', 'j < used')})",
        ]

    def _zero_beyond(self, element: str, condition: str) -> str:
        """An element that is read where there is one: loops over whole vectors need no remainder."""
        return f"{self.tile.dtype}({element}) if {condition} else {self.tile.dtype}(0.0)"

    def _scores(self) -> list[str]:
        """Lines that write the scores of a block's queries to `weights`, and the largest of each lane to `tops`."""
        kind, columns = self.tile.dtype, self.columns
        lines, score = self.score.lines("total", "query", "key", "j < used")
        seen = "min(keys, max(0, row + rows + past))" if self.form.causal else "keys"
        visible = "j < used and key <= query + past" if self.form.causal else "j < used"
        return [
            f"seen = {seen}",
            "for i in range(rows):",
            *indent(self._stage("offset(q, q_start + (row + i) * q_row)", "i", self.form.scale)),
            *_point_table(self.tile.rows, "staged", "depth_pitch"),
            f"for i in range(rows * {columns}):",
            f"    store(tops, i, -{kind}(inf))",
            f"for first_key in range(0, seen, {columns}):",
            "    panel = offset(key_panel, first_key * square_depth)",
            f"    {self.tile.name}(table, rows, 1, depth, panel, sums, address(panel), 0, 0)",
            f"    used = min({columns}, seen - first_key)",
            "    for i in range(rows):",
            "        query = row + i",
            "        out = offset(weights, i * key_pitch + first_key)",
            f"        for j in range({columns}):",
            "            key = first_key + j",
            f"            total = load(sums, i * {columns} + j)",
            *indent(lines, 3),
            f"            score = select({visible}, {score}, -{kind}(inf))",
            "            store(out, j, score)",
            f"            top = load(tops, i * {columns} + j)",
            f"            store(tops, i * {columns} + j, select(score > top, score, top))",
        ]

    def _softmax(self) -> list[str]:
        """Lines that turn a block's scores into weights and the reciprocals of their sums, `scales`."""
        blind = "max(0, -(row + past))" if self.form.causal else "0"
        name = softmax_name(self.tile.dtype, self.columns)
        return [
            f"{name}(weights, tops, scales, rows, {blind}, seen, key_pitch)",
            *_point_table(self.tile.rows, "weights", "key_pitch"),
        ]

    def _values(self) -> list[str]:
        """Lines that multiply a block's weights by the values and store the results."""
        columns = self.columns
        return [
            f"for first in range(0, width, {columns}):",
            "    panel = offset(value_panel, first * keys)",
            f"    {self.tile.name}(table, rows, 1, seen, panel, sums, address(panel), 0, 0)",
            f"    used = min({columns}, width - first)",
            "    for i in range(rows):",
            "        result = offset(y, y_start + (row + i) * y_row + first)",
            "        scale = load(scales, i)",
            f"        for j in range({columns}):",
            "            if j < used:",
            f"                store(result, j, load(sums, i * {columns} + j) * scale)",
        ]


def _point_table(height: int, rows: str, pitch: str) -> list[str]:
    """Lines that fill the table with the addresses of a block's rows in scratch memory."""
    return [
        f"for i in range({height}):",
        f"    store(table, i, address(offset({rows}, min(i, rows - 1) * {pitch})))",
    ]
