"""Walks decision trees: prints the kernel for how an ensemble's records and leaves are laid out (`ops.tree_layout`).

Several rows go down one tree side by side, or where rows are few one row goes down several trees, so that the
loads of one walk are in flight while another waits for its own. A step has no branch: a node's two children stand
next to each other, and leaves lead to themselves (`codegen.tree_steps`).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from onnxsmith_compiler.ops.lowering import LibraryCall
from onnxsmith_compiler.ops.trees import TREE_LANES, TREE_ROWS

_CHUNK = 4
"""Steps between two looks whether every lane has arrived."""
_COMBINE = {"sum": "{0} + {1}", "min": "select({1} < {0}, {1}, {0})", "max": "select({1} > {0}, {1}, {0})"}
_START = {"sum": "0", "min": "inf", "max": "-inf"}
_TABLES = {"single": (), "dense": ("slots",), "sparse": ("slots", "starts", "ids")}


@dataclass(frozen=True)
class _Form:
    """What the text depends on; see `ops.trees.TreeEnsemble`. `targets` is a literal or the parameter's name."""

    aggregate: str
    leaves: str
    type: str
    narrow: bool
    targets: str

    def combine(self, total: str, value: str) -> str:
        return _COMBINE[self.aggregate].format(total, value)

    @property
    def start(self) -> str:
        return f"{self.type}({_START[self.aggregate]})"

    @property
    def step(self) -> str:
        """The function that takes one step; see `codegen.tree_steps`."""
        return f"narrow_step_{self.type}" if self.narrow else f"step_{self.type}"


def walk_trees(call: LibraryCall) -> str:
    """Arguments: x [rows, width], records, trees [count, 3], values, tables of leaves, y [rows, targets], sizes.

    A tile is `TREE_ROWS` rows.
    """
    variant = dict(call.variant)
    form = _Form(
        variant["AGGREGATE"], variant["LEAVES"], variant["TYPE"], variant["NARROW"] == "True", variant["TARGETS"]
    )
    tables = "".join(f"{name}, " for name in _TABLES[form.leaves])
    lines = [
        f"def kernel(ctx, x, records, trees, values, {tables}y, rows, width, count, targets, begin, end):",
        "    for tile in range(begin, end):",
        f"        first = tile * {TREE_ROWS}",
        f"        last = minimum(first + {TREE_ROWS}, rows)",
        f"        whole = first + int_div(last - first, {TREE_LANES}) * {TREE_LANES}",
        f"        for place in range(first * {form.targets}, last * {form.targets}):",
        f"            store(y, place, {form.start})",
        *_indent(_rows_side_by_side(form), 2),
        *_indent(_trees_side_by_side(form), 2),
        "    return 0",
    ]
    return "\n".join(lines) + "\n"


def _indent(lines: Iterator[str], levels: int = 1) -> list[str]:
    return ["    " * levels + line for line in lines]


def _step(form: _Form, lane: int, row: str, old: str = "") -> str:
    """Moves a lane on, from the node `old` where that is not its own."""
    return f"n{lane} = {form.step}(records, {row}, {old or f'n{lane}'})"


def _walk(form: _Form, rows: Sequence[str], depth: str) -> Iterator[str]:
    """Moves every lane from its root to its leaf; `rows` are the pointers to the lanes' features."""
    lanes = range(len(rows))
    yield f"for step in range({depth} & {_CHUNK - 1}):"
    yield from _indent(_step(form, lane, rows[lane]) for lane in lanes)
    yield f"for chunk in range({depth} >> {_CHUNK.bit_length() - 1}):"
    for _ in range(_CHUNK - 1):
        yield from _indent(_step(form, lane, rows[lane]) for lane in lanes)
    yield from _indent(f"p{lane} = n{lane}" for lane in lanes)
    yield from _indent(_step(form, lane, rows[lane], f"p{lane}") for lane in lanes)
    yield f"    if {' | '.join(f'(n{lane} ^ p{lane})' for lane in lanes)} == 0:"
    yield "        break"


def _rows_side_by_side(form: _Form) -> Iterator[str]:
    lanes = range(TREE_LANES)
    yield "if whole > first:"
    yield "    for tree in range(count):"
    yield "        root = load(trees, tree * 3)"
    yield "        depth = load(trees, tree * 3 + 1)"
    if form.leaves == "single":
        yield "        totals = offset(y, load(trees, tree * 3 + 2))"
    yield f"        for row in range(first, whole, {TREE_LANES}):"
    for lane in lanes:
        yield f"            x{lane} = offset(x, (row + {lane}) * width)"
        yield f"            n{lane} = root"
    yield from _indent(_walk(form, [f"x{lane}" for lane in lanes], "depth"), 3)
    for lane in lanes:
        yield from _indent(_add_leaf(form, lane), 3)


def _add_leaf(form: _Form, lane: int) -> Iterator[str]:
    """Takes lane's leaf into the totals of its row."""
    if form.leaves == "single":
        yield f"a{lane} = (row + {lane}) * {form.targets}"
        total = form.combine(f"load(totals, a{lane})", f"load(values, n{lane})")
        yield f"store(totals, a{lane}, {total})"
    else:
        yield f"y{lane} = offset(y, (row + {lane}) * {form.targets})"
        yield from _add_entries(form, lane, f"y{lane}")


def _add_entries(form: _Form, lane: int, totals: str) -> Iterator[str]:
    yield f"s{lane} = int64(load(slots, n{lane}))"
    if form.leaves == "dense":
        yield f"v{lane} = offset(values, s{lane} * {form.targets})"
        yield f"for k in range({form.targets}):"
        yield f"    store({totals}, k, {form.combine(f'load({totals}, k)', f'load(v{lane}, k)')})"
    else:
        yield f"for entry in range(int64(load(starts, s{lane})), int64(load(starts, s{lane} + 1))):"
        yield "    k = int64(load(ids, entry))"
        yield f"    store({totals}, k, {form.combine(f'load({totals}, k)', 'load(values, entry)')})"


def _trees_side_by_side(form: _Form) -> Iterator[str]:
    """The rows that are left, one by one."""
    lanes = range(TREE_LANES)
    yield "for row in range(whole, last):"
    yield "    features_of_row = offset(x, row * width)"
    yield f"    totals = offset(y, row * {form.targets})"
    if form.leaves == "single":
        yield f"    reached = scratch(ctx, {form.type}, 0)"
    yield f"    together = int_div(count, {TREE_LANES}) * {TREE_LANES}"
    yield f"    for tree in range(0, together, {TREE_LANES}):"
    yield "        depth = int64(0)"
    for lane in lanes:
        yield f"        n{lane} = load(trees, (tree + {lane}) * 3)"
        yield f"        depth = maximum(depth, load(trees, (tree + {lane}) * 3 + 1))"
    yield from _indent(_walk(form, ["features_of_row"] * TREE_LANES, "depth"), 2)
    yield from _indent(_collect(form, TREE_LANES), 2)
    yield "    for tree in range(together, count):"
    yield "        n0 = load(trees, tree * 3)"
    yield "        depth = load(trees, tree * 3 + 1)"
    yield from _indent(_walk(form, ["features_of_row"], "depth"), 2)
    yield from _indent(_collect(form, 1), 2)
    if form.leaves == "single":
        yield f"    for start in range(0, count, {form.targets}):"
        yield f"        for k in range({form.targets}):"
        yield f"            store(totals, k, {form.combine('load(totals, k)', 'load(reached, start + k)')})"


def _collect(form: _Form, lanes: int) -> Iterator[str]:
    """Takes the leaves of `lanes` trees into the totals of one row, in the trees' order."""
    if form.leaves == "single":
        for lane in range(lanes):
            yield f"store(reached, tree + {lane}, load(values, n{lane}))"
    elif form.leaves == "sparse":
        for lane in range(lanes):
            yield from _add_entries(form, lane, "totals")
    else:
        for lane in range(lanes):
            yield f"v{lane} = offset(values, int64(load(slots, n{lane})) * {form.targets})"
        yield f"for k in range({form.targets}):"
        yield "    total = load(totals, k)"
        for lane in range(lanes):
            yield f"    total = {form.combine('total', f'load(v{lane}, k)')}"
        yield "    store(totals, k, total)"
