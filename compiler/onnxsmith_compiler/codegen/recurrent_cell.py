"""Prints what a recurrent cell makes of its gates: activations, new states, for the units of a block."""

from __future__ import annotations

from collections.abc import Sequence

from onnxsmith_compiler.codegen.contraction_source import indent
from onnxsmith_compiler.codegen.scalar_text import literal, scalar_text
from onnxsmith_compiler.codegen.tile_shapes import TileShape
from onnxsmith_compiler.ir import dtype as dtypes
from onnxsmith_compiler.ir.dtype import BY_NAME, DType
from onnxsmith_compiler.ops.recurrent import Activation, Cell


def cell_loop(cell: Cell, phase: int, tile: TileShape, *, peepholes: bool) -> list[str]:
    """Lines that compute the states of `units` units of sequence `row`.

    They read `gate_row` (the gates of the inputs from the first unit on, `hidden` elements apart), `products` (the
    recurrent ones, a tile apart) and the states before, and write `y` from y_start on, last states from state_start on.
    """
    writer = _Writer(cell, tile, peepholes)
    if cell.kind == "lstm":
        return writer.lstm()
    if cell.kind == "rnn":
        return writer.rnn()
    if cell.resets_late:
        return writer.gru_late()
    return writer.gru_candidate() if phase else writer.gru_gates()


class _Writer:
    def __init__(self, cell: Cell, tile: TileShape, peepholes: bool) -> None:
        self.cell = cell
        self.tile = tile
        self.peepholes = peepholes
        self.dtype = BY_NAME[tile.dtype]
        self.activations = cell.activations[0]

    def _gate(self, number: int, product: int | None = None) -> str:
        """The sum of gate `number` and its recurrent product, `product` in the current phase."""
        return f"{self._input(number)} + {self._product(number if product is None else product)}"

    def _input(self, number: int) -> str:
        return f"load(gate_row, {number} * hidden + j)" if number else "load(gate_row, j)"

    def _product(self, number: int) -> str:
        start = number * self.tile.rows * self.tile.columns
        return f"load(products, {start} + j)" if start else "load(products, j)"

    def _activate(self, function: int, argument: str, *, clip: bool = True) -> str:
        if clip and self.cell.clip is not None:
            low, high = (literal(sign * self.cell.clip, self.dtype) for sign in (-1, 1))
            argument = f"minimum(maximum({argument}, {low}), {high})"
        return activation_text(self.activations[function], argument, self.dtype)

    def _peephole(self, number: int, cell_state: str) -> str:
        if not self.peepholes:
            return ""
        return f" + load(peepholes, (direction * 3 + {number}) * hidden + first_unit + j) * {cell_state}"

    def _one_minus(self, name: str) -> str:
        return f"{literal(1.0, self.dtype)} - {name}"

    def _loop(self, body: Sequence[str]) -> list[str]:
        return ["for j in range(units):", *indent(body)]

    def _finish(self, *, cell_state: bool = False) -> list[str]:
        """Lines that store the new states; new ones stand apart until here, so that the loop above vectorises."""
        state = [f"store(last_c, state_start + j, load(fresh, {self.tile.columns} + j))"] if cell_state else []
        return [
            *self._loop(["store(y, y_start + j, load(fresh, j))", *state]),
            "if step == length - 1:",
            *indent(self._loop(["store(last_h, state_start + j, load(fresh, j))"])),
        ]

    def lstm(self) -> list[str]:
        """Gates in the order i, o, f, c."""
        forget = self._one_minus("input_gate")
        if not self.cell.couples:
            self_forget = self._peephole(2, "old_c")
            forget = self._activate(0, f"{self._gate(2)}{self_forget}")
        return [
            *self._loop(
                [
                    "old_c = load(last_c, state_start + j)",
                    f"input_sum = {self._gate(0)}{self._peephole(0, 'old_c')}",
                    f"input_gate = {self._activate(0, 'input_sum')}",
                    f"forget_gate = {forget}",
                    f"candidate_sum = {self._gate(3)}",
                    f"candidate = {self._activate(1, 'candidate_sum')}",
                    "new_c = forget_gate * old_c + input_gate * candidate",
                    f"output_sum = {self._gate(1)}{self._peephole(1, 'new_c')}",
                    f"output_gate = {self._activate(0, 'output_sum')}",
                    f"shown = {self._activate(2, 'new_c', clip=False)}",
                    "store(fresh, j, output_gate * shown)",
                    f"store(fresh, {self.tile.columns} + j, new_c)",
                ]
            ),
            *self._finish(cell_state=True),
        ]

    def rnn(self) -> list[str]:
        body = [f"total = {self._gate(0)}", f"store(fresh, j, {self._activate(0, 'total')})"]
        return [*self._loop(body), *self._finish()]

    def _old_state(self) -> list[str]:
        """Lines that find the state before: the one the table has the address of."""
        return [
            "old_h = offset(first_h, direction * first_h_direction + row * first_h_row + first_unit)",
            "if step > 0:",
            "    before = position + 1 if backward else position - 1",
            "    old_h = offset(y, before * y_step + direction * y_direction + row * y_row + first_unit)",
        ]

    def _mix(self) -> list[str]:
        return [f"store(fresh, j, ({self._one_minus('update')}) * candidate + update * load(old_h, j))"]

    def gru_late(self) -> list[str]:
        """Gates in the order z, r, h; the reset gate multiplies the product."""
        body = [
            f"update_sum = {self._gate(0)}",
            f"update = {self._activate(0, 'update_sum')}",
            f"reset_sum = {self._gate(1)}",
            f"reset = {self._activate(0, 'reset_sum')}",
            f"recurrent = {self._product(2)} + load(bias, direction * hidden + first_unit + j)",
            f"candidate_sum = {self._input(2)} + reset * recurrent",
            f"candidate = {self._activate(1, 'candidate_sum')}",
            *self._mix(),
        ]
        return [*self._old_state(), *self._loop(body), *self._finish()]

    def gru_gates(self) -> list[str]:
        """The first phase of a GRU that resets early: the update gate, and the state times the reset gate."""
        body = [
            f"update_sum = {self._gate(0)}",
            f"reset_sum = {self._gate(1)}",
            f"store(fresh, j, {self._activate(0, 'update_sum')})",
            f"reset = {self._activate(0, 'reset_sum')}",
            f"store(fresh, {self.tile.columns} + j, reset * load(old_h, j))",
        ]
        copy = [
            "store(kept_row, j, load(fresh, j))",
            f"store(kept_row, hidden + j, load(fresh, {self.tile.columns} + j))",
        ]
        return [*self._old_state(), *self._loop(body), *self._kept_row(), *self._loop(copy)]

    def gru_candidate(self) -> list[str]:
        """The second phase: the candidate from the reset states, and the new state."""
        body = [
            "update = load(kept_row, j)",
            f"candidate_sum = {self._gate(2, product=0)}",
            f"candidate = {self._activate(1, 'candidate_sum')}",
            *self._mix(),
        ]
        return [*self._old_state(), *self._kept_row(), *self._loop(body), *self._finish()]

    def _kept_row(self) -> list[str]:
        return ["kept_row = offset(kept, (direction * batch + row) * 2 * hidden + first_unit)"]


def activation_text(activation: Activation, x: str, dtype: DType) -> str:
    """An expression for the activation of `x`, which is an expression that is cheap to repeat."""

    def call(function: str, *arguments: str) -> str:
        return scalar_text(function, dtype, dtype, list(arguments))

    def choose(condition: str, yes: str, no: str) -> str:
        return f"select({scalar_text(condition, dtypes.BOOL, dtype, [x, zero])}, {yes}, {no})"

    zero, one = literal(0.0, dtype), literal(1.0, dtype)
    alpha, beta = literal(activation.alpha, dtype), literal(activation.beta, dtype)
    match activation.name:
        case "relu":
            return choose("lt", zero, x)
        case "tanh" | "sigmoid" | "softplus":
            return call(activation.name, x)
        case "affine":
            return f"{alpha} * ({x}) + {beta}"
        case "leakyrelu":
            return choose("lt", f"{alpha} * ({x})", x)
        case "thresholdedrelu":
            return f"select(({x}) > {alpha}, {x}, {zero})"
        case "scaledtanh":
            return f"{alpha} * {call('tanh', f'{beta} * ({x})')}"
        case "hardsigmoid":
            return call("min", call("max", f"{alpha} * ({x}) + {beta}", zero), one)
        case "elu":
            return choose("lt", f"{alpha} * {call('expm1', x)}", x)
        case "softsign":
            return f"({x}) / ({one} + {call('abs', x)})"
    raise KeyError(f"no printed form for activation '{activation.name}'")
