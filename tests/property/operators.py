"""The operators that random graphs are made of: each draws its operands and attributes, and appends its nodes."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
from hypothesis import strategies as st

from tests.property.graphs import REAL, Array, Draft, Shape, Size, Tensor

Rule = Callable[[Draft], None]

_MOST_AXES = 4
_MOVES_NOTHING = ("Abs", "Ceil", "Floor", "Identity", "Neg", "Relu", "Round", "Sign")
_ROUNDS = (
    "Atan", "Cos", "Elu", "Erf", "Exp", "Gelu", "HardSigmoid", "HardSwish", "LeakyRelu", "Mish", "Reciprocal", "Selu",
    "Sigmoid", "Sin", "Softplus", "Softsign", "Tanh", "ThresholdedRelu",
)  # fmt: skip
_NEEDS_EXACT = ("Ceil", "Floor", "Round", "Sign", "ThresholdedRelu")


def _is_real(value: Tensor) -> bool:
    return value.dtype == REAL


def _unary(op_type: str) -> Rule:
    def rule(draft: Draft) -> None:
        x = draft.pick(lambda value: _is_real(value) and (value.exact or op_type not in _NEEDS_EXACT))
        if x is not None:
            draft.node(op_type, [x], REAL, x.shape, x.exact and op_type in _MOVES_NOTHING)

    return rule


def _partner(draft: Draft, x: Tensor, exact: bool = False) -> tuple[str, Shape, bool] | None:
    """Another operand that broadcasts with x: its name, the shape of both together, and whether it is exact."""
    choice = draft.draw(st.sampled_from(("value", "value", "constant", "scalar")))
    if choice == "scalar":
        return draft.constant(np.asarray(draft.draw(st.integers(-16, 16)) / 8), x.dtype), x.shape, True
    if choice == "constant":
        sizes = [size if isinstance(size, int) and draft.draw(st.booleans()) else 1 for size in x.shape]
        if x.dtype == REAL:
            return draft.weights(*sizes), x.shape, True
        return draft.constant(np.full(sizes, 3), x.dtype), x.shape, True
    y = draft.pick(
        lambda value: (
            value.dtype == x.dtype and (value.exact or not exact) and _together(x.shape, value.shape, draft) is not None
        )
    )
    shape = None if y is None else _together(x.shape, y.shape, draft)
    return None if y is None or shape is None else (y.name, shape, y.exact)


def _together(a: Shape, b: Shape, draft: Draft) -> Shape | None:
    """The shape that both broadcast to, None where they do not whatever the sizes, or where rows would mix."""
    if draft.batch and len(a) != len(b):
        return None
    rank = max(len(a), len(b))
    wide_a, wide_b = (1,) * (rank - len(a)) + a, (1,) * (rank - len(b)) + b
    if any(x != y and 1 not in (x, y) for x, y in zip(wide_a, wide_b, strict=True)):
        return None
    return tuple(y if x == 1 else x for x, y in zip(wide_a, wide_b, strict=True))


def _binary(
    op_type: str, *, dtypes: Sequence[str] = (REAL,), keeps_exact: bool = False, exact_second: bool = False
) -> Rule:
    def rule(draft: Draft) -> None:
        x = draft.pick(lambda value: value.dtype in dtypes)
        if x is None:
            return
        partner = _partner(draft, x, exact=exact_second)
        if partner is None:
            return
        other, shape, exact = partner
        swapped = (x.exact or not exact_second) and draft.draw(st.booleans())
        operands = [other, x.name] if swapped else [x.name, other]
        draft.node(op_type, operands, x.dtype, shape, x.exact and exact and keeps_exact)

    return rule


def _compare(op_type: str) -> Rule:
    def rule(draft: Draft) -> None:
        x = draft.pick(lambda value: value.dtype in (REAL, "int64", "int32") and value.exact)
        partner = None if x is None else _partner(draft, x, exact=True)
        if x is not None and partner is not None:
            draft.node(op_type, [x.name, partner[0]], "bool", partner[1], True)

    return rule


def _where(draft: Draft) -> None:
    condition = draft.pick(lambda value: value.dtype == "bool")
    if condition is None:
        return
    x = draft.pick(lambda value: _is_real(value) and _together(condition.shape, value.shape, draft) in (value.shape,))
    if x is not None:
        other = draft.constant(np.asarray(draft.draw(st.integers(-8, 8)) / 4), REAL)
        draft.node("Where", [condition, x, other], REAL, x.shape, x.exact)


def _reduce(op_type: str) -> Rule:
    def rule(draft: Draft) -> None:
        selects = op_type in ("ReduceMax", "ReduceMin")
        x = draft.pick(lambda value: _is_real(value) and value.rank > draft.first_axis)
        if x is None:
            return
        axes = _axes(draft, x)
        keep = draft.draw(st.booleans())
        shape = tuple(1 if axis in axes else size for axis, size in enumerate(x.shape) if keep or axis not in axes)
        given = draft.integers(*axes)
        draft.node(op_type, [x.name, given], REAL, shape, x.exact and selects, keepdims=int(keep))

    return rule


def _axes(draft: Draft, x: Tensor) -> list[int]:
    """Some axes, at least one."""
    candidates = list(range(draft.first_axis, x.rank))
    count = draft.draw(st.integers(1, len(candidates)))
    return sorted(draft.draw(st.permutations(candidates))[:count])


def _arg(op_type: str) -> Rule:
    def rule(draft: Draft) -> None:
        x = draft.pick(lambda value: _is_real(value) and value.exact and _fixed_axes(draft, value) != [])
        if x is None:
            return
        axis = draft.draw(st.sampled_from(_fixed_axes(draft, x)))
        shape = tuple(1 if number == axis else size for number, size in enumerate(x.shape))
        last = int(draft.draw(st.booleans()))
        draft.node(op_type, [x], "int64", shape, True, axis=axis, keepdims=1, select_last_index=last)

    return rule


def _fixed_axes(draft: Draft, x: Tensor) -> list[int]:
    """Axes whose size is a constant, and which may be mixed."""
    return [axis for axis in range(draft.first_axis, x.rank) if isinstance(x.shape[axis], int)]


def _softmax(op_type: str) -> Rule:
    def rule(draft: Draft) -> None:
        x = draft.pick(lambda value: _is_real(value) and value.rank > draft.first_axis)
        if x is not None:
            axis = draft.draw(st.integers(draft.first_axis, x.rank - 1))
            draft.node(op_type, [x], REAL, x.shape, False, axis=axis)

    return rule


def _layer_normalization(draft: Draft) -> None:
    x = draft.pick(lambda value: _is_real(value) and value.rank > draft.first_axis and isinstance(value.shape[-1], int))
    if x is not None:
        width = x.shape[-1]
        assert isinstance(width, int)
        draft.node("LayerNormalization", [x.name, draft.weights(width), draft.weights(width)], REAL, x.shape, False)


def _matmul(draft: Draft) -> None:
    x = draft.pick(lambda value: _is_real(value) and value.rank >= 2 and isinstance(value.shape[-1], int))
    if x is None:
        return
    depth, width = x.shape[-1], draft.draw(st.sampled_from((1, 3, 16, 33)))
    assert isinstance(depth, int)
    draft.node("MatMul", [x.name, draft.weights(depth, width)], REAL, (*x.shape[:-1], width), False)


def _matmul_of_values(draft: Draft) -> None:
    x = draft.pick(lambda value: _is_real(value) and value.rank >= draft.first_axis + 2)
    if x is None:
        return
    order = [*range(x.rank - 2), x.rank - 1, x.rank - 2]
    turned = draft.node("Transpose", [x], REAL, tuple(x.shape[axis] for axis in order), x.exact, perm=order)
    draft.node("MatMul", [x, turned], REAL, (*x.shape[:-1], x.shape[-2]), False)


def _image(draft: Draft) -> Tensor | None:
    """A value [N, C, height, width] with a constant number of channels."""
    return draft.pick(lambda value: _is_real(value) and value.rank == 4 and value.shape[1] in (1, 2, 6, 16, 33))


def _convolution(draft: Draft) -> None:
    """Of the same size, or with stride 2 where the size is a constant."""
    x = _image(draft)
    if x is None:
        return
    channels, outputs, size = x.shape[1], draft.draw(st.sampled_from((1, 6, 16))), draft.draw(st.sampled_from((1, 3)))
    assert isinstance(channels, int)
    groups = draft.draw(st.sampled_from([g for g in (1, 2, channels) if channels % g == 0]))
    outputs = outputs * groups if groups < channels else channels
    stride = [draft.draw(st.sampled_from((1, 2))) if isinstance(extent, int) else 1 for extent in x.shape[2:]]
    spatial = tuple(_strided(extent, step) for extent, step in zip(x.shape[2:], stride, strict=True))
    weights = [draft.weights(outputs, channels // groups, size, size), draft.weights(outputs)]
    attributes = {"pads": [size // 2] * 4, "strides": stride, "group": groups, "kernel_shape": [size, size]}
    draft.node("Conv", [x.name, *weights], REAL, (x.shape[0], outputs, *spatial), False, **attributes)


def _strided(extent: Size, step: int) -> Size:
    return extent if isinstance(extent, str) or step == 1 else -(-extent // step)


def _pool(op_type: str) -> Rule:
    def rule(draft: Draft) -> None:
        x = _image(draft)
        if x is None or not x.exact:
            return
        size = draft.draw(st.sampled_from((1, 3)))
        draft.ordinary = True  # NaN goes through here, and not through the reference
        attributes = {"kernel_shape": [size, size], "pads": [size // 2] * 4, "strides": [1, 1]}
        draft.node(op_type, [x], REAL, x.shape, op_type == "MaxPool", **attributes)

    return rule


def _batch_normalization(draft: Draft) -> None:
    x = _image(draft)
    if x is not None:
        channels = x.shape[1]
        assert isinstance(channels, int)
        variance = draft.constant(np.arange(1, channels + 1) / 4, REAL)
        statistics = [*(draft.weights(channels) for _ in range(3)), variance]
        draft.node("BatchNormalization", [x.name, *statistics], REAL, x.shape, False)


def _global_pool(draft: Draft) -> None:
    x = _image(draft)
    if x is not None:
        draft.node("GlobalAveragePool", [x], REAL, (*x.shape[:2], 1, 1), False)


def _transpose(draft: Draft) -> None:
    x = draft.pick(lambda value: value.rank > draft.first_axis)
    if x is not None:
        order = [*range(draft.first_axis), *draft.draw(st.permutations(range(draft.first_axis, x.rank)))]
        draft.node("Transpose", [x], x.dtype, tuple(x.shape[axis] for axis in order), x.exact, perm=order)


def _flatten(draft: Draft) -> None:
    """Joins constant axes at the end, so that the shape of the result can be written down."""
    x = draft.pick(lambda value: value.rank >= 2 and all(isinstance(n, int) and n for n in value.shape[-2:]))
    if x is not None:
        a, b = x.shape[-2:]
        assert isinstance(a, int)
        assert isinstance(b, int)
        target = draft.integers(*(0 for _ in x.shape[:-2]), a * b)
        draft.node("Reshape", [x.name, target], x.dtype, (*x.shape[:-2], a * b), x.exact)


def _split_axis(draft: Draft) -> None:
    x = draft.pick(lambda value: 0 < value.rank < _MOST_AXES and value.shape[-1] in (6, 8, 12, 16))
    if x is not None:
        width = x.shape[-1]
        assert isinstance(width, int)
        target = draft.integers(*(0 for _ in x.shape[:-1]), 2, -1)
        draft.node("Reshape", [x.name, target], x.dtype, (*x.shape[:-1], 2, width // 2), x.exact)


def _unsqueeze(draft: Draft) -> None:
    x = draft.pick(lambda value: value.rank < _MOST_AXES)
    if x is not None:
        axis = draft.draw(st.integers(draft.first_axis, x.rank))
        draft.node("Unsqueeze", [x.name, draft.integers(axis)], x.dtype, (*x.shape[:axis], 1, *x.shape[axis:]), x.exact)


def _concat(draft: Draft) -> None:
    x = draft.pick(lambda value: bool(_fixed_axes(draft, value)))
    if x is None:
        return
    axis = draft.draw(st.sampled_from(_fixed_axes(draft, x)))

    def fits(value: Tensor) -> bool:
        rest = (*value.shape[:axis], *value.shape[axis + 1 :])
        return (
            value.dtype == x.dtype
            and value.rank == x.rank
            and isinstance(value.shape[axis], int)
            and rest == (*x.shape[:axis], *x.shape[axis + 1 :])
        )

    y = draft.pick(fits)
    if y is not None:
        a, b = x.shape[axis], y.shape[axis]
        assert isinstance(a, int)
        assert isinstance(b, int)
        shape = (*x.shape[:axis], a + b, *x.shape[axis + 1 :])
        draft.node("Concat", [x, y], x.dtype, shape, x.exact and y.exact, axis=axis)


def _slice(draft: Draft) -> None:
    x = draft.pick(lambda value: bool(_fixed_axes(draft, value)))
    if x is None:
        return
    axis = draft.draw(st.sampled_from(_fixed_axes(draft, x)))
    size = x.shape[axis]
    assert isinstance(size, int)
    step = draft.draw(st.sampled_from((1, 1, 2, -1)))
    # Backwards from before the first element is from the first one; the reference slices as numpy, which takes none.
    start = draft.draw(st.integers(-size if step < 0 else -size - 1, size))
    end = draft.draw(st.integers(-size - 1, size + 1))
    count = len(range(size)[start:end:step])
    names = [draft.integers(start), draft.integers(end), draft.integers(axis), draft.integers(step)]
    draft.node("Slice", [x.name, *names], x.dtype, (*x.shape[:axis], count, *x.shape[axis + 1 :]), x.exact)


def _gather(draft: Draft) -> None:
    x = draft.pick(lambda value: any(value.shape[axis] != 0 for axis in _fixed_axes(draft, value)))
    if x is None:
        return
    axis = draft.draw(st.sampled_from([a for a in _fixed_axes(draft, x) if x.shape[a] != 0]))
    size = x.shape[axis]
    assert isinstance(size, int)
    indices = draft.draw(st.lists(st.integers(-size, size - 1), max_size=4))
    shape = (*x.shape[:axis], len(indices), *x.shape[axis + 1 :])
    draft.node("Gather", [x.name, draft.integers(*indices)], x.dtype, shape, x.exact, axis=axis)


def _expand(draft: Draft) -> None:
    x = draft.pick(lambda value: any(value.shape[axis] == 1 for axis in _fixed_axes(draft, value)))
    if x is None:
        return
    axis = draft.draw(st.sampled_from([a for a in _fixed_axes(draft, x) if x.shape[a] == 1]))
    target = draft.integers(*(3 if number == axis else 1 for number in range(x.rank)))
    draft.node("Expand", [x.name, target], x.dtype, (*x.shape[:axis], 3, *x.shape[axis + 1 :]), x.exact)


def _clip(draft: Draft) -> None:
    x = draft.pick(_is_real)
    if x is not None:
        low = draft.draw(st.integers(-8, 4))
        bounds = [draft.constant(np.asarray(bound / 4), REAL) for bound in (low, low + 6)]
        draft.node("Clip", [x.name, *bounds], REAL, x.shape, x.exact)


def _cast_to_real(draft: Draft) -> None:
    x = draft.pick(lambda value: value.dtype in ("bool", "int32", "int64"))
    if x is not None:
        draft.node("Cast", [x], REAL, x.shape, True, to=REAL)


def _cast_to_integer(draft: Draft) -> None:
    """Of exact floats that are finite: what others become is not defined."""
    x = draft.pick(lambda value: value.dtype == "bool")
    if x is not None:
        to = draft.draw(st.sampled_from(("int32", "int64")))
        draft.node("Cast", [x], to, x.shape, True, to=to)


def _quantised(draft: Draft, accept: Callable[[Tensor], bool]) -> Tensor | None:
    """A quantised value that `accept` takes, made of numbers that are fed where there is none.

    Scales are powers of two, so that nothing but the wanted rounding rounds.
    """
    found = draft.pick(lambda value: value.dtype in ("int8", "uint8") and accept(value))
    if found is not None:
        return found
    x = draft.pick(lambda value: _is_real(value) and value in draft.inputs and accept(value))
    if x is None or draft.narrow:
        return None
    draft.ordinary = True  # what NaN becomes is not defined
    to = draft.draw(st.sampled_from(("int8", "uint8")))
    return draft.node("QuantizeLinear", [x.name, *_scale(draft, to)], to, x.shape, True)


def _scale(draft: Draft, dtype: str, *, zero_unit: int = 1) -> tuple[str, str]:
    """A scale, and a zero point of the type that is a multiple of `zero_unit`."""
    scale = draft.draw(st.sampled_from((0.03125, 0.25, 0.5)))
    zero = zero_unit * draft.draw(st.integers(0, 100 // zero_unit))
    return draft.constant(np.asarray(scale), REAL), draft.constant(np.asarray(zero), dtype)


def _result_scale(draft: Draft, dtype: str) -> tuple[str, str]:
    """A scale and a zero point of a product. An even one: where it is odd, ties show that the reference adds it first.

    The compiler rounds before, as onnxruntime does.
    """
    return _scale(draft, dtype, zero_unit=2)


def _dequantise(draft: Draft) -> None:
    x = _quantised(draft, lambda value: True)
    if x is not None:
        draft.node("DequantizeLinear", [x.name, *_scale(draft, x.dtype)], REAL, x.shape, True)


def _quantised_product(draft: Draft) -> None:
    x = _quantised(draft, lambda value: value.rank >= 2 and isinstance(value.shape[-1], int))
    if x is None:
        return
    depth, width = x.shape[-1], draft.draw(st.sampled_from((1, 3, 17)))
    assert isinstance(depth, int)
    shape = (*x.shape[:-1], width)
    weights = draft.constant(_short_integers(draft, (depth, width)), "int8")
    if draft.draw(st.booleans()):
        zeros = [draft.constant(np.asarray(zero), dtype) for zero, dtype in ((3, x.dtype), (-2, "int8"))]
        draft.node("MatMulInteger", [x.name, weights, *zeros], "int32", shape, True)
    else:
        operands = [x.name, *_scale(draft, x.dtype), weights, *_scale(draft, "int8"), *_result_scale(draft, x.dtype)]
        draft.node("QLinearMatMul", operands, x.dtype, shape, True)


def _quantised_convolution(draft: Draft) -> None:
    x = _quantised(draft, lambda value: value.rank == 4 and value.shape[1] in (1, 2, 6, 16, 33))
    if x is None:
        return
    channels, outputs = x.shape[1], draft.draw(st.sampled_from((1, 6)))
    assert isinstance(channels, int)
    weights = draft.constant(_short_integers(draft, (outputs, channels, 3, 3)), "int8")
    result = _result_scale(draft, x.dtype)
    operands = [x.name, *_scale(draft, x.dtype), weights, *_scale(draft, "int8"), *result]
    attributes = {"pads": [1, 1, 1, 1], "kernel_shape": [3, 3]}
    draft.node("QLinearConv", operands, x.dtype, (x.shape[0], outputs, *x.shape[2:]), True, **attributes)


def _short_integers(draft: Draft, shape: tuple[int, ...]) -> Array:
    return np.random.default_rng(draft.draw(st.integers(0, 1000))).integers(-8, 9, shape)


def _recurrence(op_type: str, gates: int, **attributes: object) -> Rule:
    """Over [steps, batch, features]: the outputs of all steps."""

    def rule(draft: Draft) -> None:
        x = draft.pick(lambda value: _is_real(value) and value.rank == 3 and isinstance(value.shape[-1], int))
        if x is None or draft.batch or x.shape[-1] == 0:
            return
        features, hidden = x.shape[-1], draft.draw(st.sampled_from((1, 5, 8)))
        assert isinstance(features, int)
        operands = [draft.weights(1, gates * hidden, size) for size in (features, hidden)]
        bias = draft.weights(1, 2 * gates * hidden)
        shape = (x.shape[0], 1, x.shape[1], hidden)
        draft.node(op_type, [x.name, *operands, bias], REAL, shape, False, hidden_size=hidden, **attributes)

    return rule


RULES: Mapping[str, Sequence[Rule]] = {
    "function": [_unary(name) for name in (*_MOVES_NOTHING, *_ROUNDS)],
    "arithmetic": [
        _binary("Mul"),
        _binary("Div", exact_second=True),  # what is zero but for rounding can have any quotient
        *(_binary(name, keeps_exact=True) for name in ("Max", "Min")),
        *(_binary(name, dtypes=(REAL, "int32", "int64")) for name in ("Add", "Sub")),
    ],
    "choice": [*(_compare(name) for name in ("Less", "GreaterOrEqual", "Equal")), _where, _where, _clip],
    "reduction": [_reduce(name) for name in ("ReduceMax", "ReduceMin", "ReduceSum", "ReduceMean", "ReduceL2")],
    "position": [_arg(name) for name in ("ArgMax", "ArgMin")],
    "normalization": [_softmax("Softmax"), _softmax("LogSoftmax"), _layer_normalization],
    "product": [_matmul, _matmul, _matmul_of_values],
    "image": [_convolution, _convolution, _pool("MaxPool"), _pool("AveragePool"), _batch_normalization, _global_pool],
    "shape": [_transpose, _flatten, _split_axis, _unsqueeze, _expand],
    "part": [_concat, _slice, _gather],
    "quantised": [_dequantise, _quantised_product, _quantised_convolution],
    "recurrence": [
        _recurrence("LSTM", 4),
        _recurrence("GRU", 3),
        _recurrence("GRU", 3, linear_before_reset=1),
        _recurrence("RNN", 1),
    ],
    "cast": [_cast_to_real, _cast_to_integer],
}
"""What a node of a random graph may be; a rule that finds no operand adds nothing."""


def draw_graph(draft: Draft, nodes: int) -> None:
    """Draws inputs, then up to `nodes` operators, then outputs: what nobody reads, and perhaps one more."""
    if draft.draw(st.booleans()):
        draft.input(REAL, _image_shape(draft))
    count = draft.draw(st.integers(0 if draft.values else 1, 3))
    for _ in range(count):
        dtype = draft.draw(st.sampled_from((REAL, REAL, REAL, "int64", "bool")))
        draft.input(dtype if draft.values else REAL, _shape(draft))
    for _ in range(draft.draw(st.integers(2, nodes))):
        draft.draw(st.sampled_from(RULES[draft.draw(st.sampled_from(sorted(RULES)))]))(draft)
    read = {name for node in draft.nodes for name in node.inputs}
    computed = [value for value in draft.values if value not in draft.inputs]
    ends = [value for value in computed if value.name not in read]
    inner = [value for value in computed if value.name in read]
    also = [draft.draw(st.sampled_from(inner))] if inner and draft.draw(st.booleans()) else []
    draft.outputs = [*ends, *also]


def _image_shape(draft: Draft) -> Shape:
    spatial = st.sampled_from((draft.symbols[-1], 1, 6, 7))
    first: Size = draft.batch or draft.draw(st.sampled_from((draft.symbols[0], 1, 2)))
    return (first, draft.draw(st.sampled_from((1, 2, 6, 16, 33))), draft.draw(spatial), draft.draw(spatial))


def _shape(draft: Draft) -> Shape:
    rank = draft.draw(st.integers(draft.first_axis, 3))
    sizes = st.sampled_from((*draft.symbols, *draft.symbols, 1, 2, 6, 16, 33))
    free = tuple(draft.draw(sizes) for _ in range(rank - draft.first_axis))
    return (draft.batch, *free) if draft.batch else free
