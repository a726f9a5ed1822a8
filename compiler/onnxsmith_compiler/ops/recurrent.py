"""Recurrent layers (LSTM, GRU, RNN) after the product of all inputs with their weights."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from onnxsmith_compiler.ir import dim as dims
from onnxsmith_compiler.ir import dtype as dtypes
from onnxsmith_compiler.ir.dim import Dim
from onnxsmith_compiler.ir.graph import Node, Relation, TensorType, Value
from onnxsmith_compiler.ops.base import Op, Shape, ShapeError, SizePair, Types, required
from onnxsmith_compiler.ops.builder import GraphBuilder
from onnxsmith_compiler.ops.lowering import Contract
from onnxsmith_compiler.ops.view import Pad, Reshape, Slice, Transpose

Kind = Literal["lstm", "gru", "rnn"]


@dataclass(frozen=True)
class Activation:
    """One of ONNX's activation functions of recurrent layers, by its name in lower case."""

    name: str
    alpha: float
    beta: float


@dataclass(frozen=True)
class Cell:
    """What a layer computes in one step.

    `activations` are those of each direction: (f, g, h) of an LSTM, (f, g) of a GRU, (f,) of an RNN. `clip` bounds
    the gates before their activations. `couples` (LSTM): the forget gate is 1 minus the input gate. `resets_late`
    (GRU): the reset gate multiplies the recurrent product of the candidate, not the state before that product.
    """

    kind: Kind
    activations: tuple[tuple[Activation, ...], ...]
    clip: float | None = None
    couples: bool = False
    resets_late: bool = False

    @property
    def gates(self) -> int:
        return {"lstm": 4, "gru": 3, "rnn": 1}[self.kind]

    @property
    def has_cell_state(self) -> bool:
        return self.kind == "lstm"

    @property
    def phase_gates(self) -> tuple[int, ...]:
        """The gates whose recurrent products are computed together: a GRU that resets early takes two phases."""
        return (2, 1) if self.kind == "gru" and not self.resets_late else (self.gates,)


@dataclass(frozen=True)
class Recurrence(Op):
    """A recurrent layer of `hidden` units in `directions` directions, those from `backward_from` on in reverse.

    Inputs: gates [steps, batch, directions * gates * hidden] (inputs times weights, biases included); recurrent
    weights [directions, gates * hidden, hidden], gates in ONNX's order; optional: bias [directions, hidden] of the
    candidate's recurrent product (GRU that resets late), peepholes [directions, 3 * hidden] (LSTM), lengths [batch]
    (int32), first state [directions, batch, hidden], first cell state (LSTM).

    Outputs: all states [steps, directions, batch, hidden], zero from a sequence's length on, the last states
    [directions, batch, hidden], the last cell states (LSTM); the last of a sequence of length 0 are zero.
    With `batch_first` gates are [batch, steps, ...], all states [batch, steps, directions, hidden], first and
    last states [batch, directions, hidden].
    """

    cell: Cell
    hidden: Dim
    directions: int
    backward_from: int
    batch_first: bool = False

    @property
    def name(self) -> str:
        return self.cell.kind

    def steps_and_batch(self, gates: TensorType) -> tuple[Dim, Dim]:
        first, second = gates.shape[:2]
        return (second, first) if self.batch_first else (first, second)

    def state_shape(self, batch: Dim) -> Shape:
        leading = (batch, self.directions) if self.batch_first else (self.directions, batch)
        return (*leading, self.hidden)

    def infer(self, inputs: Types) -> tuple[TensorType, ...]:
        gates, weights = required(inputs, 0), required(inputs, 1)
        if weights.rank != 3:
            raise ShapeError(f"R is {weights}: expected rank 3")
        return self._outputs(gates)

    def assumes(self, inputs: Types) -> Iterable[SizePair]:
        weights = required(inputs, 1).shape
        yield weights[0], self.directions, Relation.EQUAL
        yield weights[1], self.cell.gates * self.hidden, Relation.EQUAL
        yield weights[2], self.hidden, Relation.EQUAL

    def _outputs(self, gates: TensorType) -> tuple[TensorType, ...]:
        steps, batch = self.steps_and_batch(gates)
        leading = (batch, steps, self.directions) if self.batch_first else (steps, self.directions, batch)
        state = TensorType(gates.dtype, self.state_shape(batch))
        return (TensorType(gates.dtype, (*leading, self.hidden)), state, *([state] if self.cell.has_cell_state else []))


@dataclass(frozen=True)
class RecurrenceTiling:
    """How the recurrent product is cut: panels of `columns`, up to `rows` sequences together, `parts` of the units
    that as many threads compute side by side in every step."""

    columns: int
    rows: int
    parts: int


COUNTER_WORDS = 8
"""Elements between counters that different threads write: a cache line."""


@dataclass(frozen=True)
class PackedRecurrence(Recurrence):
    """A Recurrence over packed weights: [directions, blocks of units, gates, hidden, columns], one tensor a phase.

    Inputs 1 and 2 are these tensors (2 is None where there is one phase), the others follow as in Recurrence. Two more
    outputs are its workspace: int64 counters, and gates that the second phase needs.
    """

    tiling: RecurrenceTiling = RecurrenceTiling(1, 1, 1)

    def groups(self, batch: Dim) -> Dim:
        """The groups of sequences that are computed together, through all directions."""
        return self.directions * dims.maximum(1, dims.ceildiv(batch, self.tiling.rows))

    def infer(self, inputs: Types) -> tuple[TensorType, ...]:
        gates = required(inputs, 0)
        _, batch = self.steps_and_batch(gates)
        counters = self.groups(batch) * ((self.tiling.parts + 1) * COUNTER_WORDS)
        kept = 2 * self.hidden if len(self.cell.phase_gates) > 1 else 0
        workspace = TensorType(gates.dtype, (self.directions, batch, kept))
        return (*self._outputs(gates), TensorType(dtypes.INT64, (counters,)), workspace)

    def assumes(self, inputs: Types) -> Iterable[SizePair]:
        return ()

    def lower(self, node: Node) -> Contract:
        return Contract(self, takes_epilogue=False)


def pack_recurrent(builder: GraphBuilder, weights: Value, op: Recurrence, columns: int) -> list[Value]:
    """[directions, gates * hidden, hidden] as panels of `columns` units, one tensor for each phase."""
    cell, directions, hidden = op.cell, op.directions, op.hidden
    blocks = dims.ceildiv(hidden, columns)
    split = builder.emit(Reshape((directions, cell.gates, hidden, hidden)), weights)
    missing = blocks * columns - hidden
    if missing != 0:
        fill = builder.constant(weights.dtype.storage.type(0), weights.dtype)
        split = builder.emit(Pad((0, 0, 0, 0), (0, 0, missing, 0)), split, fill)
    panels = builder.emit(Reshape((directions, cell.gates, blocks, columns, hidden)), split)
    turned = builder.emit(Transpose((0, 2, 1, 4, 3)), panels)
    result = []
    first = 0
    for count in cell.phase_gates:
        result.append(_take_gates(builder, turned, first, count))
        first += count
    return result


def _take_gates(builder: GraphBuilder, panels: Value, first: int, count: int) -> Value:
    if count == panels.shape[2]:
        return panels
    shape = (*panels.shape[:2], count, *panels.shape[3:])
    return builder.emit(Slice((0, 0, first, 0, 0), (1,) * 5, shape), panels)
