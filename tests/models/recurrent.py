"""Recurrent networks, in torch's exported form: one node a layer, directions squeezed out between."""

from __future__ import annotations

import onnx

from tests.models.builder import Net, Value

GATES = {"LSTM": 4, "GRU": 3, "RNN": 1}


def recurrent(
    kind: str,
    hidden: int = 16,
    layers: int = 2,
    steps: int = 8,
    batch: int = 1,
    features: int = 12,
    bidirectional: bool = False,
) -> onnx.ModelProto:
    """[steps, batch, features] to [steps, batch, hidden or 2 hidden], and the last hidden state."""
    net = Net(kind.lower())
    x = net.input("sequence", (steps, batch, features))
    for _ in range(layers):
        x, last = layer(x, kind, hidden, bidirectional)
    net.output("output", x)
    net.output("hidden", last)
    return net.model()


def layer(x: Value, kind: str, hidden: int, bidirectional: bool) -> tuple[Value, Value]:
    """The outputs [steps, batch, directions * hidden] and the last states [directions, batch, hidden]."""
    net, (steps, batch, features) = x.net, (x.size(axis) for axis in range(3))
    directions = 2 if bidirectional else 1
    rows = GATES[kind] * hidden
    weights = [
        net.matrix(directions, rows, features, fan_in=features),
        net.matrix(directions, rows, hidden, fan_in=hidden),
        net.bias(directions, 2 * rows),
    ]
    state = net.bias(directions, batch, hidden)
    inputs = [x, *weights, None, state] if kind != "LSTM" else [x, *weights, None, state, state]
    shapes = [(steps, directions, batch, hidden), (directions, batch, hidden)]
    attributes: dict[str, int | str] = {"hidden_size": hidden}
    if bidirectional:
        attributes["direction"] = "bidirectional"
    if kind == "GRU":
        attributes["linear_before_reset"] = 1
    outputs, last = net.split_node(kind, inputs, shapes, **attributes)
    joined = outputs.transpose(0, 2, 1, 3).reshape(steps, batch, directions * hidden)
    return (joined if bidirectional else outputs.squeeze(1)), last


def lstm(bidirectional: bool = False) -> onnx.ModelProto:
    """Hochreiter and Schmidhuber 1997."""
    return recurrent("LSTM", bidirectional=bidirectional)


def gru(bidirectional: bool = False) -> onnx.ModelProto:
    """Cho et al. 2014, in the variant that resets after the matrix product."""
    return recurrent("GRU", bidirectional=bidirectional)
