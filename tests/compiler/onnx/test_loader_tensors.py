"""Every element type in every field that may hold it, against the onnx package; data that does not fit."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from model_builders import NODE, make_model, weight_model
from onnx import TensorProto, helper, numpy_helper

from onnxsmith_compiler import errors
from onnxsmith_compiler.ir import dtype as dt
from onnxsmith_compiler.onnx.limits import LoadLimits
from onnxsmith_compiler.onnx.loader import load_model
from onnxsmith_compiler.onnx.model import Array, SparseTensor

NUMERIC = [dtype for dtype in dt.ALL if dtype is not dt.STRING]
SHAPES = [(), (0,), (7,), (2, 3), (3, 1, 5), (40, 61)]


def loaded(tensor: onnx.TensorProto) -> Array:
    tensor.name = "w"
    model = make_model([], inputs=[], outputs=["w"], initializers=[tensor])
    from_proto = load_model(model).graph.initializers["w"]
    from_bytes = load_model(model.SerializeToString()).graph.initializers["w"]
    assert same_bits(from_proto, from_bytes)
    return from_bytes


def same_bits(left: Array, right: Array) -> bool:
    return left.dtype == right.dtype and left.shape == right.shape and left.tobytes() == right.tobytes()


def random_array(dtype: dt.DType, shape: tuple[int, ...]) -> Array:
    """Every bit pattern may occur."""
    rng = np.random.default_rng(len(shape))
    if dtype is dt.BOOL:
        return rng.integers(0, 2, shape).astype(np.bool_)
    if dtype.bits < 8:
        codes = rng.integers(0, 1 << dtype.bits, shape).astype(np.uint8)
        if dtype.kind == "int":
            codes = codes.astype(np.int8) - (1 << (dtype.bits - 1))
            return codes.astype(dtype.storage)
        return codes.view(dtype.storage)
    data = rng.integers(0, 256, (*shape, dtype.itemsize)).astype(np.uint8)
    return data.view(dtype.storage).reshape(shape)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("dtype", NUMERIC, ids=str)
def test_raw_data(dtype: dt.DType, shape: tuple[int, ...]) -> None:
    array = random_array(dtype, shape)
    tensor = numpy_helper.from_array(array)
    assert tensor.HasField("raw_data")
    assert same_bits(loaded(tensor), array)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("dtype", NUMERIC, ids=str)
def test_typed_fields(dtype: dt.DType, shape: tuple[int, ...]) -> None:
    array = random_array(dtype, shape)
    if dtype.kind in ("float", "complex"):
        array = np.random.default_rng(0).uniform(0.5, 4, shape).astype(dtype.storage)
    values = array.ravel().tolist() if dtype.bits >= 8 else array.ravel().astype(np.float32).tolist()
    tensor = helper.make_tensor("w", dtype.onnx_code, shape, values)
    assert not tensor.HasField("raw_data")
    assert same_bits(loaded(tensor), numpy_helper.to_array(tensor))
    assert same_bits(loaded(tensor), array)


def test_strings() -> None:
    strings = [b"a", "ü".encode(), b"\xff", b""]
    tensor = TensorProto(name="w", data_type=TensorProto.STRING, dims=[2, 2], string_data=strings)
    model = make_model([], inputs=[], outputs=["w"], initializers=[tensor])
    array = load_model(model).graph.initializers["w"]
    assert array.dtype == object
    assert array.tolist() == [["a", "ü"], [b"\xff", ""]]


def test_bytes_other_than_one_are_true() -> None:
    tensor = TensorProto(data_type=TensorProto.BOOL, dims=[4], raw_data=b"\0\1\2\xff")
    assert loaded(tensor).view(np.uint8).tolist() == [0, 1, 1, 1]


F = TensorProto.FLOAT


@pytest.mark.parametrize(
    ("tensor", "message"),
    [
        (
            TensorProto(data_type=F, dims=[2], raw_data=b"123"),
            "3 bytes of data; 2 elements of float32 take 8",
        ),
        (TensorProto(data_type=F, dims=[-2], raw_data=b""), "negative dimension"),
        (TensorProto(data_type=F, dims=[2]), "has 0 elements"),
        (TensorProto(data_type=F, dims=[2], float_data=[1]), "has 1 elements"),
        (TensorProto(data_type=F, dims=[2], int32_data=[1, 2]), "float32 data cannot be in int32_data"),
        (TensorProto(data_type=F, dims=[1], float_data=[1], raw_data=b"1234"), "more than one field"),
        (TensorProto(data_type=TensorProto.INT4, dims=[3], raw_data=b"1"), "1 bytes of data"),
        (TensorProto(data_type=TensorProto.INT4, dims=[3], int32_data=[1, 2, 3]), "3 bytes in int32_data"),
        (TensorProto(data_type=TensorProto.COMPLEX64, dims=[1], float_data=[1]), "half of a complex"),
        (TensorProto(data_type=TensorProto.STRING, dims=[1], raw_data=b"a"), "strings cannot be raw"),
        (TensorProto(data_type=F, dims=[0, 1 << 62, 1 << 62]), "too large"),
        (TensorProto(data_type=F, dims=[1200], raw_data=bytes(4799)), "4799 bytes of data"),
        (TensorProto(data_type=F, dims=[1200], float_data=[0] * 1201), "has 1201 elements"),
        (
            TensorProto(data_type=TensorProto.INT32, dims=[1200], float_data=[0] * 1200),
            "cannot be in float_data",
        ),
    ],
)
def test_data_that_disagrees_with_the_dimensions(tensor: onnx.TensorProto, message: str) -> None:
    tensor.name = "weights"
    for source in (weight_model(tensor), weight_model(tensor).SerializeToString()):
        with pytest.raises(errors.InvalidTensor, match=f"initializer 'weights'.*{message}"):
            load_model(source)


def test_sizes_are_checked_before_memory_is_asked_for() -> None:
    huge = TensorProto(name="w", data_type=F, dims=[1 << 40, 1 << 15], raw_data=b"1234")
    with pytest.raises(errors.LimitExceeded, match="initializer 'w'"):
        load_model(weight_model(huge))
    ranks = TensorProto(name="w", data_type=F, dims=[1] * 65, raw_data=b"1234")
    with pytest.raises(errors.LimitExceeded, match="65 dimensions"):
        load_model(weight_model(ranks))
    with pytest.raises(errors.LimitExceeded, match="over 15 bytes"):
        load_model(
            weight_model(numpy_helper.from_array(np.ones(4, np.float32), "w")),
            limits=LoadLimits(tensor_bytes=15),
        )


@pytest.mark.parametrize("large", [False, True])
def test_segments_are_refused(large: bool) -> None:
    tensor = TensorProto(name="w", data_type=F, dims=[1])
    tensor.segment.begin, tensor.segment.end = 0, 4
    filler = numpy_helper.from_array(np.ones(5000, np.float32), "filler")
    model = make_model([NODE("Add", ["x", "w"], ["y"])], initializers=[tensor, filler] if large else [tensor])
    with pytest.raises(errors.UnsupportedFeature, match="segments"):
        load_model(model.SerializeToString())


@pytest.mark.parametrize("field", ["raw_data", "float_data", "double_data"])
def test_large_payloads_everywhere(field: str) -> None:
    """Each place where a message may hold a tensor, in each field that is taken out of it before parsing."""
    code = TensorProto.DOUBLE if field == "double_data" else F
    storage = np.float64 if field == "double_data" else np.float32
    arrays = [np.random.default_rng(seed).standard_normal(1500).astype(storage) for seed in range(4)]

    def tensor(index: int) -> onnx.TensorProto:
        data = arrays[index].tobytes() if field == "raw_data" else arrays[index]
        return helper.make_tensor(f"w{index}", code, (1500,), data, raw=field == "raw_data")

    constant = NODE("Constant", [], ["inner"], value=tensor(1))
    branch = helper.make_graph(
        [constant], "branch", [], [helper.make_tensor_value_info("inner", code, (1500,))], [tensor(2)]
    )
    sparse = helper.make_sparse_tensor(tensor(3), numpy_helper.from_array(np.arange(1500)), [1500])
    model = make_model(
        [
            NODE("If", ["c"], ["chosen"], then_branch=branch, else_branch=branch),
            NODE("Constant", [], ["s"], sparse_value=sparse),
            NODE("Add", ["chosen", "w0"], ["y"]),
        ],
        inputs=[helper.make_tensor_value_info("c", TensorProto.BOOL, ())],
        initializers=[tensor(0)],
    )
    data = model.SerializeToString()
    graph = load_model(data).graph
    then_branch = graph.nodes[0].attributes["then_branch"]
    sparse_value = graph.nodes[1].attributes["sparse_value"]
    assert isinstance(sparse_value, SparseTensor)
    found = [
        graph.initializers["w0"],
        then_branch.nodes[0].attributes["value"],  # type: ignore[union-attr]
        then_branch.initializers["w2"],  # type: ignore[union-attr]
        sparse_value.values,
    ]
    for array, expected in zip(found, arrays, strict=True):
        assert same_bits(array, expected)
        assert not array.flags.owndata


def sparse_model(indices: object, dims: list[int], values: Array) -> onnx.ModelProto:
    model = make_model([], inputs=[], outputs=["s"])
    sparse = helper.make_sparse_tensor(
        numpy_helper.from_array(values, "s"), numpy_helper.from_array(np.array(indices, np.int64)), dims
    )
    model.graph.sparse_initializer.append(sparse)
    return model


def test_sparse_initializers_become_dense() -> None:
    values = np.array([1, 2, 3], np.float32)
    expected = np.array([[0, 1, 0], [2, 0, 3]], np.float32)
    for indices in ([1, 3, 5], [[0, 1], [1, 0], [1, 2]]):
        array = load_model(sparse_model(indices, [2, 3], values)).graph.initializers["s"]
        assert same_bits(array, expected)
    empty = load_model(sparse_model([], [0, 5], values[:0])).graph.initializers["s"]
    assert empty.shape == (0, 5)


@pytest.mark.parametrize(
    ("indices", "dims"),
    [
        ([0, 1, 6], [2, 3]),
        ([-1, 1, 2], [2, 3]),
        ([1, 1, 2], [2, 3]),
        ([2, 1, 0], [2, 3]),
        ([[0, 1], [1, 0], [1, 3]], [2, 3]),
        ([[0, 1], [1, 0], [2, 0]], [2, 3]),
        ([[0, 1, 0], [1, 0, 0], [1, 1, 0]], [2, 3]),
        ([0, 1], [2, 3]),
    ],
)
def test_sparse_indices_that_do_not_fit(indices: list[object], dims: list[int]) -> None:
    with pytest.raises(errors.InvalidTensor, match="sparse initializer 's'"):
        load_model(sparse_model(indices, dims, np.ones(3, np.float32)))


def test_a_sparse_tensor_may_not_ask_for_all_memory() -> None:
    with pytest.raises(errors.LimitExceeded, match="made dense"):
        load_model(sparse_model([0, 1, 2], [1 << 35], np.ones(3, np.float32)))
