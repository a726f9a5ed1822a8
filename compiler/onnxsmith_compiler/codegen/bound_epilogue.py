"""Fits what is fused with a contraction to its template: epilogues with the tensors and sizes that they take."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from onnxsmith_compiler.codegen.epilogue import Epilogue
from onnxsmith_compiler.codegen.kernel_text import KernelText
from onnxsmith_compiler.codegen.loop_shape import FlatStage, flatten, join_axes
from onnxsmith_compiler.ir import dim as dims
from onnxsmith_compiler.ir import loop
from onnxsmith_compiler.ir.atom import LoopIndex
from onnxsmith_compiler.ir.dim import Dim
from onnxsmith_compiler.ir.graph import Value
from onnxsmith_compiler.ir.loop import Computation
from onnxsmith_compiler.ops.view import delinearize
from onnxsmith_compiler.schedule.groups import ContractGroup


@dataclass(frozen=True)
class BoundEpilogue:
    """An epilogue with the arguments of its parameters."""

    epilogue: Epilogue
    arguments: tuple[Value | Dim, ...]


def bind_epilogue(
    group: ContractGroup, rows: Dim, columns: Dim, *, batched: bool = False, place: str | None = None
) -> BoundEpilogue:
    """What becomes of the result element in row m, column n of product `batch`: stored, or first mapped.

    Element (batch, m, n) is number (batch * rows + m) * columns + n of the result. Where `place` is given (a pointer
    and an element, as `store` takes them), it goes there in place of its tensor, and the names of the lines are none of
    those of an epilogue without one: a kernel may have one of each.
    """
    flat, axes = _flat_result(group)
    m, n, batch = LoopIndex("m", rows), LoopIndex("n", columns), LoopIndex("batch", flat.output.type.size)
    # A product of one row reads what is added to it by the column alone, whatever shape that has.
    number = dims.from_atom(n) if rows == 1 else dims.from_atom(m) * columns + dims.from_atom(n)
    if batched:
        number = number + dims.from_atom(batch) * (rows * columns)
    index = delinearize(number, tuple(axis.extent for axis in axes))
    flat = flat.substitute(dict(zip(axes, index, strict=True)))

    def printed(*names: str) -> KernelText:
        text = KernelText(accumulated=names[0], prefix="" if place is None else "e")
        for axis, name in zip((m, n, batch), names[1:], strict=True):
            text.name_index(axis, name)
        result = text.expr(flat.body)
        text.line(f"store({place or f'{text.written(flat.output)}, {text.dim(flat.store)}'}, {result})")
        return text

    def lines(acc: str, row: str, column: str, product: str) -> Sequence[str]:
        return [line[4:] for line in printed(acc, row, column, product).lines]

    def destination(row: str, column: str, product: str) -> str:
        text = printed("acc", row, column, product)
        return f"address({text.written(flat.output)}) + ({text.dim(flat.store)}) * {flat.output.dtype.itemsize}"

    probe = printed("acc", "m_index", "n_index", "batch")
    is_dense = dims.coefficient_of(flat.store, n) == 1 and dims.coefficient_of(flat.store, m) == columns
    epilogue = Epilogue(tuple(probe.parameters), lines, destination if is_dense and place is None else None)
    return BoundEpilogue(epilogue, tuple(probe.arguments))


def _flat_result(group: ContractGroup) -> tuple[FlatStage, tuple[LoopIndex, ...]]:
    """What stores the result of `group`, mapped by its epilogue, and the loops of that, as few as there can be."""
    stage = group.epilogue
    if stage is None:
        axes = loop.axes_for(group.node.output.shape)
        computation = Computation(axes, loop.Accumulated(group.node.output.dtype.compute))
        output = group.node.output
    else:
        computation, output = stage.computation, stage.output
    flat = flatten(output, computation)
    (flat,), axes = join_axes([flat], flat.axes)
    return flat, axes
