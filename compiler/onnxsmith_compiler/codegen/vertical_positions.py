"""Where the extremes are along an outer axis: neighbouring columns are searched side by side."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack

from onnxsmith_compiler.codegen.kernel_text import KernelText, PrintedKernel
from onnxsmith_compiler.codegen.loop_shape import FlatStage
from onnxsmith_compiler.codegen.loop_style import CpuStyle, serial_loops
from onnxsmith_compiler.codegen.scalar_text import greatest, lowest
from onnxsmith_compiler.ir import dim as dims
from onnxsmith_compiler.ir import loop
from onnxsmith_compiler.ir.atom import LoopIndex

COLUMNS = 64
"""Columns that are searched at a time: their best elements and positions stay in the first level of cache."""


def print_vertical_positions(
    stage: FlatStage, outer: Sequence[LoopIndex], lane: LoopIndex, element_cost: int
) -> PrintedKernel:
    """The kernel of an "argmax_first" or the like over `stage.inner`, whose loads are contiguous along `lane`."""
    text = KernelText()
    dtype = stage.body.dtype
    largest = stage.combine.startswith("argmax")
    block = LoopIndex("block", dims.ceildiv(lane.extent, COLUMNS))
    text.line(f"best = stack({dtype}, {COLUMNS})")
    text.line(f"place = stack(int64, {COLUMNS})")
    with CpuStyle().rows(text, (*outer, block)):
        text.line(f"start = {text.dim(dims.from_atom(block))} * {COLUMNS}")
        text.line(f"width = minimum({COLUMNS}, {text.size(lane.extent)} - start)")
        with text.block("for j in range(width):"):
            text.line(f"store(best, j, {lowest(dtype) if largest else greatest(dtype)})")
            text.line(f"store(place, j, int64({0 if stage.guard is None else -1}))")
        with serial_loops(text, stage.inner), ExitStack() as stack:
            text.line(f"here = int64({text.dim(_position(stage.inner))})")
            stack.enter_context(text.block("for j in range(width):"))
            text.line("lane = start + j")
            text.name_index(lane, "lane")
            if stage.guard is not None:
                stack.enter_context(text.block(f"if {text.expr(stage.guard)}:"))
            element = text.expr(stage.body)
            text.line("old = load(best, j)")
            text.line(f"better = {_better(stage.combine, element)}")
            if dtype.is_float:
                last = stage.combine.endswith("last")
                nan = f"isnan({element})" if last else f"bit_and(isnan({element}), bit_not(isnan(old)))"
                text.line(f"better = bit_or(better, {nan})")
            if stage.guard is not None:
                text.line("better = bit_or(better, load(place, j) < int64(0))")
            text.line(f"store(best, j, select(better, {element}, old))")
            text.line("store(place, j, select(better, here, load(place, j)))")
        with text.block("for j in range(width):"):
            text.line("lane = start + j")
            text.line(f"store({text.written(stage.output)}, {text.dim(stage.store)}, load(place, j))")
    work = dims.product([axis.extent for axis in stage.inner]) * (element_cost + 2) * COLUMNS
    tiles = dims.product([axis.extent for axis in outer]) * block.extent
    return PrintedKernel(text.finish(f"vertical_{stage.combine}"), tuple(text.arguments), tiles, work // 12 + 5)


def _better(combine: str, element: str) -> str:
    sign = ">" if combine.startswith("argmax") else "<"
    return f"{element} {sign}{'=' if combine.endswith('last') else ''} old"


def _position(axes: Sequence[LoopIndex]) -> dims.Dim:
    return loop.linear_offset(tuple(axis.extent for axis in axes), tuple(dims.from_atom(axis) for axis in axes))
