from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from onnx import helper, numpy_helper
from tests import bfloat16_pairs
from tests.graphs import Sketch, normal
from tests.interpreter import HOST, run_kernels

from onnxsmith_compiler.codegen.target import Target
from onnxsmith_compiler.errors import InvalidOption
from onnxsmith_compiler.ir.dtype import BFLOAT16, BY_NAME, FLOAT16, FLOAT32, DType
from onnxsmith_compiler.ir.graph import Graph, Value
from onnxsmith_compiler.ir.polynomial import Poly
from onnxsmith_compiler.onnx.importer import import_model
from onnxsmith_compiler.onnx.loader import load_model
from onnxsmith_compiler.ops.contraction import MatMul
from onnxsmith_compiler.options import CompileOptions
from onnxsmith_compiler.pipeline import run_passes

BF16 = CompileOptions(precision="bf16")
ZEN = bfloat16_pairs.fast_target(Target.generic_x86_64("v4"))


def operands(
    graph: Graph, options: CompileOptions, target: Target = HOST, lesser: Sequence[Target] = ()
) -> dict[str, tuple[Value, Value]]:
    """The two operands of every contraction, by the operator's name."""
    products = ("packedmatmul", "packedconv", "winogradconv", "depthwiseconv")
    found = run_passes(graph, options, target, lesser=lesser).nodes
    pairs = {node.op.name: tuple(node.operands()) for node in found if node.op.name in products}
    return {name: (x, weights) for name, (x, weights) in pairs.items()}


def weights(graph: Graph, options: CompileOptions) -> dict[str, Value]:
    """The second operand of every contraction, by the operator's name."""
    return {name: weights for name, (_, weights) in operands(graph, options).items()}


def product(dtype: str = "float32", *, exact: bool = False, constant: bool = True) -> Sketch:
    sketch = Sketch()
    storage = BY_NAME[dtype].storage
    x = sketch.input(["rows", 40], normal(3, 40).astype(storage))
    matrix = normal(40, 24, seed=1).astype(storage)
    b = sketch.constant(matrix, BY_NAME[dtype]) if constant else sketch.input([40, 24], matrix)
    sketch.output(sketch.emit(MatMul(exact), x, b))
    return sketch


@pytest.mark.parametrize("level", [0, 1, 99])
def test_constant_weights_are_rounded_to_nearest(level: int) -> None:
    sketch = product()
    (narrow,) = weights(sketch.graph(), CompileOptions(level, precision="bf16")).values()
    (wide,) = weights(sketch.graph(), CompileOptions(level)).values()
    assert (narrow.dtype, wide.dtype, narrow.shape) == (BFLOAT16, FLOAT32, wide.shape)
    assert narrow.data is not None and wide.data is not None
    rounded = narrow.data.astype(np.float32)
    assert 0 < np.abs(rounded - wide.data).max() <= 2.0**-8 * np.abs(wide.data).max()
    (found,) = run_kernels(sketch.graph(), sketch.feeds, CompileOptions(level, precision="bf16"))
    nearest = normal(40, 24, seed=1).astype(BFLOAT16.storage).astype(np.float32)
    np.testing.assert_allclose(found, normal(3, 40) @ nearest, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("sketch", "dtype"),
    [
        (product("float64"), "float64"),
        (product("float16"), "float16"),
        (product("bfloat16"), "bfloat16"),
        (product(exact=True), "float32"),
        (product(constant=False), "float32"),
    ],
    ids=["float64", "float16", "bfloat16", "exact", "fed"],
)
def test_other_products_stay_as_they_are(sketch: Sketch, dtype: str) -> None:
    (value,) = weights(sketch.graph(), BF16).values()
    assert value.dtype is BY_NAME[dtype]
    plain = run_kernels(sketch.graph(), sketch.feeds)
    np.testing.assert_array_equal(run_kernels(sketch.graph(), sketch.feeds, BF16), plain)


@pytest.mark.parametrize(("rows", "depth", "columns"), [(0, 40, 24), (3, 0, 24), (3, 40, 0)])
def test_sizes_of_zero(rows: int, depth: int, columns: int) -> None:
    sketch = Sketch()
    x = sketch.input(["rows", depth], normal(rows, depth))
    sketch.output(sketch.emit(MatMul(), x, sketch.constant(normal(depth, columns))))
    (found,) = run_kernels(sketch.graph(), sketch.feeds, BF16)
    np.testing.assert_array_equal(found, np.zeros((rows, columns), np.float32))


def convolution(channels: int, window: int, outputs: int, dtype: type = np.float32, **attributes: object) -> Graph:
    shape = (outputs, channels // int(attributes.get("group", 1)), window, window)  # type: ignore[call-overload]
    array = normal(*shape).astype(dtype)
    element = helper.np_dtype_to_tensor_dtype(array.dtype)
    graph = helper.make_graph(
        [helper.make_node("Conv", ["x", "w"], ["y"], pads=[window // 2] * 4, **attributes)],
        "g",
        [helper.make_tensor_value_info("x", element, [1, channels, 19, 17])],
        [helper.make_tensor_value_info("y", element, None)],
        [numpy_helper.from_array(array, "w")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 22)], ir_version=10)
    return import_model(load_model(model.SerializeToString())).graph


@pytest.mark.parametrize(
    ("graph", "expected"),
    [
        (convolution(32, 1, 40), {"packedmatmul": BFLOAT16}),
        (convolution(32, 5, 40), {"packedconv": BFLOAT16}),
        (convolution(32, 3, 40, group=2), {"packedconv": BFLOAT16}),
        (convolution(32, 3, 40), {"winogradconv": FLOAT32}),
        (convolution(32, 3, 32, group=32), {"depthwiseconv": FLOAT32}),
        (convolution(32, 5, 40, np.float16), {"packedconv": FLOAT16}),
    ],
    ids=["pointwise", "dense", "grouped", "winograd", "depthwise", "float16"],
)
def test_convolutions(graph: Graph, expected: dict[str, object]) -> None:
    assert {name: value.dtype for name, value in weights(graph, BF16).items()} == expected


NARROW = pytest.mark.parametrize("narrow", [BFLOAT16, FLOAT16], ids=str)


@NARROW
@pytest.mark.parametrize(
    ("channels", "window", "outputs", "name"), [(32, 1, 40, "packedmatmul"), (32, 5, 40, "packedconv")]
)
def test_weights_that_are_narrow_in_the_model_stay_so(
    channels: int, window: int, outputs: int, name: str, narrow: DType
) -> None:
    _check_narrow(convolution(channels, window, outputs, narrow.storage.type), name, narrow)


@NARROW
def test_matrices_that_are_narrow_in_the_model_stay_so(narrow: DType) -> None:
    _check_narrow(product(narrow.name).graph(), "packedmatmul", narrow)


@NARROW
def test_narrow_depthwise_weights_are_widened_once(narrow: DType) -> None:
    _check_narrow(convolution(32, 3, 32, narrow.storage.type, group=32), "depthwiseconv", FLOAT32)


def _check_narrow(graph: Graph, name: str, stored: DType) -> None:
    """The product's weights are constants of `stored`, and optimisation changes no bit of it."""
    (found,) = operands(graph, CompileOptions()).items()
    assert (found[0], found[1][1].dtype, found[1][1].is_constant) == (name, stored, True)
    (source,) = graph.inputs
    x = normal(*(3 if isinstance(size, Poly) else size for size in source.shape)).astype(source.dtype.storage)
    fused, plain = (run_kernels(graph, {source.name: x}, CompileOptions(level)) for level in (99, 0))
    np.testing.assert_array_equal(*fused, *plain)


@NARROW
def test_narrow_recurrent_weights_are_widened_once(narrow: DType) -> None:
    shapes = {"w": (1, 40, 12), "r": (1, 40, 10), "b": (1, 80)}
    element = narrow.onnx_code
    graph = helper.make_graph(
        [helper.make_node("LSTM", ["x", *shapes], ["y"], hidden_size=10)],
        "g",
        [helper.make_tensor_value_info("x", element, ["T", 2, 12])],
        [helper.make_tensor_value_info("y", element, None)],
        [numpy_helper.from_array(normal(*shape).astype(narrow.storage), name) for name, shape in shapes.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 22)], ir_version=10)
    nodes = run_passes(import_model(load_model(model.SerializeToString())).graph, CompileOptions(), HOST).nodes
    (recurrence,) = (node for node in nodes if node.op.name == "lstm")
    recurrent = recurrence.inputs[1]
    assert recurrent is not None and (recurrent.dtype, recurrent.is_constant) == (FLOAT32, True)
    assert not [node for node in nodes if node.op.name == "cast" and all(v.is_constant for v in node.operands())]


@NARROW
def test_winograd_s_transform_takes_narrow_weights(narrow: DType) -> None:
    graph = convolution(32, 3, 40, narrow.storage.type)
    ((name, (_, packed)),) = operands(graph, CompileOptions()).items()
    assert (name, packed.dtype, packed.is_constant) == ("winogradconv", FLOAT32, True)
    x = {"x": normal(1, 32, 19, 17).astype(narrow.storage)}
    found, direct = (run_kernels(graph, x, CompileOptions(winograd=use))[0] for use in (True, False))
    found, direct = found.astype(np.float32), direct.astype(np.float32)
    step = 2.0**-7 if narrow is BFLOAT16 else 2.0**-10
    np.testing.assert_allclose(found, direct, rtol=step, atol=1e-5 * np.abs(direct).max())


@pytest.mark.parametrize("level", [0, 99])
@pytest.mark.parametrize("depth", [1, 40, 41])
def test_pairs_have_both_operands_rounded(level: int, depth: int) -> None:
    sketch = Sketch()
    x, b = normal(3, depth), normal(depth, 24, seed=1)
    sketch.output(sketch.emit(MatMul(), sketch.input(["rows", depth], x), sketch.constant(b)))
    options = CompileOptions(level, precision="bf16")
    ((left, packed),) = operands(sketch.graph(), options, ZEN).values()
    assert (left.dtype, packed.dtype, left.shape[-1], packed.shape[-2]) == (
        BFLOAT16,
        BFLOAT16,
        *[depth + depth % 2] * 2,
    )
    (found,) = run_kernels(sketch.graph(), sketch.feeds, options, ZEN)
    nearest_x, nearest_b = (array.astype(BFLOAT16.storage).astype(np.float32) for array in (x, b))
    np.testing.assert_allclose(found, nearest_x @ nearest_b, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("graph", "expected"),
    [
        (convolution(32, 1, 40), {"packedmatmul": (BFLOAT16, BFLOAT16)}),
        (convolution(4, 5, 9), {"packedconv": (BFLOAT16, BFLOAT16)}),
        (convolution(3, 5, 9), {"packedconv": (FLOAT32, BFLOAT16)}),
        (convolution(32, 3, 40), {"winogradconv": (FLOAT32, FLOAT32)}),
        (convolution(32, 5, 40, np.float16), {"packedconv": (FLOAT32, FLOAT16)}),
    ],
    ids=["pointwise", "dense", "odd", "winograd", "float16"],
)
def test_convolutions_of_pairs(graph: Graph, expected: dict[str, object]) -> None:
    found = operands(graph, BF16, ZEN)
    assert {name: (x.dtype, weights.dtype) for name, (x, weights) in found.items()} == expected


@pytest.mark.parametrize("lesser", [Target.generic_x86_64("v3"), Target.generic_x86_64("v4")], ids=lambda t: t.cpu)
def test_levels_that_share_weights_have_pairs_only_where_all_do(lesser: Target) -> None:
    graph = product().graph()
    assert {left.dtype for left, _ in operands(graph, BF16, ZEN).values()} == {BFLOAT16}
    shared = operands(graph, BF16, ZEN, (lesser,))
    assert {(left.dtype, packed.dtype) for left, packed in shared.values()} == {(FLOAT32, BFLOAT16)}


def test_operands_that_are_bfloat16_in_the_model_are_multiplied_as_they_are() -> None:
    sketch = product("bfloat16")
    ((left, _),) = operands(sketch.graph(), BF16, ZEN).values()
    assert left in sketch.graph().inputs
    (found,) = run_kernels(sketch.graph(), sketch.feeds, BF16, ZEN)
    (plain,) = run_kernels(sketch.graph(), sketch.feeds)
    np.testing.assert_allclose(found.astype(np.float32), plain.astype(np.float32), rtol=2.0**-7)


def test_other_precisions_are_refused() -> None:
    with pytest.raises(InvalidOption, match="'precision' cannot be 'int8': it is one of fp32, bf16"):
        CompileOptions(precision="int8")
