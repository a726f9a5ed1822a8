"""Tensors made larger or made of nothing: Pad, Tile, Range."""

from __future__ import annotations

from onnxsmith_compiler.ir import dim as dims
from onnxsmith_compiler.ir import dtype as dtypes
from onnxsmith_compiler.ir.dim import Dim
from onnxsmith_compiler.ir.graph import Value
from onnxsmith_compiler.onnx.node_import import NodeImport
from onnxsmith_compiler.ops.base import normalize_axis
from onnxsmith_compiler.ops.view import Iota, Pad


def pad(node: NodeImport) -> Value:
    """Amounts are an attribute before opset 11, an input since; since opset 18 for some axes alone."""
    x = node.input(0)
    amounts: list[Dim]
    if node.version < 11:
        amounts, fill = (
            list(node.ints("pads") or node.ints("paddings") or []),
            node.constant(node.float("value", 0.0), x.dtype),
        )
        axes = list(range(x.rank))
    else:
        amounts = node.sizes(node.input(1), "pads")
        given, chosen = node.optional(2), node.optional(3)
        fill = node.constant(0, x.dtype) if given is None else node.reshape(given, ())
        axes = (
            list(range(x.rank))
            if chosen is None
            else [normalize_axis(a, x.rank) for a in node.integers(chosen, "axes")]
        )
    if len(amounts) != 2 * len(axes):
        raise node.invalid(f"{len(amounts)} pads for {len(axes)} axes: expected two for each")
    before: list[Dim] = [0] * x.rank
    after: list[Dim] = [0] * x.rank
    for number, axis in enumerate(axes):
        before[axis], after[axis] = amounts[number], amounts[number + len(axes)]
    if all(amount == 0 for amount in (*before, *after)):
        return x
    op = Pad(tuple(before), tuple(after), node.string("mode", "constant"))
    return node.emit(op, x, fill) if op.mode == "constant" else node.emit(op, x)


def tile(node: NodeImport) -> Value:
    x = node.input(0)
    repeats = node.sizes(node.input(1), "repeats")
    if len(repeats) != x.rank:
        raise node.invalid(f"{len(repeats)} repeats for {x.rank} axes")
    pairs = tuple(part for size in x.shape for part in (1, size))
    wide = tuple(part for count, size in zip(repeats, x.shape, strict=True) for part in (count, size))
    whole = tuple(count * size for count, size in zip(repeats, x.shape, strict=True))
    return node.reshape(node.expand(node.reshape(x, pairs), wide), whole)


def range_(node: NodeImport) -> Value:
    """start, start + delta, ... up to but without limit."""
    start, limit, delta = (node.reshape(node.input(number), ()) for number in range(3))
    count = _count(node, start, limit, delta)
    steps = node.cast(node.emit(Iota((count,), 0)), start.dtype)
    return node.add(start, node.mul(steps, delta))


def _count(node: NodeImport, start: Value, limit: Value, delta: Value) -> Dim:
    """How many elements a range has: from sizes where they are known, else computed when the model runs."""
    if start.known is not None and limit.known is not None and delta.known is not None:
        step = delta.known.item()
        if isinstance(step, int) and step:
            distance = limit.known.item() - start.known.item()
            return dims.maximum(0, dims.ceildiv(distance, step) if step > 0 else dims.ceildiv(-distance, -step))
    wide = [node.cast(value, dtypes.FLOAT64) for value in (start, limit, delta)]
    count = node.map("ceil", node.div(node.sub(wide[1], wide[0]), wide[2]))
    return node.sizes(node.cast(node.map("max", count, 0.0), dtypes.INT64), "the number of elements")[0]
