"""LSTM, GRU and RNN: against onnxruntime, against float64 equations written out here, and the official cases."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import ml_dtypes
import numpy as np
import pytest

import onnxsmith
from tests.support import Array, Case, Fixed, check, node_case, official_cases, run

GATES = {"LSTM": 4, "GRU": 3, "RNN": 1}
DEFAULTS = {"LSTM": ["Sigmoid", "Tanh", "Tanh"], "GRU": ["Sigmoid", "Tanh"], "RNN": ["Tanh"]}
LEVELS = (0, 99)


@dataclass(frozen=True)
class Layer:
    """A node of a recurrent operator and the sizes of its inputs."""

    kind: str
    steps: int = 5
    batch: int = 3
    features: int = 4
    hidden: int = 10
    direction: str = "forward"
    layout: int = 0
    bias: bool = True
    lengths: tuple[int, ...] | None = None
    states: bool = True
    peepholes: bool = False
    attributes: tuple[tuple[str, Any], ...] = ()
    dtype: Any = np.float32
    opset: int = 14
    fed: bool = False
    seed: int = 0

    @property
    def directions(self) -> int:
        return 2 if self.direction == "bidirectional" else 1

    def all_attributes(self) -> dict[str, Any]:
        layout = {"layout": self.layout} if self.layout else {}
        return {"hidden_size": self.hidden, "direction": self.direction, **layout, **dict(self.attributes)}

    def operands(self) -> list[Array | None]:
        """X, W, R, B, sequence_lens, initial_h, initial_c, P, as the node takes them."""
        random = np.random.default_rng(self.seed)
        rows, count = GATES[self.kind] * self.hidden, self.directions

        def draw(*shape: int) -> Array:
            return (0.5 * random.standard_normal(shape)).astype(self.dtype)

        tame = np.sqrt(10 / max(10, self.hidden))  # so that rounding does not grow from step to step

        x = draw(self.batch, self.steps, self.features)
        states = [draw(self.batch, count, self.hidden) for _ in range(2)]
        if not self.layout:
            x, states = np.moveaxis(x, 0, 1).copy(), [np.moveaxis(state, 0, 1).copy() for state in states]
        weights = draw(count, rows, self.features)
        recurrent = (tame * draw(count, rows, self.hidden)).astype(self.dtype)
        bias, peepholes = draw(count, 2 * rows), draw(count, 3 * self.hidden)
        lstm = self.kind == "LSTM"
        return [
            x,
            weights,
            recurrent,
            bias if self.bias else None,
            None if self.lengths is None else np.array(self.lengths, np.int32),
            states[0] if self.states else None,
            *([states[1] if self.states else None, peepholes if self.peepholes else None] if lstm else []),
        ]

    def case(self, expected: Any = "onnxruntime", rtol: float = 1e-4, atol: float = 2e-6) -> Case:
        x, *rest = self.operands()
        operands = [x, *(v if v is None or self.fed else Fixed(v) for v in rest)]
        while operands[-1] is None:
            operands.pop()
        return node_case(
            self.kind,
            *operands,
            opset=self.opset,
            outputs=3 if self.kind == "LSTM" else 2,
            expected=expected,
            rtol=rtol,
            atol=atol,
            **self.all_attributes(),
        )

    def computed_here(self, rtol: float = 1e-4, atol: float = 2e-6) -> Case:
        return self.case(reference(self), rtol, atol)


def reference(layer: Layer) -> list[Array]:
    """The outputs by ONNX's equations in float64."""
    x, weights, recurrent, bias, lengths, *states = (
        None if value is None else value.astype(np.float64) for value in layer.operands()
    )
    assert x is not None and weights is not None and recurrent is not None
    if layer.layout:
        x, states = np.moveaxis(x, 0, 1), [s if s is None or s.ndim < 3 else np.moveaxis(s, 0, 1) for s in states]
    steps, batch, _ = x.shape
    hidden, count = layer.hidden, layer.directions
    bias = np.zeros((count, 2 * weights.shape[1])) if bias is None else bias
    first = [np.zeros((count, batch, hidden)) if s is None else s for s in [*states, None][:2]]
    peepholes = states[2] if layer.peepholes else np.zeros((count, 3 * hidden))
    y = np.zeros((steps, count, batch, hidden))
    last = [np.zeros((count, batch, hidden)) for _ in range(2)]
    for direction in range(count):
        backward = layer.direction == "reverse" or direction == 1
        step = _cell(layer, direction, weights[direction], recurrent[direction], bias[direction], peepholes[direction])
        for row in range(batch):
            length = steps if lengths is None else int(lengths[row])
            h, c = first[0][direction, row], first[1][direction, row]
            for number in range(length):
                position = length - 1 - number if backward else number
                h, c = step(x[position, row], h, c)
                y[position, direction, row] = h
            if length:
                last[0][direction, row], last[1][direction, row] = h, c
    if layer.layout:
        y, last = y.transpose(2, 0, 1, 3), [np.moveaxis(state, 0, 1) for state in last]
    return [value.astype(layer.dtype) for value in (y, *last[: 2 if layer.kind == "LSTM" else 1])]


Step = Callable[[Array, Array, Array], tuple[Array, Array]]


def _cell(layer: Layer, direction: int, weights: Array, recurrent: Array, bias: Array, peepholes: Array) -> Step:
    given = dict(layer.attributes)
    names = given.get("activations", DEFAULTS[layer.kind] * layer.directions)
    alphas, betas = list(given.get("activation_alpha", ())), list(given.get("activation_beta", ()))
    functions = [_activation(name, alphas, betas) for name in names]
    each = len(DEFAULTS[layer.kind])
    f, *others = functions[direction * each : (direction + 1) * each]
    n = layer.hidden
    clip = given.get("clip", np.inf)
    rows = GATES[layer.kind] * n
    w_bias, r_bias = bias[:rows], bias[rows:]

    def bound(values: Array) -> Array:
        return np.clip(values, -clip, clip)

    def rnn(x: Array, h: Array, c: Array) -> tuple[Array, Array]:
        return f(bound(weights @ x + recurrent @ h + w_bias + r_bias)), c

    def gru(x: Array, h: Array, c: Array) -> tuple[Array, Array]:
        of_x, of_h = weights @ x + w_bias, recurrent @ h + r_bias
        z, r = f(bound(of_x + of_h)[:n]), f(bound(of_x + of_h)[n : 2 * n])
        if given.get("linear_before_reset"):
            candidate = of_x[2 * n :] + r * of_h[2 * n :]
        else:
            candidate = of_x[2 * n :] + recurrent[2 * n :] @ (r * h) + r_bias[2 * n :]
        return (1 - z) * others[0](bound(candidate)) + z * h, c

    def lstm(x: Array, h: Array, c: Array) -> tuple[Array, Array]:
        total = weights @ x + recurrent @ h + w_bias + r_bias
        i, o, forget, candidate = (total[k * n : (k + 1) * n] for k in range(4))
        p_i, p_o, p_f = (peepholes[k * n : (k + 1) * n] for k in range(3))
        i = f(bound(i + p_i * c))
        forget = 1 - i if given.get("input_forget") else f(bound(forget + p_f * c))
        c = forget * c + i * others[0](bound(candidate))
        return f(bound(o + p_o * c)) * others[1](c), c

    return {"RNN": rnn, "GRU": gru, "LSTM": lstm}[layer.kind]


def _activation(name: str, alphas: list[float], betas: list[float]) -> Callable[[Array], Array]:
    a = alphas.pop(0) if name in _TAKES_ALPHA and alphas else _TAKES_ALPHA.get(name, 0.0)
    b = betas.pop(0) if name in _TAKES_BETA and betas else _TAKES_BETA.get(name, 0.0)
    return {
        "Relu": lambda x: np.maximum(x, 0),
        "Tanh": np.tanh,
        "Sigmoid": lambda x: 1 / (1 + np.exp(-x)),
        "Affine": lambda x: a * x + b,
        "LeakyRelu": lambda x: np.where(x < 0, a * x, x),
        "ThresholdedRelu": lambda x: np.where(x > a, x, 0),
        "ScaledTanh": lambda x: a * np.tanh(b * x),
        "HardSigmoid": lambda x: np.clip(a * x + b, 0, 1),
        "Elu": lambda x: np.where(x < 0, a * np.expm1(x), x),
        "Softsign": lambda x: x / (1 + np.abs(x)),
        "Softplus": lambda x: np.log1p(np.exp(x)),
    }[name]


_TAKES_ALPHA = {
    "Affine": 1.0, "LeakyRelu": 0.01, "ThresholdedRelu": 1.0, "ScaledTanh": 1.0, "HardSigmoid": 0.2, "Elu": 1.0,
}  # fmt: skip
_TAKES_BETA = {"Affine": 0.0, "ScaledTanh": 1.0, "HardSigmoid": 0.5}


def _with(**attributes: Any) -> tuple[tuple[str, Any], ...]:
    return tuple(attributes.items())


def _forms(kind: str) -> list[Layer]:
    """Directions, optional inputs and sizes that onnxruntime computes too."""
    lengths = (5, 2, 0)
    layers = [
        Layer(kind),
        Layer(kind, direction="reverse"),
        Layer(kind, direction="bidirectional"),
        Layer(kind, bias=False, states=False),
        Layer(kind, lengths=lengths),
        Layer(kind, lengths=lengths, direction="reverse", states=False),
        Layer(kind, lengths=lengths, direction="bidirectional"),
        Layer(kind, steps=1, batch=1, features=1, hidden=1),
        Layer(kind, batch=17, hidden=33, direction="bidirectional"),
        Layer(kind, batch=1, hidden=70, steps=3),
        Layer(kind, batch=2, hidden=64, features=31, opset=7),
        Layer(kind, fed=True, lengths=lengths, direction="bidirectional"),
        Layer(kind, attributes=_with(clip=0.2)),
    ]
    if kind == "LSTM":
        layers += [
            Layer(kind, peepholes=True),
            Layer(kind, peepholes=True, direction="bidirectional", lengths=lengths),
            Layer(kind, attributes=_with(clip=0.2), peepholes=True),
            Layer(kind, attributes=_with(input_forget=1)),
        ]
    if kind == "GRU":
        layers += [
            Layer(kind, batch=17, hidden=33, direction="bidirectional", attributes=_with(linear_before_reset=1)),
            Layer(kind, lengths=lengths, attributes=_with(linear_before_reset=1)),
            Layer(kind, bias=False, states=False, attributes=_with(linear_before_reset=1)),
            Layer(kind, attributes=_with(linear_before_reset=1, clip=0.2)),
            Layer(kind, fed=True, attributes=_with(linear_before_reset=1)),
        ]
    return layers


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("kind", GATES)
def test_as_onnxruntime(kind: str, level: int) -> None:
    check([layer.case() for layer in _forms(kind)], optimization_level=level)


def _activation_layers() -> list[Layer]:
    names = sorted({*_TAKES_ALPHA, "Relu", "Tanh", "Sigmoid", "Softsign", "Softplus"})
    rnn = [Layer("RNN", attributes=_with(activations=[name])) for name in names]
    rnn += [
        Layer("RNN", attributes=_with(activations=[name], activation_alpha=[0.7], activation_beta=[0.3]))
        for name in names
    ]
    mixed = _with(
        activations=["HardSigmoid", "Elu", "Softsign", "Affine", "ScaledTanh", "LeakyRelu"],
        activation_alpha=[0.3, 0.8, 0.9, 0.6, 0.2],
        activation_beta=[0.4, 0.1, 1.2],
    )
    two = _with(activations=["HardSigmoid", "Tanh", "Sigmoid", "Softsign"], activation_alpha=[0.3])
    late = _with(linear_before_reset=1)
    return [
        *rnn,
        Layer("LSTM", direction="bidirectional", attributes=mixed, lengths=(5, 1, 3)),
        Layer("GRU", direction="bidirectional", attributes=two),
        Layer("GRU", direction="bidirectional", attributes=two + late),
        Layer("RNN", direction="bidirectional", attributes=_with(activations=["Relu", "Tanh"])),
    ]


def test_activations_and_their_coefficients() -> None:
    check([layer.computed_here() for layer in _activation_layers()])


@pytest.mark.parametrize("kind", GATES)
def test_layouts_and_types(kind: str) -> None:
    layers = [
        Layer(kind, layout=1, lengths=(5, 2, 3)),
        Layer(kind, layout=1, direction="bidirectional", fed=True),
        Layer(kind, layout=1, direction="reverse", states=False, batch=16, hidden=40),
    ]
    check([layer.computed_here() for layer in layers])
    wide = [Layer(kind, dtype=np.float64, direction=direction) for direction in ("forward", "bidirectional")]
    check([layer.computed_here(1e-12, 1e-13) for layer in wide])
    check([Layer(kind, dtype=np.float16, direction="bidirectional").computed_here(2e-3, 1e-3)])
    check([Layer(kind, dtype=ml_dtypes.bfloat16, opset=22).computed_here(2e-2, 1e-2)])


@pytest.mark.parametrize("kind", GATES)
def test_nothing_to_compute(kind: str) -> None:
    check([Layer(kind, batch=0).computed_here(), Layer(kind, batch=0, direction="bidirectional").computed_here()])


@pytest.mark.parametrize("kind", GATES)
def test_no_steps_leave_the_first_states(kind: str) -> None:
    layer = Layer(kind, steps=0)
    x, *_, state = (value for value in layer.operands()[:6] if value is not None)
    y, last, *_ = run(layer.case(reference(layer)).model, {"x0": x})
    assert y.shape == (0, 1, 3, 10)
    np.testing.assert_array_equal(last, state)


def test_oldest_versions_of_the_operators() -> None:
    check([Layer(kind, opset=1 if kind != "GRU" else 3).computed_here() for kind in GATES])


@pytest.mark.parametrize("kind", GATES)
def test_units_shared_between_threads(kind: str) -> None:
    """Layers wide enough that several threads compute one step, and results that do not depend on it."""
    layers = [
        Layer(kind, steps=20, batch=1, hidden=300),
        Layer(kind, steps=9, batch=3, hidden=260, direction="bidirectional", lengths=(9, 0, 4)),
        Layer(kind, steps=2, batch=31, hidden=256),
    ]
    cases = [layer.computed_here(1e-3, 1e-5) for layer in layers]
    check(cases)
    options = onnxsmith.SessionOptions()
    options.intra_op_num_threads = 1
    for case in cases:
        session = onnxsmith.InferenceSession(case.model.SerializeToString(), options)
        for alone, shared in zip(session.run(None, case.feeds), run(case.model, case.feeds), strict=True):
            np.testing.assert_array_equal(alone, shared)


def test_a_sequence_gives_the_same_bits_in_any_batch() -> None:
    layer = Layer("LSTM", batch=15, hidden=48)
    case = layer.computed_here()
    whole = run(case.model, case.feeds)[0]
    operands: Sequence[Array] = [value for value in layer.operands() if value is not None]
    options = onnxsmith.SessionOptions()
    model = Layer("LSTM", batch=15, hidden=48, fed=True).computed_here().model
    session = onnxsmith.InferenceSession(model.SerializeToString(), options)
    for row in (0, 7, 14):
        x, weights, recurrent, bias, h, c = operands
        feeds = [x[:, [row]], weights, recurrent, bias, h[:, [row]], c[:, [row]]]
        names = [info.name for info in session.get_inputs()]
        alone = session.run(None, dict(zip(names, map(np.ascontiguousarray, feeds), strict=True)))[0]
        np.testing.assert_array_equal(alone[:, :, 0], whole[:, :, row])


@pytest.mark.parametrize("bad", [(6, 1, 1), (1, -1, 1)])
def test_a_length_out_of_range_is_refused(bad: tuple[int, ...]) -> None:
    layer = Layer("GRU", lengths=(1, 1, 1), fed=True)
    case = layer.computed_here()
    feeds = case.feeds | {"x4": np.array(bad, np.int32)}
    with pytest.raises(Exception, match=str(next(length for length in bad if length != 1))):
        run(case.model, feeds)


def test_official_cases() -> None:
    check(official_cases("LSTM", "GRU", "RNN"))
