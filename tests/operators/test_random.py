"""Random operators: types, shapes, distributions, and when two runs give the same numbers."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

import onnxsmith
from tests.support import Array

_MANY = 200_000


def _model(op_type: str, inputs: dict[str, Array] | None = None, copies: int = 1, **attributes: Any) -> onnx.ModelProto:
    """`copies` nodes alike, each with an output."""
    given = inputs or {}
    names = [f"y{number}" for number in range(copies)]
    infos = [
        helper.make_tensor_value_info(
            name, helper.np_dtype_to_tensor_dtype(x.dtype), [f"{name}{a}" for a in range(x.ndim)]
        )
        for name, x in given.items()
    ]
    nodes = [helper.make_node(op_type, list(given), [name]) for name in names]
    for node in nodes:
        for name, value in attributes.items():
            kind = onnx.AttributeProto.INTS if isinstance(value, list) else None
            node.attribute.append(helper.make_attribute(name, value, attr_type=kind))
    graph = helper.make_graph(nodes, "random", infos, [onnx.ValueInfoProto(name=name) for name in names])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 22)], ir_version=10)


def _session(model: onnx.ModelProto) -> onnxsmith.InferenceSession:
    options = onnxsmith.SessionOptions()
    options.intra_op_num_threads = 2
    return onnxsmith.InferenceSession(model.SerializeToString(), options)


def _draw(op_type: str, inputs: dict[str, Array] | None = None, **attributes: Any) -> Array:
    (result,) = _session(_model(op_type, inputs, **attributes)).run(None, inputs or {})
    return np.asarray(result)


@pytest.mark.parametrize("dtype", ["FLOAT", "DOUBLE", "FLOAT16", "BFLOAT16"])
def test_uniform_and_normal(dtype: str) -> None:
    code = getattr(TensorProto, dtype)
    uniform = _draw("RandomUniform", shape=[2, _MANY // 2], low=-2.0, high=6.0, seed=1.0, dtype=code)
    normal = _draw("RandomNormal", shape=[_MANY], mean=3.0, scale=0.5, seed=1.0, dtype=code)
    assert uniform.shape == (2, _MANY // 2)
    assert uniform.dtype == normal.dtype == helper.tensor_dtype_to_np_dtype(code)
    u, n = uniform.astype(np.float64).ravel(), normal.astype(np.float64)
    assert u.min() >= -2
    assert u.max() <= 6
    counts = np.histogram(u, 16, (-2, 6))[0]
    assert np.all(np.abs(counts / _MANY - 1 / 16) < 0.006)
    assert abs(np.corrcoef(u[:-1], u[1:])[0, 1]) < 0.01
    assert abs(n.mean() - 3) < 0.01
    assert abs(n.std() - 0.5) < 0.01
    inside = np.mean(np.abs(n - 3) < 0.5)
    assert abs(inside - 0.6827) < 0.01


def test_likes_take_shape_and_type() -> None:
    x = np.zeros((3, 5), np.float64)
    for op_type in ("RandomUniformLike", "RandomNormalLike"):
        own, other = _draw(op_type, {"x": x}), _draw(op_type, {"x": x}, dtype=TensorProto.FLOAT)
        assert (own.shape, own.dtype) == ((3, 5), np.float64)
        assert (other.shape, other.dtype) == ((3, 5), np.float32)
    assert _draw("RandomUniformLike", {"x": np.zeros((0, 4), np.float32)}).shape == (0, 4)
    assert _draw("RandomUniform", shape=[]).shape == ()
    integers = np.zeros(4, np.int32)
    assert _draw("RandomNormalLike", {"x": integers}, dtype=TensorProto.FLOAT).dtype == np.float32
    with pytest.raises(Exception, match="float"):
        _draw("RandomNormalLike", {"x": integers})


def test_a_seed_fixes_the_numbers_and_none_changes_them() -> None:
    seeded = _session(_model("RandomUniform", shape=[64], seed=3.0, copies=2))
    first, again = seeded.run(None, {})
    np.testing.assert_array_equal(first, again)
    np.testing.assert_array_equal(seeded.run(None, {})[0], first)
    assert not np.array_equal(_draw("RandomUniform", shape=[64], seed=4.0), first)
    free = _session(_model("RandomUniform", shape=[64], copies=2))
    draws = [*free.run(None, {}), *free.run(None, {})]
    assert len({draw.tobytes() for draw in draws}) == 4


def test_set_seed_repeats_operators_without_a_seed() -> None:
    session = _session(_model("RandomNormal", shape=[16], copies=2))

    def runs() -> list[bytes]:
        onnxsmith.set_seed(11)
        return [array.tobytes() for _ in range(2) for array in session.run(None, {})]

    first = runs()
    assert runs() == first
    assert len(set(first)) == 4


@pytest.mark.parametrize("dtype", ["FLOAT", "BOOL", "INT64", "UINT8", "DOUBLE"])
def test_bernoulli(dtype: str) -> None:
    code = getattr(TensorProto, dtype)
    p = np.repeat(np.array([[0.0], [0.25], [1.0]], np.float32), _MANY // 4, axis=1)
    drawn = _draw("Bernoulli", {"x": p}, dtype=code, seed=2.0)
    assert (drawn.shape, drawn.dtype) == (p.shape, helper.tensor_dtype_to_np_dtype(code))
    assert set(np.unique(drawn.astype(np.float64))) == {0.0, 1.0}
    np.testing.assert_allclose(drawn.astype(np.float64).mean(axis=1), [0, 0.25, 1], atol=0.01)


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.float16])
def test_multinomial(dtype: Any) -> None:
    p = np.array([[0.1, 0.2, 0.7], [0.5, 0.0, 0.5]])
    with np.errstate(divide="ignore"):
        logits = (np.log(p) + 1.5).astype(dtype)
    drawn = _draw("Multinomial", {"x": logits}, sample_size=20_000, seed=2.0, dtype=TensorProto.INT64)
    assert (drawn.shape, drawn.dtype) == ((2, 20_000), np.int64)
    for row, wanted in zip(drawn, p, strict=True):
        np.testing.assert_allclose(np.bincount(row, minlength=3) / row.size, wanted, atol=0.015)
    assert _draw("Multinomial", {"x": logits}).dtype == np.int32
