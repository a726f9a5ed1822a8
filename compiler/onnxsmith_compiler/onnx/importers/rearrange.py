"""Rearranged elements: Pad, Tile, DepthToSpace, SpaceToDepth, ReverseSequence."""

from __future__ import annotations

from collections.abc import Sequence

from onnxsmith_compiler.ir import dim as dims
from onnxsmith_compiler.ir.dim import Dim
from onnxsmith_compiler.ir.graph import Relation, Value
from onnxsmith_compiler.onnx.importers.runtime_axes import one_size, runtime_axes
from onnxsmith_compiler.onnx.importers.shape import take
from onnxsmith_compiler.onnx.node_import import NodeImport
from onnxsmith_compiler.ops.base import normalize_axis
from onnxsmith_compiler.ops.checked_sizes import PadAmounts
from onnxsmith_compiler.ops.gather import ReverseSequence
from onnxsmith_compiler.ops.view import Pad

_PAD_MODES = ("constant", "reflect", "edge", "wrap")


def pad(node: NodeImport) -> Value:
    x, mode = node.input(0), node.string("mode", "constant")
    if mode not in _PAD_MODES:
        raise node.invalid(f"mode '{mode}' is unknown: expected one of {', '.join(_PAD_MODES)}")
    before, after = _pads(node, x.rank)
    if all(amount == 0 for amount in (*before, *after)):
        return x
    if mode == "constant":
        return node.emit(Pad(before, after), x, _fill(node, x))
    # elements are removed first, so that what is repeated is what is left
    kept = _without(node, x, before, after)
    for axis, (size, low, high) in enumerate(zip(kept.shape, before, after, strict=True)):
        if size == 0 and any(isinstance(amount, int) and amount > 0 for amount in (low, high)):
            raise node.invalid(f"axis {axis} has no elements that mode '{mode}' could repeat: expected at least 1")
    return node.emit(Pad(_at_least_zero(before), _at_least_zero(after), mode), kept)


def _at_least_zero(amounts: Sequence[Dim]) -> tuple[Dim, ...]:
    return tuple(dims.maximum(0, amount) for amount in amounts)


def _fill(node: NodeImport, x: Value) -> Value:
    given = node.optional(2)
    if given is not None:
        return node.reshape(given, ())
    return node.constant(node.float("value", 0.0) if node.version < 11 else 0, x.dtype)


def _pads(node: NodeImport, rank: int) -> tuple[tuple[Dim, ...], tuple[Dim, ...]]:
    """How many elements to add (negative: remove) before and after each axis."""
    if node.version < 11:
        pads = list[Dim](node.ints("paddings" if node.version < 2 else "pads") or [])
        axes = list(range(rank))
    else:
        late = runtime_axes(node, 3)
        given = node.input(1) if late is None else node.emit(PadAmounts(rank), node.input(1), late)
        pads = node.sizes(given, "pads")
        named = None if late is not None else node.optional(3)
        axes = (
            list(range(rank))
            if named is None
            else [normalize_axis(axis, rank) for axis in node.integers(named, "axes")]
        )
    if len(pads) != 2 * len(axes):
        raise node.invalid(f"there are {len(pads)} pads for {len(axes)} axes: expected two for each")
    before: list[Dim] = [0] * rank
    after: list[Dim] = [0] * rank
    for number, axis in enumerate(axes):
        before[axis], after[axis] = pads[number], pads[len(axes) + number]
    return tuple(before), tuple(after)


def _without(node: NodeImport, x: Value, before: Sequence[Dim], after: Sequence[Dim]) -> Value:
    """`x` without the elements that negative amounts remove."""
    bounds: list[tuple[Dim, Dim, Dim]] = []
    for axis, (size, low, high) in enumerate(zip(x.shape, before, after, strict=True)):
        start = dims.maximum(0, -low)
        left = size - start - dims.maximum(0, -high)
        if isinstance(left, int) and left < 0:
            raise node.invalid(f"pads {low} and {high} remove more than the {size} elements of axis {axis}")
        node.builder.assume(0, left, Relation.AT_MOST)
        bounds.append((start, 1, left))
    return take(node, x, bounds)


def tile(node: NodeImport) -> Value:
    x = node.input(0)
    if node.version < 6:
        return _tile_one_axis(node, x)
    repeats = node.sizes(node.input(1), "repeats")
    if len(repeats) != x.rank:
        raise node.invalid(f"there are {len(repeats)} repeats for {x.rank} axes: expected one for each")
    return repeat(node, x, repeats)


def _tile_one_axis(node: NodeImport, x: Value) -> Value:
    """Opset 1: scalars `tiles` and `axis`."""
    count, (axis,) = one_size(node, node.input(1), "tiles"), node.integers(node.input(2), "axis")
    repeats: list[Dim] = [1] * x.rank
    repeats[normalize_axis(axis, x.rank)] = count
    return repeat(node, x, repeats)


def repeat(node: NodeImport, x: Value, repeats: Sequence[Dim]) -> Value:
    """numpy.tile with one count for each axis."""
    split: list[Dim] = []
    wide: list[Dim] = []
    for count, size in zip(repeats, x.shape, strict=True):
        if count != 1:
            split.append(1)
            wide.append(count)
        split.append(size)
        wide.append(size)
    whole = tuple(count * size for count, size in zip(repeats, x.shape, strict=True))
    return node.reshape(node.expand(node.reshape(x, tuple(split)), tuple(wide)), whole)


def depth_to_space(node: NodeImport) -> Value:
    """[n, c, h, w] to [n, c / b^2, h b, w b]: blocks of channels become blocks of pixels."""
    x, block = node.input(0), node.int("blocksize")
    batch, depth, *sizes = x.shape
    channels = dims.floordiv(depth, block ** len(sizes))
    blocks = [block] * len(sizes)
    count = len(sizes)
    if node.string("mode", "DCR") == "DCR":
        x = node.reshape(x, (batch, *blocks, channels, *sizes))
        front, first_block = [0, count + 1], 1
    else:
        x = node.reshape(x, (batch, channels, *blocks, *sizes))
        front, first_block = [0, 1], 2
    order = [axis for number in range(count) for axis in (count + 2 + number, first_block + number)]
    x = node.transpose(x, [*front, *order])
    return node.reshape(x, (batch, channels, *(size * block for size in sizes)))


def space_to_depth(node: NodeImport) -> Value:
    """[n, c, h, w] to [n, c b^2, h / b, w / b]: blocks of pixels become blocks of channels."""
    x, block = node.input(0), node.int("blocksize")
    batch, channels, *sizes = x.shape
    small = [dims.floordiv(size, block) for size in sizes]
    split = [part for size in small for part in (size, block)]
    x = node.reshape(x, (batch, channels, *split))
    inner = [3 + 2 * number for number in range(len(sizes))]
    outer = [2 + 2 * number for number in range(len(sizes))]
    depth = [*inner, 1] if node.string("mode", "DCR") == "DCR" else [1, *inner]
    x = node.transpose(x, [0, *depth, *outer])
    return node.reshape(x, (batch, channels * block ** len(sizes), *small))


def reverse_sequence(node: NodeImport) -> Value:
    time, batch = node.int("time_axis", 0), node.int("batch_axis", 1)
    return node.emit(ReverseSequence(time, batch), node.input(0), node.input(1))
