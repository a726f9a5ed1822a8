"""The models themselves: valid, and alive. A dead branch would prove nothing about an engine."""

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import numpy_helper

from tests.models.attention import KEY_BIAS
from tests.models.catalog import MODELS, SmallModel

every_model = pytest.mark.parametrize("model", MODELS, ids=lambda model: model.name)


def run(proto: onnx.ModelProto, feed: dict[str, np.ndarray]) -> list[np.ndarray]:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(proto.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return session.run(None, feed)


@every_model
def test_passes_the_checker(model: SmallModel) -> None:
    onnx.checker.check_model(model.proto, full_check=True)


@every_model
def test_outputs_vary_and_depend_on_the_input(model: SmallModel) -> None:
    for feed, other in zip(model.feeds(seed=0), model.feeds(seed=1), strict=True):
        for first, second in zip(run(model.proto, feed), run(model.proto, other), strict=True):
            assert np.isfinite(first).all()
            assert np.std(first) > 0.05 * np.abs(first).max()
            assert np.abs(first - second).max() > 0.05 * np.abs(first).max()


@every_model
def test_declared_output_shapes_hold(model: SmallModel) -> None:
    for sizes, feed in zip(model.sizes, model.feeds(), strict=True):
        for value, result in zip(model.proto.graph.output, run(model.proto, feed), strict=True):
            declared = [sizes.get(dim.dim_param, dim.dim_value) for dim in value.type.tensor_type.shape.dim]
            assert list(result.shape) == declared


@every_model
def test_every_weight_matters(model: SmallModel) -> None:
    proto, feed = model.proto, model.feeds()[0]
    expected = run(proto, feed)
    rng = np.random.default_rng(0)
    for index, initializer in enumerate(proto.graph.initializer):
        array = numpy_helper.to_array(initializer)
        if array.dtype != np.float32 or initializer.name.startswith(KEY_BIAS):
            continue
        changed = onnx.ModelProto.FromString(proto.SerializeToString())
        moved = rng.permutation(array.ravel()).reshape(array.shape) + np.float32(0.1)
        changed.graph.initializer[index].CopyFrom(numpy_helper.from_array(moved, initializer.name))
        change = max(
            np.abs(one - other).max() / np.abs(other).max()
            for one, other in zip(run(changed, feed), expected, strict=True)
        )
        assert change > 1e-3, f"{initializer.name} {array.shape} changes the outputs by {change:.1g}"
