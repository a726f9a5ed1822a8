"""Reductions of much into little: threads share them as partial results, combined in a fixed order."""

from __future__ import annotations

from onnxsmith_compiler.ir import dim as dims
from onnxsmith_compiler.ir import loop
from onnxsmith_compiler.ir.atom import LoopIndex
from onnxsmith_compiler.ir.dim import Dim
from onnxsmith_compiler.ir.graph import TensorType, Value
from onnxsmith_compiler.ir.loop import Computation
from onnxsmith_compiler.schedule.groups import Stage

FEWEST_TILES = 4
"""As many tiles are work enough for the threads."""
LEAST_ELEMENTS = 1 << 16
"""Reductions of fewer elements in all stay whole."""
MOST_PARTS = 64
LANES = 64
"""Neighbouring results that a vertical reduction computes in one tile."""


def split_reduction(stage: Stage, vertical: bool) -> tuple[Stage, Stage] | None:
    """A long reduction with few results in two stages, the first with an outer axis of parts; None for others.

    The number of parts depends on the sizes alone, so that results do not depend on the number of threads.
    """
    computation = stage.computation
    if not computation.reduce or computation.store is not None or computation.combine.startswith("arg"):
        return None
    extents = [axis.extent for axis in computation.axes if axis.extent != 1]
    results, reduced = dims.product(extents), dims.product([axis.extent for axis in computation.reduce])
    if not isinstance(results, int) or not isinstance(reduced, int) or results * reduced < LEAST_ELEMENTS:
        return None
    tiles = dims.product([*extents[:-1], dims.ceildiv(extents[-1], LANES)]) if vertical else results
    assert isinstance(tiles, int)
    longest = next(axis for axis in computation.reduce if axis.extent != 1)
    parts = _parts(longest.extent)
    if tiles >= FEWEST_TILES or parts < FEWEST_TILES:
        return None
    return _partial(stage, longest, parts)


def _parts(extent: Dim) -> int:
    """The largest divisor that is not too many parts."""
    assert isinstance(extent, int)
    return next(parts for parts in range(MOST_PARTS, 0, -1) if extent % parts == 0)


def _partial(stage: Stage, split: LoopIndex, parts: int) -> tuple[Stage, Stage]:
    computation, dtype = stage.computation, stage.output.dtype.compute
    part = LoopIndex("part", parts)
    rest = LoopIndex(split.name, dims.floordiv(split.extent, parts))
    place = {split: dims.from_atom(part) * rest.extent + dims.from_atom(rest)}
    first = Computation(
        (part, *computation.axes),
        loop.substitute(computation.body, place),
        tuple(rest if axis == split else axis for axis in computation.reduce),
        computation.combine,
        None if computation.guard is None else loop.substitute(computation.guard, place),
    )
    value = Value(f"{stage.output.name}_parts", TensorType(dtype, (parts, *stage.output.shape)))
    element = loop.load(value, (dims.from_atom(part), *loop.index_of(computation.axes)))
    second = Computation(computation.axes, element, (part,), computation.combine)
    return Stage(value, first, stage.origins), Stage(stage.output, second, stage.origins)
