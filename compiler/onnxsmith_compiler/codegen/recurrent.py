"""Prints recurrent layers: a kernel that sets the states, then one for the directions that share activations."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

from onnxsmith_compiler.codegen.kernel_text import PrintedKernel, PrintedStep
from onnxsmith_compiler.codegen.recurrent_source import RecurrentForm, recurrent_source
from onnxsmith_compiler.codegen.recurrent_start import start_source
from onnxsmith_compiler.codegen.target import Target
from onnxsmith_compiler.codegen.tile_shapes import panel_tile, tile_shape
from onnxsmith_compiler.ir import dim as dims
from onnxsmith_compiler.ir.dim import Dim
from onnxsmith_compiler.ir.dtype import DType
from onnxsmith_compiler.ir.graph import Value
from onnxsmith_compiler.ops.recurrent import Cell, PackedRecurrence, RecurrenceTiling
from onnxsmith_compiler.schedule.groups import ContractGroup
from onnxsmith_compiler.schedule.work import call_work, recurrence_work

_PART_BYTES = 1 << 17
"""Weights that one thread reads in a step make it worth its while: about two microseconds of them."""
_CELL_NANOSECONDS = 2
_MACS_PER_NANOSECOND = 24


def recurrence_tiling(
    target: Target, lesser: Sequence[Target], dtype: DType, cell: Cell, hidden: Dim
) -> RecurrenceTiling:
    """Register tiles by the target; parts so that each reads its share of the weights from its own cache.

    A group of sequences has no more rows than the tiles of `lesser` targets take.
    """
    known = hidden if isinstance(hidden, int) else None
    shape = tile_shape(target, dtype.name, known)
    parts = 1
    if known is not None:
        weights = cell.gates * known * known * dtype.itemsize
        parts = max(1, min(target.cores, weights // _PART_BYTES, known // shape.columns))
    rows = min([shape.rows, *(panel_tile(other, dtype.name, shape.columns).rows for other in lesser)])
    return RecurrenceTiling(shape.columns, rows, parts)


def print_recurrence(group: ContractGroup, op: PackedRecurrence, target: Target) -> Iterable[PrintedStep]:
    node = group.node
    gates, panels, late, bias, peepholes, lengths, first_h, first_c = node.inputs
    y, last_h, *rest = node.outputs
    last_c = rest[0] if op.cell.has_cell_state else None
    counters, kept = node.outputs[-2:]
    assert gates is not None and panels is not None and first_h is not None
    steps, batch = op.steps_and_batch(gates.type)
    tiling = op.tiling
    per_direction = dims.floordiv(op.groups(batch), op.directions)
    pointers = (gates, panels, late, bias, peepholes, lengths, first_h, first_c, y, last_h, last_c, counters)
    addresses = tuple(value for value in (*pointers, kept if late is not None else None) if value is not None)
    strides = [
        *_strides(gates, op.batch_first)[:2],
        *_y_strides(op, steps, batch),
        *_state_strides(first_h, op.batch_first),
        *([] if first_c is None else _state_strides(first_c, op.batch_first)),
        *_state_strides(last_h, op.batch_first),
    ]
    yield _start(group, op, steps, batch)
    for first, count, cell in _runs(op.cell, op.directions):
        form = RecurrentForm(
            panel_tile(target, gates.dtype.name, tiling.columns), cell, lengths is not None, peepholes is not None,
            tiling.parts > 1,
        )  # fmt: skip
        arguments: tuple[Value | Dim, ...] = (
            *addresses, steps, batch, op.hidden, op.directions, first, count, op.backward_from, *strides,
            tiling.rows, per_direction, tiling.parts,
        )  # fmt: skip
        workers = count * per_direction * tiling.parts
        cost = _cost(op, steps, dims.minimum(batch, tiling.rows))
        kernel = PrintedKernel(recurrent_source(form), arguments, workers, cost)
        work = recurrence_work(op, steps, batch, count, arguments, peepholes is not None)
        yield PrintedStep(kernel, node.outputs, op.cell.kind, group.origins, work)


def _start(group: ContractGroup, op: PackedRecurrence, steps: Dim, batch: Dim) -> PrintedStep:
    """The step that sets the last states to the first ones."""
    *_, lengths, first_h, first_c = group.node.inputs
    _, last_h, *rest = group.node.outputs
    counters = group.node.outputs[-2]
    assert first_h is not None
    states = [(first_h, last_h)]
    if first_c is not None:
        states.append((first_c, rest[0]))
    addresses = [] if lengths is None else [lengths]
    strides: list[Dim] = []
    for first, last in states:
        addresses += [first, last]
        strides += _state_strides(first, op.batch_first)
    sizes = (steps, batch, op.hidden, op.directions, counters.type.size)
    source = start_source(first_h.dtype.name, has_lengths=lengths is not None, states=len(states))
    arguments = (*addresses, counters, *sizes, *strides, *_state_strides(last_h, op.batch_first))
    written = (*(last for _, last in states), counters)
    cost = 50 + dims.product(last_h.shape)
    kernel = PrintedKernel(source, arguments, 1, cost)
    return PrintedStep(kernel, written, source.label, group.origins, call_work(arguments))


def _runs(cell: Cell, directions: int) -> Iterable[tuple[int, int, Cell]]:
    """(first direction, how many, the cell) for the directions that have the same activations."""
    if len(set(cell.activations)) == 1:
        yield 0, directions, replace(cell, activations=cell.activations[:1])
        return
    for number, activations in enumerate(cell.activations):
        yield number, 1, replace(cell, activations=(activations,))


def _strides(value: Value, batch_first: bool) -> list[Dim]:
    """Elements between neighbours of the first two axes; exchanged where the batch comes first. 0 for a size of 1."""
    sizes = value.shape
    strides = [dims.product(sizes[axis + 1 :]) if sizes[axis] != 1 else 0 for axis in (0, 1)]
    return strides[::-1] if batch_first else strides


def _state_strides(value: Value, batch_first: bool) -> list[Dim]:
    """Those of (direction, sequence) in a tensor of states."""
    return _strides(value, batch_first)


def _y_strides(op: PackedRecurrence, steps: Dim, batch: Dim) -> list[Dim]:
    """Those of (step, direction, sequence) in the tensor of all states."""
    row = op.directions * op.hidden
    if op.batch_first:
        return [row, op.hidden, steps * row]
    return [batch * row, batch * op.hidden, op.hidden]


def _cost(op: PackedRecurrence, steps: Dim, rows: Dim) -> Dim:
    """About how many nanoseconds a worker takes."""
    macs = op.cell.gates * op.hidden * op.hidden * rows
    step = dims.floordiv(macs, _MACS_PER_NANOSECOND) + _CELL_NANOSECONDS * op.cell.gates * op.hidden * rows
    return 100 + dims.floordiv(steps * step, op.tiling.parts)
