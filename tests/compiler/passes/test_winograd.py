from __future__ import annotations

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

import onnxsmith
from onnxsmith_compiler.codegen.target import Target
from onnxsmith_compiler.onnx.loader import load_model
from onnxsmith_compiler.options import CompileOptions
from onnxsmith_compiler.pipeline import lower_model

RNG = np.random.default_rng(3)


def model(height: int | str = 19, channels: int = 32, constant: bool = True, **attributes: object) -> onnx.ModelProto:
    """A convolution of 3 by 3 with Relu; `constant`: its weights are no input."""
    pads = attributes.pop("pads", [1, 1, 1, 1])
    group = int(attributes.get("group", 1))  # type: ignore[call-overload]
    weights = RNG.standard_normal((40, channels // group, 3, 3)).astype(np.float32) / 8
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["c"], pads=pads, **attributes),
        helper.make_node("Relu", ["c"], ["y"]),
    ]
    inputs = [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", channels, height, 17])]
    if not constant:
        inputs.append(helper.make_tensor_value_info("w", TensorProto.FLOAT, weights.shape))
    outputs = [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)]
    initializers = [numpy_helper.from_array(weights, "w")] if constant else []
    graph = helper.make_graph(nodes, "g", inputs, outputs, initializers)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)


def labels(proto: onnx.ModelProto, **options: object) -> list[str]:
    lowered = lower_model(load_model(proto), CompileOptions(**options), Target.host())  # type: ignore[arg-type]
    return [step.label for step in lowered.steps]


def test_convolutions_of_3_by_3_are_winograd_s() -> None:
    assert "winograd" in labels(model())
    assert "winograd" in labels(model(height="H"))


@pytest.mark.parametrize(
    "direct",
    [
        model(strides=[2, 2]),
        model(dilations=[2, 2]),
        model(group=2),
        model(channels=33),
        model(constant=False),
        model(height=3, pads=[0, 0, 0, 0]),
    ],
)
def test_others_are_direct(direct: onnx.ModelProto) -> None:
    found = labels(direct)
    assert "winograd" not in found and "conv" in found


def test_an_option_turns_it_off() -> None:
    assert "winograd" not in labels(model(), winograd=False)
    assert "winograd" not in labels(model(), optimization_level=0)


@pytest.mark.parametrize("height", [1, 2, 19, 33])
@pytest.mark.parametrize("batch", [0, 1, 3])
def test_symbolic_sizes_agree_with_onnxruntime(batch: int, height: int) -> None:
    proto = model(height="H").SerializeToString()
    x = RNG.standard_normal((batch, 32, height, 17)).astype(np.float32)
    (expected,) = onnxruntime.InferenceSession(proto).run(None, {"x": x})
    (actual,) = onnxsmith.InferenceSession(proto).run(None, {"x": x})
    np.testing.assert_allclose(actual, expected, rtol=0, atol=1e-5 * np.abs(expected).max(initial=1.0))
