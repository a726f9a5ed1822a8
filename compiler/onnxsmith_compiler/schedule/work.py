"""How much work a kernel is: floating-point operations and elements of each tensor, as sizes that depend on symbols.

A multiply-add is two operations. Each scalar function of the loop IR on floats is one, elementary ones (exp, tanh, erf)
included; conversions and integer arithmetic are none. What does not vary along a loop counts once, not once a turn. A
reduction combines once an element. Convolutions count as done directly, padding included, so that Winograd's can be
faster than the machine computes; guarded expressions count as always evaluated.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from onnxsmith_compiler.ir import dim as dims
from onnxsmith_compiler.ir import loop
from onnxsmith_compiler.ir.atom import LoopIndex
from onnxsmith_compiler.ir.dim import Dim
from onnxsmith_compiler.ir.graph import Value
from onnxsmith_compiler.ops.attention import FusedAttention, Strided
from onnxsmith_compiler.ops.packed import DepthwiseConv, PackedConv, PackedMatMul
from onnxsmith_compiler.ops.recurrent import Cell, PackedRecurrence
from onnxsmith_compiler.ops.scalar import SCALAR_FUNCTIONS
from onnxsmith_compiler.ops.winograd import WinogradConv
from onnxsmith_compiler.schedule.groups import ContractGroup, LoopGroup, Stage

_SOFTMAX = 5
"""Operations on one score of an attention: scaled, maximum, difference, exp, sum."""
_UNIT = {"lstm": 9, "gru": 8, "rnn": 1}
"""Operations on one unit of a recurrent cell in one step after its products, each activation being one."""


@dataclass(frozen=True)
class Work:
    """`flops` are floating-point operations; `touched` has tensors, each with the most elements of it that are used."""

    flops: Dim
    touched: tuple[tuple[Value, Dim], ...]

    def traffic(self, resolve: Callable[[Value], Value]) -> Dim:
        """Bytes, each element of a tensor counted once; `resolve` gives the value whose memory another one shares."""
        elements: dict[Value, Dim] = {}
        for value, count in self.touched:
            memory = resolve(value)
            elements[memory] = elements.get(memory, 0) + count
        return _total(dims.minimum(value.type.size, count) * value.dtype.itemsize for value, count in elements.items())


def whole(values: Iterable[Value]) -> tuple[tuple[Value, Dim], ...]:
    """What touches all elements of `values`."""
    return tuple((value, value.type.size) for value in values)


def call_work(arguments: Iterable[Value | Dim]) -> Work:
    """The work of a hand-written kernel: its tensors' bytes, and no operations."""
    return Work(0, whole(argument for argument in arguments if isinstance(argument, Value)))


def loop_work(group: LoopGroup, kept: frozenset[Value]) -> Work:
    """The work of a loop nest, which stores those of its results that are in `kept`."""
    flops: Dim = 0
    touched: list[tuple[Value, Dim]] = []
    for stage in group.stages:
        flops += _stage_flops(stage)
        touched += _reads(stage, frozenset(group.outputs))
        if stage.output in kept:
            touched.append((stage.output, _count(stage.computation.axes)))
    return Work(flops, tuple(touched))


def contraction_work(group: ContractGroup) -> Work:
    """The work of a contraction (but for recurrences) with its epilogue, done directly."""
    size = group.node.output.type.size
    operands = whole(group.operands)
    match group.contract.kernel:
        case PackedMatMul():
            flops = 2 * size * group.operands[0].shape[-1]
        case PackedConv() as kernel:
            channels = dims.floordiv(group.operands[0].shape[-1], kernel.groups)
            flops = 2 * size * channels * kernel.window.taps
        case WinogradConv() as kernel:
            flops = 2 * size * group.operands[0].shape[-1] * kernel.window.taps
        case DepthwiseConv() as kernel:
            flops = 2 * size * kernel.window.taps
        case FusedAttention() as kernel:
            flops, operands = _attention_flops(kernel), _attention_reads(kernel, group.operands)
        case kernel:
            raise TypeError(f"the work of {kernel.name} is not known")
    touched = [*operands, *whole(group.outputs)]
    if group.epilogue is not None:
        flops += _stage_flops(group.epilogue)
        touched += _reads(group.epilogue, frozenset(group.outputs))
    if group.product is not None:
        product = contraction_work(group.product)
        flops += product.flops
        touched = [(value, count) for value, count in (*touched, *product.touched) if value is not group.operands[0]]
    return Work(flops, tuple(touched))


def recurrence_work(
    op: PackedRecurrence, steps: Dim, batch: Dim, directions: int, arguments: Iterable[Value | Dim], peepholes: bool
) -> Work:
    """The work of `directions` directions of a recurrent layer, all sequences being of full length.

    Every tensor in `arguments` is shared out evenly among the layer's directions.
    """
    units = steps * batch * directions * op.hidden
    tensors = [argument for argument in arguments if isinstance(argument, Value)]
    touched = [(value, dims.ceildiv(value.type.size * directions, op.directions)) for value in tensors]
    return Work(units * (2 * op.cell.gates * op.hidden + _unit_flops(op.cell, peepholes)), tuple(touched))


def _unit_flops(cell: Cell, peepholes: bool) -> int:
    own_gates = cell.gates - cell.couples
    flops = _UNIT[cell.kind] + cell.resets_late
    if peepholes:
        flops += 2 * (own_gates - 1)
    if cell.clip is not None:
        flops += 2 * own_gates
    return flops


def _attention_flops(kernel: FusedAttention) -> Dim:
    outer = dims.product(kernel.outer)
    scores = kernel.rows * kernel.columns
    if kernel.past is not None:  # the first row sees past + 1 columns, the last one all
        scores = dims.floordiv(kernel.rows * (kernel.past + 1 + kernel.columns), 2)
    score = 2 * kernel.depth + 2 * kernel.width + _SOFTMAX + len(kernel.masks) + 3 * (kernel.softcap is not None)
    return outer * (scores * score + kernel.rows * kernel.width)


def _attention_reads(kernel: FusedAttention, operands: tuple[Value, ...]) -> tuple[tuple[Value, Dim], ...]:
    query, key, value, *masks = operands
    return (
        (query, _distinct(kernel.query, (*kernel.outer, kernel.rows, kernel.depth))),
        (key, _distinct(kernel.key, (*kernel.outer, kernel.columns, kernel.depth))),
        (value, _distinct(kernel.value, (*kernel.outer, kernel.columns, kernel.width))),
        *(
            (mask, _distinct(strided, (*kernel.outer, kernel.rows, kernel.columns)))
            for mask, strided in zip(masks, kernel.masks, strict=True)
        ),
    )


def _distinct(operand: Strided, sizes: tuple[Dim, ...]) -> Dim:
    """Elements of an operand that is the same along the axes of stride 0."""
    return dims.product([size for size, stride in zip(sizes, operand.strides, strict=True) if stride != 0])


def _stage_flops(stage: Stage) -> Dim:
    computation = stage.computation
    every = (*computation.axes, *computation.reduce)
    flops = _total(_expression_flops(expression, every) for expression in computation.expressions())
    combines = computation.reduce and computation.body.dtype.is_float
    return flops + (_count(every) if combines else 0)


def _expression_flops(expression: loop.Expr, axes: tuple[LoopIndex, ...]) -> Dim:
    varies: dict[loop.Expr, frozenset[LoopIndex]] = {}
    for node in loop.walk(expression):
        own = frozenset(axes) if isinstance(node, loop.Accumulated) else node.indices
        varies[node] = own.union(*(varies[child] for child in node.children))
    return _total(_count(loops) for node, loops in varies.items() if _is_float_operation(node))


def _is_float_operation(node: loop.Expr) -> bool:
    if not isinstance(node, loop.Apply) or node.function not in SCALAR_FUNCTIONS or node.function == "identity":
        return False
    return node.arguments[-1].dtype.is_float


def _reads(stage: Stage, own: frozenset[Value]) -> list[tuple[Value, Dim]]:
    """The tensors that a stage loads but its kernel's `own`: at most one element a turn of the loops it varies in."""
    return [
        (load.value, _count(load.indices))
        for expression in stage.computation.expressions()
        for load in loop.loads(expression)
        if load.value not in own
    ]


def _count(axes: Iterable[LoopIndex]) -> Dim:
    return dims.product([axis.extent for axis in axes])


def _total(sizes: Iterable[Dim]) -> Dim:
    total: Dim = 0
    for size in sizes:
        total = total + size
    return total
