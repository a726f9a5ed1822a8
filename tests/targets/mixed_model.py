"""A small model that takes every kind of kernel, for packages that run on other machines."""

from __future__ import annotations

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

Feed = dict[str, np.ndarray]

BATCH = 5
TOLERANCE = 2e-5
"""Of the results' scale: levels of CPU differ in last bits, those without fused multiply-adds in a few more."""


def mixed_model() -> bytes:
    """Convolutions, products, a recurrent layer, elementary functions, float16 and float64; symbols N and T."""
    rng = np.random.default_rng(11)

    def weight(name: str, *shape: int, dtype: type = np.float32) -> onnx.TensorProto:
        return numpy_helper.from_array((rng.standard_normal(shape) / np.sqrt(np.prod(shape[1:]))).astype(dtype), name)

    node = helper.make_node
    nodes = [
        # 24 and 40 channels fill no panel of 32 columns; 3 by 3 windows of 32 channels are Winograd's.
        node("Conv", ["image", "w1"], ["c1"], pads=[1, 1, 1, 1]),
        node("Relu", ["c1"], ["r1"]),
        node("Conv", ["r1", "w2", "b2"], ["c2"], pads=[1, 1, 1, 1]),
        node("Conv", ["c2", "w3"], ["c3"], group=24, pads=[1, 1, 1, 1], strides=[2, 2]),
        node("Conv", ["c3", "w4"], ["c4"]),
        node("HardSwish", ["c4"], ["h4"]),
        node("GlobalAveragePool", ["h4"], ["pool"]),
        node("Flatten", ["pool"], ["flat"]),
        node("Gemm", ["flat", "w5", "b5"], ["logits"]),
        node("Softmax", ["logits"], ["classes"]),
        node("Erf", ["logits"], ["erf"]),
        node("Pow", ["classes", "power"], ["powers"]),
        node("Sin", ["logits"], ["sin"]),
        node("Sum", ["erf", "powers", "sin"], ["functions"]),
        node("LSTM", ["sequence", "wl", "rl"], ["", "state", ""], hidden_size=20),
        # So many rows that tiles of 6 have the weights widened before, and those of 14 widen them in registers.
        node("Cast", ["sequence"], ["half"], to=TensorProto.FLOAT16),
        node("MatMul", ["half", "wh"], ["halves"]),
        node("Cast", ["logits"], ["double"], to=TensorProto.DOUBLE),
        node("MatMul", ["double", "wd"], ["product"]),
        node("Exp", ["product"], ["doubles"]),
        node("MatMul", ["row", "w6"], ["rows"]),
        node("TopK", ["logits", "three"], ["best", "places"]),
    ]
    initializers = [
        weight("w1", 32, 3, 3, 3), weight("w2", 24, 32, 3, 3), weight("b2", 24), weight("w3", 24, 1, 3, 3),
        weight("w4", 40, 24, 1, 1), weight("w5", 40, 20), weight("b5", 20), weight("wl", 1, 80, 12),
        weight("rl", 1, 80, 20), weight("wd", 20, 9, dtype=np.float64), weight("w6", 48, 100),
        weight("wh", 12, 40, dtype=np.float16),
        numpy_helper.from_array(np.array(1.7, np.float32), "power"),
        numpy_helper.from_array(np.array([3], np.int64), "three"),
    ]  # fmt: skip
    tensor = helper.make_tensor_value_info
    inputs = [
        tensor("image", TensorProto.FLOAT, ["N", 3, 14, 14]),
        tensor("sequence", TensorProto.FLOAT, ["T", "N", 12]),
        tensor("row", TensorProto.FLOAT, [1, 48]),
    ]
    outputs = [
        tensor("classes", TensorProto.FLOAT, ["N", 20]),
        tensor("functions", TensorProto.FLOAT, ["N", 20]),
        tensor("state", TensorProto.FLOAT, [1, "N", 20]),
        tensor("halves", TensorProto.FLOAT16, ["T", "N", 40]),
        tensor("doubles", TensorProto.DOUBLE, ["N", 9]),
        tensor("rows", TensorProto.FLOAT, [1, 100]),
        tensor("places", TensorProto.INT64, ["N", 3]),
    ]
    graph = helper.make_graph(nodes, "mixed", inputs, outputs, initializers)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10).SerializeToString()


def mixed_feed(batch: int) -> Feed:
    rng = np.random.default_rng(batch)
    shapes = {"image": (batch, 3, 14, 14), "sequence": (5, batch, 12), "row": (1, 48)}
    return {name: rng.standard_normal(shape).astype(np.float32) for name, shape in shapes.items()}


def assert_close(results: list[np.ndarray], expected: list[np.ndarray]) -> None:
    """Whether all outputs are as they should be, relative to each one's scale."""
    for result, wanted in zip(results, expected, strict=True):
        assert (result.dtype, result.shape) == (wanted.dtype, wanted.shape)
        if result.dtype.kind != "f":
            np.testing.assert_array_equal(result, wanted)
            continue
        tolerance = 2e-3 if result.dtype == np.float16 else TOLERANCE
        scale = float(np.abs(wanted).max())
        np.testing.assert_allclose(result.astype(float), wanted.astype(float), atol=tolerance * scale, rtol=tolerance)
