"""Maps that read along another axis than they write: they go in square blocks, which are transposed in registers."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from onnxsmith_compiler.codegen.kernel_text import KernelText, PrintedKernel
from onnxsmith_compiler.codegen.loop_shape import FlatStage
from onnxsmith_compiler.codegen.loop_style import CpuStyle
from onnxsmith_compiler.codegen.transpose import transpose_name
from onnxsmith_compiler.ir import dim as dims
from onnxsmith_compiler.ir import loop
from onnxsmith_compiler.ir.atom import LoopIndex
from onnxsmith_compiler.ir.dim import Dim

FEWEST = 8
"""An axis of fewer elements is not worth blocks."""
_MOST_INTERLEAVED = 4


@dataclass(frozen=True)
class _Crossing:
    """`loads` are contiguous along `across`, which is not the axis `along` that the map writes contiguously.

    `inner` is a short axis that alternates fastest in what is written: each step along `along` writes all of it.
    """

    along: LoopIndex
    across: LoopIndex
    inner: LoopIndex
    loads: tuple[loop.Load, ...]

    @contextmanager
    def positions(self, text: KernelText) -> Iterator[None]:
        """Lines within are printed for each position of the inner axis."""
        if self.inner.extent == 1:
            text.name_index(self.inner, "0")
            yield
            return
        with text.block(f"for k in range({self.inner.extent}):"):
            text.name_index(self.inner, "k")
            yield

    def square(self, name: str) -> str:
        """The transposed block, of those that begin at `name`, of the present position of the inner axis."""
        return name if self.inner.extent == 1 else f"offset({name}, k * {self.block**2})"

    @property
    def block(self) -> int:
        """Rows and columns of a block: those of the transposes in registers."""
        return 8 if any(load.value.dtype.itemsize == 8 for load in self.loads) else 16


def print_transposing_map(stage: FlatStage, axes: tuple[LoopIndex, ...], element_cost: int) -> PrintedKernel | None:
    """The kernel of a map over `axes`, None where plain loops serve it as well.

    A tile is `block` positions of the axis that the loads are contiguous along, and all that is written contiguously.
    The last block of either axis begins early enough to be whole: some elements are computed twice, to the same value.
    """
    crossing = _crossing(stage, axes)
    if crossing is None:
        return None
    text, size = KernelText(), crossing.block
    along, across = crossing.along, crossing.across
    blocks = LoopIndex("block", dims.ceildiv(across.extent, size))
    outer = tuple(blocks if axis == across else axis for axis in axes if axis not in (along, crossing.inner))
    moves = crossing.inner.extent == 1 and any(
        stage.body == load and load.value.dtype is stage.output.dtype for load in crossing.loads
    )
    squares = [] if moves else _squares(text, crossing)
    rows, columns = text.size(across.extent), text.size(along.extent)
    with CpuStyle().rows(text, outer):
        text.line(f"row = maximum(minimum({text.dim(dims.from_atom(blocks))} * {size}, {rows} - {size}), 0)")
        with text.block(f"for c in range(0, {columns}, {size}):"):
            text.line(f"column = maximum(minimum(c, {columns} - {size}), 0)")
            with text.block(f"if {rows} >= {size} and {columns} >= {size}:"):
                text.name_index(across, "row")
                text.name_index(along, "column")
                with crossing.positions(text):
                    if moves:
                        _transpose(text, crossing, stage.body, text.written(stage.output), stage.store)
                    else:
                        for load, square in zip(crossing.loads, squares, strict=True):
                            _transpose(text, crossing, load, square, None)
                if not moves:
                    _print_block(text, stage, crossing, (str(size), str(size)), squares)
            with text.block("else:"):
                _print_block(text, stage, crossing, (f"minimum({size}, {rows})", f"minimum({size}, {columns})"), ())
    tiles = dims.product([axis.extent for axis in outer])
    nanoseconds = along.extent * crossing.inner.extent * size * (element_cost + 4) // 16 + 2
    return PrintedKernel(
        text.finish("transpose" if moves else "transposing_map"), tuple(text.arguments), tiles, nanoseconds
    )


def _crossing(stage: FlatStage, axes: Sequence[LoopIndex]) -> _Crossing | None:
    if len(axes) < 2:
        return None
    *axes, along, inner = _with_inner(stage.store, axes)
    if not axes or dims.coefficient_of(stage.store, along) != inner.extent:
        return None
    if any(isinstance(node, loop.Guarded | loop.Checked) for node in loop.walk(stage.body)):
        return None
    strided = [load for load in loop.loads(stage.body) if dims.coefficient_of(load.index[0], along) not in (0, 1, None)]
    contiguous = {_contiguous_axis(load, axes) for load in strided}
    across = next(iter(contiguous), None)
    if len(contiguous) != 1 or across is None or _is_short(along) or _is_short(across):
        return None
    if dims.coefficient_of(stage.store, across) is None:
        return None
    return _Crossing(along, across, inner, tuple(strided))


def _with_inner(store: Dim, axes: Sequence[LoopIndex]) -> Sequence[LoopIndex]:
    """`axes`, the last one short: one of a single element is added where the last axis is long."""
    last = axes[-1]
    if isinstance(last.extent, int) and last.extent <= _MOST_INTERLEAVED and dims.coefficient_of(store, last) == 1:
        return axes
    return (*axes, LoopIndex("inner", 1))


def _contiguous_axis(load: loop.Load, axes: Sequence[LoopIndex]) -> LoopIndex | None:
    return next((axis for axis in axes if dims.coefficient_of(load.index[0], axis) == 1), None)


def _is_short(axis: LoopIndex) -> bool:
    return isinstance(axis.extent, int) and axis.extent < FEWEST


def _squares(text: KernelText, crossing: _Crossing) -> list[str]:
    """Room on the stack for transposed blocks of each load, one for each position of the inner axis."""
    names = []
    for load in crossing.loads:
        names.append(text.fresh("square"))
        count = dims.product([crossing.block**2, crossing.inner.extent])
        text.line(f"{names[-1]} = stack({load.value.dtype}, {count})")
    return names


def _transpose(text: KernelText, crossing: _Crossing, load: loop.Expr, out: str, store: Dim | None) -> None:
    """Transposes the block at the present row and column of `load` into the square `out`, or to `store` of it."""
    assert isinstance(load, loop.Load)
    stride = dims.coefficient_of(load.index[0], crossing.along)
    assert stride is not None
    row: Dim | None = crossing.block if store is None else dims.coefficient_of(store, crossing.across)
    assert row is not None
    target = crossing.square(out) if store is None else f"offset({out}, {text.dim(store)})"
    source = f"offset({text.read(load.value)}, {text.dim(load.index[0])})"
    name = transpose_name(load.value.dtype.name, crossing.block)
    text.line(f"{name}({source}, {text.dim(stride)}, {target}, {text.dim(row)})")


def _print_block(
    text: KernelText, stage: FlatStage, crossing: _Crossing, extents: tuple[str, str], squares: Sequence[str]
) -> None:
    """Loops over a block's rows and columns; the crossing loads read `squares` where those are filled."""
    with text.block(f"for a in range({extents[0]}):"):
        text.line("i = row + a")
        text.name_index(crossing.across, "i")
        with text.block(f"for b in range({extents[1]}):"):
            text.line("j = column + b")
            text.name_index(crossing.along, "j")
            with crossing.positions(text):
                for number, square in enumerate(squares):
                    text.line(f"s{number} = load({crossing.square(square)}, a * {crossing.block} + b)")
                    text.remember(crossing.loads[number], f"s{number}")
                result = text.expr(stage.body)
                text.line(f"store({text.written(stage.output)}, {text.dim(stage.store)}, {result})")
