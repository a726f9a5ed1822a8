"""Recognises masks that hide what comes after a query's own position, whether computed or constant."""

from __future__ import annotations

import numpy as np

from onnxsmith_compiler.ir import loop
from onnxsmith_compiler.ir.atom import LoopIndex
from onnxsmith_compiler.ir.bounds import is_nonnegative
from onnxsmith_compiler.ir.dim import Dim
from onnxsmith_compiler.ir.graph import Value
from onnxsmith_compiler.ops.attention import Strided
from onnxsmith_compiler.passes.strided import Producers

_DEEPEST = 32
_HIDDEN = -1e30
"""A score this low or lower has the weight 0 beside any that is not."""


def causal_past(mask: Value, index: loop.Index, row: LoopIndex, column: LoopIndex, producers: Producers) -> Dim | None:
    """How many keys stand before the first query's own, where element `index` of the mask is 0 or hides what comes
    after the query's position; None where it is not so, or where a query may see no key."""
    match _element(mask, index, producers, _DEEPEST):
        case loop.Apply(
            function="select",
            arguments=(
                loop.Apply(function="le", arguments=(ahead, loop.Const(value=0))),
                loop.Const(value=seen),
                loop.Const(value=hidden),
            ),
        ) if seen == 0 and hidden <= _HIDDEN:
            distance = _integer(ahead)
        case _:
            return None
    if distance is None:
        return None
    difference = loop.index_of((column,))[0] - loop.index_of((row,))[0]
    past = difference - distance
    return past if not loop.loop_indices(past) and is_nonnegative(past) else None


def constant_past(mask: Value, view: Strided, rows: Dim, columns: Dim) -> int | None:
    """As `causal_past`, of a constant mask that lies as `view` says."""
    *outer, row, column = view.strides
    if mask.data is None or not (isinstance(rows, int) and isinstance(columns, int)) or not rows or not columns:
        return None
    offset = view.offset
    if any(stride != 0 for stride in outer):
        return None
    if not (isinstance(row, int) and isinstance(column, int) and isinstance(offset, int)):
        return None
    places = offset + np.arange(rows)[:, None] * row + np.arange(columns) * column
    elements = mask.data.reshape(-1)[places].astype(np.float64)
    past = int(np.count_nonzero(elements[0] == 0)) - 1
    sees = np.arange(columns) <= np.arange(rows)[:, None] + past
    is_causal = past >= 0 and (elements[sees] == 0).all() and (elements[~sees] <= _HIDDEN).all()
    return past if is_causal and not sees.all() else None


def _element(value: Value, index: loop.Index, producers: Producers, depth: int) -> loop.Expr:
    """Element `index` of `value` as an expression of what is in memory, or of nothing but its place."""
    if value.is_constant and value.type.size == 1:
        assert value.data is not None
        return loop.const(value.data.reshape(-1)[0].item(), value.dtype)
    node = producers.get(value)
    lowered = None if node is None or depth == 0 else node.op.lower(node)
    if not isinstance(lowered, loop.Computation) or lowered.reduce or lowered.store is not None:
        return loop.load(value, index)
    body = loop.substitute(lowered.body, dict(zip(lowered.axes, index, strict=True)))

    def visit(expr: loop.Expr) -> loop.Expr | None:
        return _element(expr.value, expr.index, producers, depth - 1) if isinstance(expr, loop.Load) else None

    return loop.rewrite(body, visit, lambda dim: dim)


def _integer(expr: loop.Expr) -> Dim | None:
    """An integer expression over places and sizes as a Dim."""
    match expr:
        case loop.IndexValue(dim=dim):
            return dim
        case loop.Const(value=int(value)):
            return value
        case loop.Apply(function="add" | "sub" as function, arguments=(left, right)):
            a, b = _integer(left), _integer(right)
            if a is None or b is None:
                return None
            return a + b if function == "add" else a - b
    return None
