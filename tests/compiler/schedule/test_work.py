"""Operations and bytes of each step, counted by hand."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from tests.graphs import Sketch, normal
from tests.interpreter import HOST

from onnxsmith_compiler.ir import dim as dims
from onnxsmith_compiler.onnx.loader import load_model
from onnxsmith_compiler.options import CompileOptions
from onnxsmith_compiler.pipeline import lower_model, print_steps, run_passes
from onnxsmith_compiler.schedule.fusion import resolve, schedule

Counts = tuple[str, int, int]
Shape = Sequence[int | str]


def counts(model: onnx.ModelProto, sizes: Mapping[str, int] | None = None, **options: bool) -> list[Counts]:
    """(label, operations, bytes) of each step at these sizes."""
    lowered = lower_model(load_model(model.SerializeToString()), CompileOptions(**options), HOST)
    aliases = lowered.schedule.aliases
    return [
        (
            step.label,
            dims.evaluate(step.work.flops, sizes or {}),
            dims.evaluate(step.work.traffic(lambda value: resolve(value, aliases)), sizes or {}),
        )
        for step in lowered.steps
    ]


def sketch_counts(sketch: Sketch, **sizes: int) -> list[Counts]:
    graph = run_passes(sketch.graph(), CompileOptions(), HOST)
    scheduled = schedule(graph)
    return [
        (
            step.label,
            dims.evaluate(step.work.flops, sizes),
            dims.evaluate(step.work.traffic(lambda value: resolve(value, scheduled.aliases)), sizes),
        )
        for step in print_steps(graph, scheduled, HOST)
    ]


def one_node(
    op_type: str,
    inputs: Mapping[str, Shape],
    outputs: Sequence[str],
    weights: Mapping[str, Shape],
    **attributes: object,
) -> onnx.ModelProto:
    """A model of one node; `inputs` are fed, `weights` are initializers, which follow them."""
    node = helper.make_node(op_type, [*inputs, *weights], list(outputs), name=op_type, **attributes)
    graph = helper.make_graph(
        [node],
        "one",
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in inputs.items()],
        [onnx.ValueInfoProto(name=name) for name in outputs if name],
        [numpy_helper.from_array(normal(*shape), name) for name, shape in weights.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)


@pytest.mark.parametrize("rows", [1, 7])
def test_matrix_product_with_bias_and_relu(rows: int) -> None:
    sketch = Sketch()
    product = sketch.matmul(sketch.fed(normal(rows, 24), "m"), sketch.constant(normal(24, 50)))
    sketch.output(sketch.map("max", sketch.map("add", product, sketch.constant(normal(50))), 0.0))
    ((label, flops, traffic),) = sketch_counts(sketch, m=rows)
    columns = 56  # what 50 are packed to, in panels of whole vectors
    assert label == "matmul"
    assert flops == 2 * rows * 24 * 50 + 2 * rows * 50
    packed = traffic - 4 * (rows * 24 + 50 + rows * 50)
    assert packed % (4 * 24) == 0
    assert 50 <= packed // (4 * 24) <= columns + 8


def test_batch_of_products_counts_every_one() -> None:
    sketch = Sketch()
    a, b = sketch.fed(normal(2, 3, 5, 8), "b"), sketch.fed(normal(3, 8, 16))
    sketch.output(sketch.matmul(a, b))
    assert sum(flops for _, flops, _ in sketch_counts(sketch, b=2)) == 2 * 2 * 3 * 5 * 8 * 16


@pytest.mark.parametrize("batch", [1, 3])
def test_convolution_counts_its_padding(batch: int) -> None:
    model = one_node("Conv", {"x": ["n", 6, 10, 8]}, ["y"], {"w": [16, 3, 3, 3]}, group=2, pads=[1] * 4)
    pixels = batch * 10 * 8
    work = {label: (flops, traffic) for label, flops, traffic in counts(model, {"n": batch})}
    assert work["conv"] == (2 * pixels * 16 * (3 * 9), 4 * (pixels * 6 + 16 * 3 * 9 + pixels * 16))


def test_winograd_counts_as_a_direct_convolution() -> None:
    model = one_node("Conv", {"x": [1, 64, 28, 28]}, ["y"], {"w": [64, 64, 3, 3]}, pads=[1] * 4)
    work = {label: (flops, traffic) for label, flops, traffic in counts(model)}
    flops, traffic = work["winograd"]
    assert flops == 2 * 28 * 28 * 64 * 64 * 9
    weights = traffic - 2 * 4 * 28 * 28 * 64
    assert weights in [4 * (block + 2) ** 2 * 64 * 64 for block in (2, 4, 6)]


def test_depthwise_convolution() -> None:
    model = one_node("Conv", {"x": [2, 8, 9, 9]}, ["y"], {"w": [8, 1, 3, 3]}, group=8, strides=[2, 2])
    work = {label: (flops, traffic) for label, flops, traffic in counts(model)}
    assert work["depthwise"] == (2 * (2 * 4 * 4) * 8 * 9, 4 * (2 * 8 * 81 + 8 * 9 + 2 * 8 * 16))


def test_attention() -> None:
    batch, heads, rows, columns, depth = 2, 3, 5, 7, 16
    shapes = {"q": ["n", heads, rows, depth], "k": ["n", heads, columns, depth], "v": ["n", heads, columns, depth]}
    model = one_node("Attention", shapes, ["y"], {})
    model.opset_import[0].version = 23
    ((flops, traffic),) = [row[1:] for row in counts(model, {"n": batch}) if row[0] == "attention"]
    products = 4 * rows * columns * depth
    softmax = 5 * rows * columns + rows * depth
    assert flops == batch * heads * (products + softmax)
    assert traffic == 4 * batch * heads * depth * (2 * rows + 2 * columns)


@pytest.mark.parametrize(
    ("kind", "gates", "unit", "attributes"),
    [
        ("LSTM", 4, 9, {}),
        ("LSTM", 4, 9 + 2 * 4, {"clip": 3.0}),
        ("GRU", 3, 8, {}),
        ("GRU", 3, 9, {"linear_before_reset": 1}),
        ("RNN", 1, 1, {}),
    ],
)
def test_recurrence(kind: str, gates: int, unit: int, attributes: dict[str, object]) -> None:
    steps, batch, features, hidden = 6, 2, 5, 12
    weights = {"w": [2, gates * hidden, features], "r": [2, gates * hidden, hidden], "b": [2, 2 * gates * hidden]}
    model = one_node(
        kind, {"x": ["t", batch, features]}, ["y"], weights, hidden_size=hidden, direction="bidirectional", **attributes
    )
    rows = counts(model, {"t": steps})
    (flops,) = [flops for label, flops, _ in rows if label == kind.lower()]
    assert flops == steps * batch * 2 * hidden * (2 * gates * hidden + unit)


def test_lstm_with_peepholes_and_coupled_gates() -> None:
    steps, batch, hidden = 4, 1, 8
    weights = {
        "w": [1, 32, 3],
        "r": [1, 32, 8],
        "b": [1, 64],
        "lengths": [1],
        "h": [1, 1, 8],
        "c": [1, 1, 8],
        "p": [1, 24],
    }
    model = one_node("LSTM", {"x": [steps, batch, 3]}, ["y"], weights, hidden_size=hidden, input_forget=1)
    model.graph.node[0].input[4] = ""  # all sequences are of full length
    del model.graph.initializer[3]
    (flops,) = [flops for label, flops, _ in counts(model) if label == "lstm"]
    assert flops == steps * batch * hidden * (2 * 4 * hidden + 9 + 2 * 2)


def test_directions_with_other_activations_share_the_tensors() -> None:
    weights = {"w": [2, 8, 3], "r": [2, 8, 8]}
    activations = ["Tanh", "Relu"]
    model = one_node(
        "RNN", {"x": [4, 1, 3]}, ["y"], weights, hidden_size=8, direction="bidirectional", activations=activations
    )
    first, second = [row for row in counts(model) if row[0] == "rnn"]
    assert first == second
    assert first[1] == 4 * 8 * (2 * 8 + 1)


def test_map_counts_functions_of_floats() -> None:
    sketch = Sketch()
    x = sketch.fed(normal(6, 10), "n")
    sketch.output(sketch.map("exp", sketch.map("mul", sketch.map("add", x, 1.0), x)))
    assert sketch_counts(sketch, n=6) == [("map", 3 * 60, 2 * 4 * 60)]


def test_integers_and_moved_data_are_no_operations() -> None:
    sketch = Sketch()
    x = sketch.fed(np.arange(60).reshape(6, 10))
    sketch.output(sketch.map("add", x, x), sketch.transpose(sketch.fed(normal(4, 9)), 1, 0))
    rows = sketch_counts(sketch)
    assert [flops for _, flops, _ in rows] == [0, 0]
    assert sorted(traffic for *_, traffic in rows) == [2 * 4 * 36, 2 * 8 * 60]


def test_rows_count_what_is_theirs_once_a_row() -> None:
    """Softmax: a maximum; a difference, exp and a sum; a product with the reciprocal of the sum."""
    rows, columns = 4, 9
    model = one_node("Softmax", {"x": ["n", columns]}, ["y"], {})
    assert counts(model, {"n": rows}) == [("rows", 5 * rows * columns + rows, 2 * 4 * rows * columns)]


def test_gathered_rows_alone_are_traffic() -> None:
    table, width, chosen = 1000, 8, 3
    node = helper.make_node("Gather", ["table", "index"], ["y"])
    graph = helper.make_graph(
        [node],
        "gather",
        [helper.make_tensor_value_info("index", TensorProto.INT64, ["n"])],
        [onnx.ValueInfoProto(name="y")],
        [numpy_helper.from_array(normal(table, width), "table")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    ((_, flops, traffic),) = counts(model, {"n": chosen})
    assert (flops, traffic) == (0, chosen * (8 + 2 * 4 * width))


def test_tensor_that_is_read_twice_counts_once() -> None:
    sketch = Sketch()
    x = sketch.fed(normal(5, 5))
    sketch.output(sketch.map("add", x, sketch.transpose(x, 1, 0)))
    assert sum(traffic for *_, traffic in sketch_counts(sketch)) == 2 * 4 * 25


def test_library_kernels_have_bytes() -> None:
    model = one_node("Det", {"x": ["n", 4, 4]}, ["y"], {})
    assert ("determinant", 0, 8 * (3 * 16 + 3)) in counts(model, {"n": 3})  # it computes in float64
