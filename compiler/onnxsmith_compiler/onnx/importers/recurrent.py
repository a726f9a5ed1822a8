"""Recurrent layers: LSTM, GRU, RNN."""

from __future__ import annotations

from collections.abc import Iterable

from onnxsmith_compiler.ir import dtype as dtypes
from onnxsmith_compiler.ir.dim import Dim
from onnxsmith_compiler.ir.dtype import DType
from onnxsmith_compiler.ir.graph import Value
from onnxsmith_compiler.onnx.node_import import NodeImport
from onnxsmith_compiler.ops.contraction import MatMul
from onnxsmith_compiler.ops.recurrent import Activation, Cell, Recurrence
from onnxsmith_compiler.ops.view import Concat, Slice

# What alpha and beta are where the model does not say; None where the function does not take them.
_ACTIVATIONS: dict[str, tuple[float | None, float | None]] = {
    "affine": (1.0, 0.0),
    "elu": (1.0, None),
    "hardsigmoid": (0.2, 0.5),
    "leakyrelu": (0.01, None),
    "relu": (None, None),
    "scaledtanh": (1.0, 1.0),
    "sigmoid": (None, None),
    "softplus": (None, None),
    "softsign": (None, None),
    "tanh": (None, None),
    "thresholdedrelu": (1.0, None),
}


def lstm(node: NodeImport) -> list[Value | None]:
    """The gates' rows are in the order input, output, forget, cell."""
    cell = Cell("lstm", _activations(node, ["Sigmoid", "Tanh", "Tanh"]), _clip(node), couples=node.flag("input_forget"))
    return _layer(node, cell)


def gru(node: NodeImport) -> list[Value | None]:
    """The gates' rows are in the order update, reset, hidden."""
    late = node.flag("linear_before_reset")
    return _layer(node, Cell("gru", _activations(node, ["Sigmoid", "Tanh"]), _clip(node), resets_late=late))


def rnn(node: NodeImport) -> list[Value | None]:
    return _layer(node, Cell("rnn", _activations(node, ["Tanh"]), _clip(node)))


def _layer(node: NodeImport, cell: Cell) -> list[Value | None]:
    """Y, Y_h and, of an LSTM, Y_c. Narrow floats are computed in float32."""
    given = node.input(0).dtype
    if not given.is_float:
        raise node.invalid(f"X is {given}: expected a float type")
    compute = given.compute
    x, weights, recurrent = (node.cast(node.input(number), compute) for number in range(3))
    if x.rank != 3 or weights.rank != 3 or recurrent.rank != 3:
        raise node.invalid(f"X, W and R have ranks {x.rank}, {weights.rank} and {recurrent.rank}: expected 3")
    directions = _direction_count(node)
    hidden = _hidden_size(node, recurrent)
    batch_first = node.int("layout", 0) == 1
    bias, candidate_bias = _biases(node, cell, directions, hidden, compute)
    lengths = node.optional(4)
    op = Recurrence(cell, hidden, directions, _backward_from(node), batch_first)
    peepholes = node.optional(7) if cell.has_cell_state else None
    first = [_first_state(node, number, op, x, compute) for number in ((5, 6) if cell.has_cell_state else (5,))]
    outputs = node.emit_all(
        op,
        _gates(node, op, x, weights, bias),
        recurrent,
        candidate_bias,
        None if peepholes is None else node.cast(peepholes, compute),
        None if lengths is None else node.cast(lengths, dtypes.INT32),
        *[*first, None][:2],
    )
    return [node.cast(value, given) for value in outputs]


def _gates(node: NodeImport, op: Recurrence, x: Value, weights: Value, bias: Value | None) -> Value:
    """The inputs of all steps times the weights of all directions: one product."""
    joined = node.reshape(weights, (op.directions * op.cell.gates * op.hidden, weights.shape[2]))
    product = node.emit(MatMul(), x, node.transpose(joined, [1, 0]))
    return product if bias is None else node.add(product, bias)


def _biases(
    node: NodeImport, cell: Cell, directions: int, hidden: Dim, compute: DType
) -> tuple[Value | None, Value | None]:
    """(what is added to the gates, what to the recurrent product of a GRU's candidate that resets late)."""
    given = node.optional(3)
    rows = cell.gates * hidden
    late = cell.kind == "gru" and cell.resets_late
    if given is None:
        zeros = node.expand(node.constant(0, compute), (directions, hidden)) if late else None
        return None, zeros
    both = node.reshape(node.cast(given, compute), (directions, 2, cell.gates, hidden))
    inputs, recurrent = (_take(node, both, 1, number, 1) for number in range(2))
    if not late:
        return node.reshape(node.add(inputs, recurrent), (directions * rows,)), None
    candidate = _take(node, recurrent, 2, 2, 1)
    others = _take(node, recurrent, 2, 0, 2)
    nothing = node.expand(node.constant(0, compute), candidate.shape)
    added = node.add(inputs, node.emit(Concat(2), others, nothing))
    return node.reshape(added, (directions * rows,)), node.reshape(candidate, (directions, hidden))


def _take(node: NodeImport, value: Value, axis: int, start: int, count: int) -> Value:
    starts = tuple(start if number == axis else 0 for number in range(value.rank))
    sizes = tuple(count if number == axis else size for number, size in enumerate(value.shape))
    return node.emit(Slice(starts, (1,) * value.rank, sizes), value)


def _first_state(node: NodeImport, number: int, op: Recurrence, x: Value, compute: DType) -> Value:
    given = node.optional(number)
    if given is None:
        return node.expand(node.constant(0, compute), (1, 1, op.hidden))
    _, batch = op.steps_and_batch(x.type)
    if given.rank != 3:
        raise node.invalid(f"input {number} has rank {given.rank}: expected 3")
    for size, wanted in zip(given.shape, op.state_shape(batch), strict=True):
        node.builder.assume(size, wanted)
    return node.cast(given, compute)


def _direction_count(node: NodeImport) -> int:
    return 2 if _direction(node) == "bidirectional" else 1


def _direction(node: NodeImport) -> str:
    direction = node.string("direction", "forward")
    if direction not in ("forward", "reverse", "bidirectional"):
        raise node.invalid(f"direction is '{direction}': expected forward, reverse or bidirectional")
    return direction


def _backward_from(node: NodeImport) -> int:
    return 0 if _direction(node) == "reverse" else 1


def _hidden_size(node: NodeImport, recurrent: Value) -> Dim:
    if node.attribute("hidden_size") is not None:
        return node.int("hidden_size")
    return recurrent.shape[2]


def _clip(node: NodeImport) -> float | None:
    return node.float("clip") if node.attribute("clip") is not None else None


def _activations(node: NodeImport, defaults: list[str]) -> tuple[tuple[Activation, ...], ...]:
    """The functions of every direction; given alphas and betas go in turn to those that take one."""
    directions = _direction_count(node)
    names = node.strings("activations") or defaults * directions
    if len(names) != len(defaults) * directions:
        raise node.invalid(f"{len(names)} activations for {directions} directions: expected {len(defaults)} each")
    alphas, betas = iter(node.floats("activation_alpha") or ()), iter(node.floats("activation_beta") or ())
    functions = [_activation(node, name.lower(), alphas, betas) for name in names]
    each = len(defaults)
    return tuple(tuple(functions[start : start + each]) for start in range(0, len(functions), each))


def _activation(node: NodeImport, name: str, alphas: Iterable[float], betas: Iterable[float]) -> Activation:
    if name not in _ACTIVATIONS:
        raise node.invalid(f"activation '{name}': expected one of {', '.join(_ACTIVATIONS)}")
    alpha, beta = (
        0.0 if default is None else next(iter(given), default)
        for default, given in zip(_ACTIVATIONS[name], (alphas, betas), strict=True)
    )
    return Activation(name, alpha, beta)
