"""Reshaping loop nests before they are printed: flat offsets, axes split at divisions, neighbouring axes joined."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from onnxsmith_compiler.ir import dim as dims
from onnxsmith_compiler.ir import loop
from onnxsmith_compiler.ir.atom import LoopIndex, Quotient, Remainder
from onnxsmith_compiler.ir.dim import Dim
from onnxsmith_compiler.ir.graph import Value
from onnxsmith_compiler.ir.loop import Computation, Expr
from onnxsmith_compiler.ir.polynomial import all_atoms

_MOST_SPLITS = 16


@dataclass(frozen=True, eq=False)
class FlatStage:
    """A computation whose loads and store are row-major element offsets.

    `axes` are the output's loops (none of size 1), outermost first; `inner` those of a reduction.
    """

    output: Value
    axes: tuple[LoopIndex, ...]
    inner: tuple[LoopIndex, ...]
    body: Expr
    guard: Expr | None
    store: Dim
    combine: str

    def expressions(self) -> Iterator[Expr]:
        yield self.body
        if self.guard is not None:
            yield self.guard

    def offsets(self) -> Iterator[Dim]:
        """Every Dim in the stage."""
        yield self.store
        for expression in self.expressions():
            for node in loop.walk(expression):
                yield from node.index_dims

    def substitute(self, indices: Mapping[LoopIndex, Dim]) -> FlatStage:
        """The stage with loop indices replaced (the loops themselves are left as they are)."""
        return replace(
            self,
            body=loop.substitute(self.body, indices),
            guard=None if self.guard is None else loop.substitute(self.guard, indices),
            store=loop.substitute_dim(self.store, indices),
        )


def flatten(output: Value, computation: Computation) -> FlatStage:
    """The computation with linear offsets, and with names that are its own loops' alone."""

    def visit(expr: Expr) -> Expr | None:
        if isinstance(expr, loop.Load) and len(expr.index) != 1:
            index = tuple(dim(position) for position in expr.index)
            return loop.Load(expr.dtype, expr.value, (loop.linear_offset(expr.value.shape, index),))
        return None

    def expression(expr: Expr) -> Expr:
        return loop.rewrite(expr, visit, dim)

    def dim(position: Dim) -> Dim:
        return loop.map_dim(position, {}, expression)

    store = computation.store or loop.index_of(computation.axes)
    return FlatStage(
        output,
        tuple(axis for axis in computation.axes if axis.extent != 1),
        tuple(axis for axis in computation.reduce if axis.extent != 1),
        expression(loop.substitute(computation.body, _units(computation))),
        None if computation.guard is None else expression(loop.substitute(computation.guard, _units(computation))),
        dim(loop.linear_offset(output.shape, store)),
        computation.combine,
    )


def _units(computation: Computation) -> dict[LoopIndex, Dim]:
    return {axis: 0 for axis in (*computation.axes, *computation.reduce) if axis.extent == 1}


def split_axes(stages: Sequence[FlatStage], axes: Sequence[LoopIndex]) -> tuple[list[FlatStage], tuple[LoopIndex, ...]]:
    """Replaces each of `axes` whose quotient and remainder some stage takes by an outer and an inner one, in all."""
    split = list(stages)
    result = tuple(axes)
    for _ in range(_MOST_SPLITS):
        found = next((found for stage in split if (found := _division(stage, result)) is not None), None)
        if found is None:
            break
        axis, divisor = found
        outer = LoopIndex(f"{axis.name}o", dims.floordiv(axis.extent, divisor))
        inner = LoopIndex(f"{axis.name}i", divisor)
        position = dims.from_atom(outer) * divisor + dims.from_atom(inner)
        split = [stage.substitute({axis: position}) for stage in split]
        new = tuple(part for part in (outer, inner) if part.extent != 1)
        result = tuple(part for old in result for part in (new if old == axis else (old,)))
    return split, result


def split_own_axes(stage: FlatStage) -> FlatStage:
    """The stage with its output's and its reduction's axes split."""
    (stage,), axes = split_axes([stage], stage.axes)
    (stage,), inner = split_axes([stage], stage.inner)
    return replace(stage, axes=axes, inner=inner)


def _division(stage: FlatStage, axes: Sequence[LoopIndex]) -> tuple[LoopIndex, Dim] | None:
    for offset in stage.offsets():
        for atom in all_atoms(offset):
            if isinstance(atom, Quotient | Remainder):
                for axis in axes:
                    if atom.numerator == dims.from_atom(axis) and _divides(atom.denominator, axis.extent):
                        return axis, atom.denominator
    return None


def _divides(divisor: Dim, extent: Dim) -> bool:
    return divisor != extent and dims.exact_quotient(extent, divisor) is not None


def join_axes(stages: Sequence[FlatStage], axes: Sequence[LoopIndex]) -> tuple[list[FlatStage], tuple[LoopIndex, ...]]:
    """Joins neighbouring `axes` into one wherever every offset of all stages walks both as one."""
    joined = list(stages)
    result = list(axes)
    position = 0
    while position + 1 < len(result):
        outer, inner = result[position], result[position + 1]
        if not all(_walks_as_one(offset, outer, inner) for stage in joined for offset in stage.offsets()):
            position += 1
            continue
        both = LoopIndex(f"{outer.name}{inner.name}", outer.extent * inner.extent)
        joined = [stage.substitute({outer: 0, inner: dims.from_atom(both)}) for stage in joined]
        result[position : position + 2] = [both]
        position = max(position - 1, 0)
    return joined, tuple(result)


def _walks_as_one(offset: Dim, outer: LoopIndex, inner: LoopIndex) -> bool:
    if isinstance(offset, int):
        return True
    a, b = dims.coefficient_of(offset, outer), dims.coefficient_of(offset, inner)
    return a is not None and b is not None and a == b * inner.extent


def rename_rows(stages: Sequence[FlatStage], rows: int) -> tuple[list[FlatStage], tuple[LoopIndex, ...]]:
    """The stages with their `rows` outermost axes made the same loop indices."""
    shared = tuple(LoopIndex(f"row{number}", axis.extent) for number, axis in enumerate(stages[0].axes[:rows]))
    renamed = []
    for number, stage in enumerate(stages):
        indices: dict[LoopIndex, Dim] = {
            old: dims.from_atom(new) for old, new in zip(stage.axes[:rows], shared, strict=True)
        }
        own = tuple(LoopIndex(f"s{number}{axis.name}", axis.extent) for axis in stage.axes[rows:])
        inner = tuple(LoopIndex(f"s{number}{axis.name}", axis.extent) for axis in stage.inner)
        indices.update({old: dims.from_atom(new) for old, new in zip(stage.axes[rows:], own, strict=True)})
        indices.update({old: dims.from_atom(new) for old, new in zip(stage.inner, inner, strict=True)})
        renamed.append(replace(stage.substitute(indices), axes=(*shared, *own), inner=inner))
    return renamed, shared


def cost_of(expression: Expr, weight: Callable[[str], int]) -> int:
    """Rough flops of one evaluation: loads count one each."""
    total = 0
    for node in loop.walk(expression):
        if isinstance(node, loop.Load):
            total += 1
        elif isinstance(node, loop.Apply):
            total += weight(node.function)
    return total
