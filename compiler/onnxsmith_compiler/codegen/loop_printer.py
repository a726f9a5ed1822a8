"""Prints a group of computations as one kernel: maps, rows of reductions and maps, and vertical reductions."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from functools import partial

from onnxsmith_compiler.codegen.kernel_text import KernelText, PrintedKernel
from onnxsmith_compiler.codegen.loop_shape import (
    FlatStage,
    cost_of,
    flatten,
    join_axes,
    rename_rows,
    split_axes,
    split_own_axes,
)
from onnxsmith_compiler.codegen.loop_style import CpuStyle, LoopStyle, serial_loop, serial_loops
from onnxsmith_compiler.codegen.scalar_text import greatest, literal, lowest
from onnxsmith_compiler.codegen.transposing_map import print_transposing_map
from onnxsmith_compiler.codegen.vertical_positions import print_vertical_positions
from onnxsmith_compiler.ir import dim as dims
from onnxsmith_compiler.ir import loop
from onnxsmith_compiler.ir.atom import LoopIndex
from onnxsmith_compiler.ir.dim import Dim
from onnxsmith_compiler.ir.dtype import DType
from onnxsmith_compiler.ir.graph import Value
from onnxsmith_compiler.ops.scalar import SCALAR_FUNCTIONS
from onnxsmith_compiler.schedule.groups import LoopGroup

MAP_BLOCK = 4096
"""Elements of one tile of a map over a single axis."""
VERTICAL_BLOCK = 64
"""Accumulators that a vertical reduction keeps at a time."""
SHORT_AXIS = 64
"""A constant innermost axis up to this length makes tiles of two loops."""


def print_loops(group: LoopGroup, kept: frozenset[Value]) -> PrintedKernel:
    """The kernel of `group`; `kept` are those of its outputs that are read outside it."""
    stages = [flatten(stage.output, stage.computation) for stage in group.stages]
    if len(stages) == 1 and not stages[0].inner and not group.stages[0].computation.reduce:
        return _print_map(stages[0])
    if group.vertical:
        return _print_vertical(stages, group, kept)
    return print_rows(stages, group, kept, CpuStyle())


def _print_map(stage: FlatStage) -> PrintedKernel:
    stage = split_own_axes(stage)
    (stage,), axes = join_axes([stage], stage.axes)
    cost = max(1, _cost(stage))
    crossing = print_transposing_map(stage, axes, cost)
    if crossing is not None:
        return crossing
    text = KernelText()
    if len(axes) <= 1:
        extent: Dim = axes[0].extent if axes else 1
        tiles = dims.ceildiv(extent, MAP_BLOCK)
        stop = f"minimum({text.size(extent)}, end * {MAP_BLOCK})" if axes else "1"
        with serial_loop(text, axes[0] if axes else None, f"range(begin * {MAP_BLOCK}, {stop})"):
            _store(text, stage, text.expr(stage.body))
        nanoseconds: Dim = MAP_BLOCK * cost // 16 + 1
        return _printed(text, stage, tiles, nanoseconds)
    outer, inner = _tile_axes(axes)
    with CpuStyle().rows(text, outer), serial_loops(text, inner):
        _store(text, stage, text.expr(stage.body))
    per_tile = dims.product([axis.extent for axis in inner])
    return _printed(text, stage, dims.product([axis.extent for axis in outer]), per_tile * cost // 16 + 2)


def _tile_axes(axes: tuple[LoopIndex, ...]) -> tuple[tuple[LoopIndex, ...], tuple[LoopIndex, ...]]:
    """The axes that number the tiles, and those that a tile loops over."""
    last = axes[-1].extent
    if len(axes) >= 3 and isinstance(last, int) and last <= SHORT_AXIS:
        return axes[:-2], axes[-2:]
    return axes[:-1], axes[-1:]


def _printed(text: KernelText, stage: FlatStage, tiles: Dim, cost: Dim) -> PrintedKernel:
    return PrintedKernel(text.finish("map"), tuple(text.arguments), tiles, cost)


def _cost(stage: FlatStage) -> int:
    return sum(cost_of(expression, _weight) for expression in stage.expressions()) + 1


def _weight(function: str) -> int:
    spec = SCALAR_FUNCTIONS.get(function)
    return spec.cost if spec is not None else 2


def _store(text: KernelText, stage: FlatStage, result: str) -> None:
    text.line(f"store({text.written(stage.output)}, {text.dim(stage.store)}, {result})")


def _identity(combine: str, dtype: DType) -> str:
    match combine:
        case "sum" | "or":
            return literal(0, dtype)
        case "prod" | "and":
            return literal(1, dtype)
        case "max":
            return lowest(dtype)
    return greatest(dtype)


def _combined(combine: str, dtype: DType, accumulator: str, element: str) -> str:
    match combine:
        case "sum":
            return f"sum_step({accumulator}, {element})"
        case "prod":
            return f"prod_step({accumulator}, {element})"
        case "max" | "or":
            return f"maximum({accumulator}, {element})"
    return f"minimum({accumulator}, {element})"


def print_rows(stages: list[FlatStage], group: LoopGroup, kept: frozenset[Value], style: LoopStyle) -> PrintedKernel:
    """A kernel of rows, each with the stages' loops along it one after the other."""
    stages, rows = _shared_rows(stages, group.rows if len(stages) > 1 else len(stages[0].axes))
    stages = [_join_inner(split_own_axes(stage)) for stage in stages]
    text = KernelText()
    scratch = _RowMemory(text, stages, kept)
    with style.rows(text, rows):
        scratch.declare(style)
        for run in _runs(stages):
            _print_run(text, run, scratch, style)
    inner = _total([dims.product([axis.extent for axis in (*s.axes, *s.inner)]) * max(1, _cost(s)) for s in stages])
    source = text.finish("rows" if len(stages) > 1 else f"reduce_{stages[0].combine}")
    tiles = dims.product([axis.extent for axis in rows])
    return PrintedKernel(source, tuple(text.arguments), tiles, inner // 12 + 5, scratch.bytes)


def _shared_rows(stages: list[FlatStage], count: int) -> tuple[list[FlatStage], tuple[LoopIndex, ...]]:
    """The stages without their `count` outermost axes, which all walk together, and those axes."""
    stages, rows = rename_rows(stages, count)
    stages, rows = split_axes([replace(stage, axes=stage.axes[count:]) for stage in stages], rows)
    return join_axes(stages, rows)


def _total(parts: Sequence[Dim]) -> Dim:
    result: Dim = 0
    for part in parts:
        result = result + part
    return result


def _join_inner(stage: FlatStage) -> FlatStage:
    """Joins the loops within a row; they are the reduction's, or a map's own."""
    if stage.combine.startswith("arg"):
        return stage
    own = stage.inner or stage.axes
    (joined,), axes = join_axes([stage], own)
    return replace(joined, inner=axes) if stage.inner else replace(joined, axes=axes)


class _RowMemory:
    """Where each stage's result lives: a variable of the row, a row of scratch, or the output tensor."""

    def __init__(self, text: KernelText, stages: Sequence[FlatStage], kept: frozenset[Value]) -> None:
        self.text = text
        self.kept = kept
        self.bytes: Dim = 0
        self.rows: dict[Value, tuple[str, Dim]] = {}
        self.sizes: dict[Value, Dim] = {}
        runs = list(_runs(stages))
        for run in runs:
            for stage in run:
                readers = [s for other in runs if other is not run for s in other if stage.output in _values(s)]
                if stage.axes and not stage.combine and stage.output not in kept and readers:
                    size = dims.product([axis.extent for axis in stage.axes])
                    self.rows[stage.output] = (f"row{len(self.rows)}", self.bytes)
                    self.sizes[stage.output] = dims.ceildiv(size * stage.output.dtype.compute.itemsize, 64) * 64
                    self.bytes = self.bytes + self.sizes[stage.output]

    def declare(self, style: LoopStyle) -> None:
        for value, (name, start) in self.rows.items():
            style.row_memory(self.text, name, value.dtype.compute, start, self.sizes[value])


def _values(stage: FlatStage) -> set[Value]:
    return {load.value for expression in stage.expressions() for load in loop.loads(expression)}


def _runs(stages: Sequence[FlatStage]) -> Iterator[list[FlatStage]]:
    """Neighbouring stages that can share one loop: the same extents, none needing a total of the other."""
    run: list[FlatStage] = []
    for stage in stages:
        if run and _shares_loop(run, stage):
            run.append(stage)
        else:
            if run:
                yield run
            run = [stage]
    if run:
        yield run


def _shares_loop(run: list[FlatStage], stage: FlatStage) -> bool:
    def extents(s: FlatStage) -> list[Dim]:
        return [axis.extent for axis in (*s.axes, *s.inner)]

    if extents(run[0]) != extents(stage):
        return False
    totals = {s.output for s in run if s.combine}
    here = {s.output: s for s in run}
    indices = dict(zip((*stage.axes, *stage.inner), (*run[0].axes, *run[0].inner), strict=True))
    for expression in stage.expressions():
        for load in loop.loads(expression):
            if load.value in totals:
                return False
            if load.value in here:
                place = loop.substitute_dim(load.index[0], {a: dims.from_atom(b) for a, b in indices.items()})
                own = here[load.value]
                wanted = loop.substitute_dim(
                    own.store,
                    {a: dims.from_atom(b) for a, b in zip(own.axes, run[0].axes or run[0].inner, strict=True)},
                )
                if place != wanted:
                    return False
    return True


def _print_run(text: KernelText, run: list[FlatStage], memory: _RowMemory, style: LoopStyle) -> None:
    """One loop for all stages of the run, with the reductions' totals known after it."""
    first = run[0]
    axes = (*first.axes, *first.inner)
    aligned = [
        stage.substitute({a: dims.from_atom(b) for a, b in zip((*stage.axes, *stage.inner), axes, strict=True)})
        for stage in run
    ]
    totals: dict[Value, str] = {}
    for stage in aligned:
        if stage.combine:
            totals[stage.output] = _begin_total(text, stage)
    with style.along(text, axes):
        inside: list[Value] = []
        for stage in aligned:
            if stage.combine:
                _accumulate(text, stage, totals[stage.output], axes)
                continue
            result = text.expr(stage.body)
            if axes:
                text.replace_loads(stage.output, result)
                inside.append(stage.output)
                if stage.output in memory.rows:
                    place = _row_offset(axes)
                    text.line(f"store({memory.rows[stage.output][0]}, {text.dim(place)}, {result})")
            else:
                text.replace_loads(stage.output, result)
            if stage.output in memory.kept:
                _store(text, stage, result)
        for value in inside:
            text.restore_loads(value)
            _read_back(text, value, memory, next(s for s in aligned if s.output is value), axes)
    for stage in aligned:
        if stage.combine:
            name, dtype = totals[stage.output], stage.body.dtype
            style.total(text, name, dtype, partial(_combined, stage.combine, dtype))
            text.replace_loads(stage.output, name)
            if stage.output in memory.kept:
                _store(text, stage, totals[stage.output])


def _row_offset(axes: Sequence[LoopIndex]) -> Dim:
    return loop.linear_offset(tuple(axis.extent for axis in axes), tuple(dims.from_atom(axis) for axis in axes))


def _read_back(text: KernelText, value: Value, memory: _RowMemory, stage: FlatStage, axes: Sequence[LoopIndex]) -> None:
    """Later stages read a finished row from scratch, or from the output tensor where it was stored anyway."""
    if value in memory.rows:
        start = loop.substitute_dim(stage.store, dict.fromkeys(axes, 0))
        text.read_from_row(value, memory.rows[value][0], start)
    elif value in memory.kept:
        text.read_from_row(value, text.written(value), 0)


def _begin_total(text: KernelText, stage: FlatStage) -> str:
    name = text.fresh("t")
    if stage.combine.startswith("arg"):
        dtype = stage.body.dtype
        initial = lowest(dtype) if stage.combine.startswith("argmax") else greatest(dtype)
        text.line(f"best_{name} = {initial}")
        text.line(f"{name} = int64({0 if stage.guard is None else -1})")
        return name
    text.line(f"{name} = {_identity(stage.combine, stage.body.dtype)}")
    return name


def _accumulate(text: KernelText, stage: FlatStage, total: str, axes: Sequence[LoopIndex]) -> None:
    with ExitStack() as stack:
        if stage.guard is not None:
            stack.enter_context(text.block(f"if {text.expr(stage.guard)}:"))
        element = text.expr(stage.body)
        if stage.combine.startswith("arg"):
            _accumulate_position(text, stage, total, element, axes)
        else:
            text.line(f"{total} = {_combined(stage.combine, stage.body.dtype, total, element)}")


def _accumulate_position(
    text: KernelText, stage: FlatStage, total: str, element: str, axes: Sequence[LoopIndex]
) -> None:
    sign = ">" if stage.combine.startswith("argmax") else "<"
    last = stage.combine.endswith("last")
    better = f"{element} {sign}{'=' if last else ''} best_{total}"
    if stage.body.dtype.is_float:
        better += f" or isnan({element})" if last else f" or (isnan({element}) and not isnan(best_{total}))"
    if stage.guard is not None:
        better += f" or {total} < int64(0)"
    with text.block(f"if {better}:"):
        text.line(f"best_{total} = {element}")
        text.line(f"{total} = {text.dim(_row_offset(axes)) if axes else 'int64(0)'}")


def _print_vertical(stages: list[FlatStage], group: LoopGroup, kept: frozenset[Value]) -> PrintedKernel:
    stages, rows = rename_rows(stages, len(stages[0].axes))
    stages, rows = split_axes([replace(stage, axes=()) for stage in stages], rows)
    outer, lane = rows[:-1], rows[-1]
    stages, outer = join_axes(stages, outer)
    first = _join_inner(split_own_axes(stages[0]))
    if first.combine.startswith("arg"):
        return print_vertical_positions(first, outer, lane, _cost(first))
    blocks = dims.ceildiv(lane.extent, VERTICAL_BLOCK)
    dtype = first.body.dtype
    text = KernelText()
    text.line(f"acc = stack({dtype}, {VERTICAL_BLOCK})")
    block = LoopIndex("block", blocks)
    with CpuStyle().rows(text, (*outer, block)):
        text.line(f"start = {text.dim(dims.from_atom(block))} * {VERTICAL_BLOCK}")
        text.line(f"width = minimum({VERTICAL_BLOCK}, {text.size(lane.extent)} - start)")
        with text.block("for j in range(width):"):
            text.line(f"store(acc, j, {_identity(first.combine, dtype)})")
        with serial_loops(text, first.inner), ExitStack() as stack:
            lane_guard = first.guard is not None and lane in first.guard.indices
            if first.guard is not None and not lane_guard:
                stack.enter_context(text.block(f"if {text.expr(first.guard)}:"))
            with _lane_loop(text, lane):
                body = first.body
                if lane_guard:
                    assert first.guard is not None
                    unit = loop.Const(dtype, _identity_value(first.combine, dtype))
                    body = loop.Guarded(dtype, first.guard, body, unit)
                element = text.expr(body)
                text.line(f"store(acc, j, {_combined(first.combine, dtype, 'load(acc, j)', element)})")
        with _lane_loop(text, lane):
            text.line("total = load(acc, j)")
            text.replace_loads(first.output, "total")
            if first.output in kept:
                _store(text, first, "total")
            for stage in stages[1:]:
                result = text.expr(stage.body)
                text.replace_loads(stage.output, result)
                if stage.output in kept:
                    _store(text, stage, result)
    work = dims.product([axis.extent for axis in first.inner]) * max(1, _cost(first))
    tiles = dims.product([axis.extent for axis in outer]) * blocks
    source = text.finish(f"vertical_{first.combine}")
    return PrintedKernel(source, tuple(text.arguments), tiles, work * VERTICAL_BLOCK // 12 + 5)


def _identity_value(combine: str, dtype: DType) -> bool | int | float:
    if combine in ("sum", "or"):
        return 0
    if combine in ("prod", "and"):
        return 1
    if dtype.is_float:
        return float("-inf") if combine == "max" else float("inf")
    bits = dtype.bits - int(dtype.kind == "int")
    if combine == "max":
        return 0 if dtype.kind == "uint" else -(1 << bits)
    return (1 << bits) - 1


@contextmanager
def _lane_loop(text: KernelText, lane: LoopIndex) -> Iterator[None]:
    with text.block("for j in range(width):"):
        text.line("lane = start + j")
        text.name_index(lane, "lane")
        yield
