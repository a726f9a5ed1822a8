"""What the builder computes at once: constants, and small integers made of sizes."""

from __future__ import annotations

import numpy as np
import pytest
from tests.graphs import Sketch, normal

from onnxsmith_compiler.ir import dim as dims
from onnxsmith_compiler.ir import dtype as dtypes
from onnxsmith_compiler.ir.dtype import DType
from onnxsmith_compiler.ir.graph import Blocks, Relation, Value
from onnxsmith_compiler.ops.arrays import in_panels
from onnxsmith_compiler.ops.base import ShapeError
from onnxsmith_compiler.ops.builder import FOLD_LIMIT, HELD_LIMIT, GraphBuilder
from onnxsmith_compiler.ops.cast import Cast
from onnxsmith_compiler.ops.packed import pack_columns
from onnxsmith_compiler.ops.pointwise import Pointwise
from onnxsmith_compiler.ops.view import Concat, Reshape, Slice, Transpose

N = dims.symbol("n")


def _constant(builder: GraphBuilder, numbers: object, dtype: DType = dtypes.INT64) -> Value:
    return builder.constant(np.asarray(numbers, dtype.storage), dtype)


def _folded(function: str, dtype: DType, *operands: object) -> list[int]:
    builder = GraphBuilder()
    value = builder.emit(Pointwise(function), *(_constant(builder, operand, dtype) for operand in operands))
    assert value.data is not None and not builder.nodes
    assert value.data.dtype == dtype.storage
    return list(value.data.reshape(-1).tolist())


@pytest.mark.parametrize("dtype", [dtypes.INT8, dtypes.INT32, dtypes.INT64, dtypes.UINT8, dtypes.UINT32, dtypes.UINT64])
def test_integers_wrap_as_kernels_have_it(dtype: DType) -> None:
    info = np.iinfo(dtype.storage)
    assert _folded("add", dtype, [info.max], [1]) == [info.min]
    assert _folded("sub", dtype, [info.min], [1]) == [info.max]
    assert _folded("mul", dtype, [info.max], [2]) == [info.max - 1 if dtype.kind == "uint" else -2]


def test_integers_are_divided_exactly() -> None:
    assert _folded("div", dtypes.INT64, [9007199254740993, -7, 7, -7], [1, 2, -2, -2]) == [9007199254740993, -3, -3, 3]
    assert _folded("div", dtypes.INT64, [5], [0]) == [0]


def test_integer_powers() -> None:
    assert _folded("pow", dtypes.INT32, [2, -1, -1, 1, 0, 3], [-1, -3, -2, -9, -1, 4]) == [0, -1, 1, 1, 0, 81]
    assert _folded("pow", dtypes.UINT8, [3, 2], [6, 8]) == [217, 0]


@pytest.mark.parametrize(
    ("number", "to", "expected"),
    [(300, dtypes.UINT8, 44), (2**40 + 5, dtypes.INT32, 5), (-1, dtypes.UINT64, 2**64 - 1), (200, dtypes.INT8, -56)],
)
def test_casts_of_integers_wrap(number: int, to: DType, expected: int) -> None:
    builder = GraphBuilder()
    value = builder.emit(Cast(to), _constant(builder, number))
    assert value.data is not None and value.data.item() == expected


def test_sizes_are_followed_through_shape_arithmetic() -> None:
    builder = GraphBuilder()
    sizes = builder.dims_constant([N, 3, 4])
    taken = builder.emit(Slice((0,), (1,), (2,)), sizes)
    product = builder.emit(Pointwise("mul"), taken, _constant(builder, [2, 5]))
    joined = builder.emit(Concat(0), product, _constant(builder, [-1]))
    assert joined.known is not None
    assert joined.known.tolist() == [2 * N, 15, -1]


def test_arithmetic_of_unknown_sign_is_left_to_the_run() -> None:
    builder = GraphBuilder()
    late = builder.late_symbol(Value("source", _constant(builder, [1]).type))
    sizes = builder.dims_constant([late])
    assert builder.emit(Pointwise("div"), sizes, _constant(builder, [2])).known is None
    assert builder.emit(Pointwise("abs"), sizes).known is None


def test_same_late_symbol_for_the_same_element() -> None:
    builder = GraphBuilder()
    source = Value("source", _constant(builder, [1, 2]).type)
    assert builder.late_symbol(source, 1) == builder.late_symbol(source, 1)
    assert builder.late_symbol(source, 0) != builder.late_symbol(source, 1)
    assert len({str(builder.late_symbol(source, 1, signed)) for signed in (True, False)}) == 2


def test_large_results_of_small_constants_are_left_to_the_run() -> None:
    builder = GraphBuilder()
    side = 2 * int(FOLD_LIMIT**0.5)
    column, row = _constant(builder, np.zeros((side, 1))), _constant(builder, np.zeros((1, side)))
    assert builder.emit(Pointwise("add"), column, row).data is None
    whole = _constant(builder, np.zeros(2 * FOLD_LIMIT), dtypes.INT8)
    assert builder.emit(Reshape((2, FOLD_LIMIT)), whole).data is not None


def test_nothing_is_folded_where_that_is_off() -> None:
    builder = GraphBuilder(fold=False)
    numbers = _constant(builder, [1.5], dtypes.FLOAT32)
    assert builder.emit(Pointwise("exp"), numbers).data is None


def test_assumptions() -> None:
    builder = GraphBuilder()
    builder.assume(3, 3)
    builder.assume(1, 5, Relation.BROADCAST)
    builder.assume(0, N, Relation.AT_MOST)
    assert not builder.assumptions
    builder.assume(N, 3)
    builder.assume(N, 3)
    assert len(builder.assumptions) == 1
    for sizes, relation in (((2, 3), Relation.EQUAL), ((2, 3), Relation.BROADCAST), ((4, 3), Relation.AT_MOST)):
        with pytest.raises(ShapeError, match=f"{sizes[0]} and {sizes[1]}"):
            builder.assume(*sizes, relation)


def test_folded_constants_run() -> None:
    sketch = Sketch()
    scale = sketch.map("exp", sketch.constant(normal(4)))
    sketch.output(sketch.map("mul", sketch.fed(normal(3, 4), "n"), scale))
    sketch.check()


def test_large_constants_are_moved_when_they_are_read() -> None:
    builder = GraphBuilder()
    weights = normal(HELD_LIMIT // 64 + 1, 64)
    moved = builder.emit(Reshape((32, 2, len(weights))), builder.emit(Transpose((1, 0)), builder.constant(weights)))
    assert callable(moved.constant) and moved.is_constant and not builder.nodes
    assert moved.data is not None
    np.testing.assert_array_equal(moved.data, weights.T.reshape(moved.shape))


def test_large_weights_are_packed_when_they_are_read() -> None:
    builder = GraphBuilder()
    weights = normal(HELD_LIMIT // 64, 70)
    packed = pack_columns(builder, builder.constant(weights), 32)
    assert isinstance(packed.constant, Blocks) and not builder.nodes
    assert packed.data is not None and packed.data.shape == packed.shape == (3, HELD_LIMIT // 64, 32)
    np.testing.assert_array_equal(packed.data[2, :, :6], weights[:, 64:])


def test_packed_weights_come_in_blocks_that_fit_into_caches() -> None:
    builder = GraphBuilder()
    weights = normal(2, 3, 2000, 130)
    packed = pack_columns(builder, builder.constant(weights), 32, depth_axes=2)
    blocks = list(packed.blocks())
    assert len(blocks) > 2 and max(block.nbytes for block in blocks) <= 1 << 20
    together = np.concatenate([block.reshape(-1) for block in blocks]).reshape(packed.shape)
    np.testing.assert_array_equal(together, in_panels(weights.reshape(2, 6000, 130), 32))
    np.testing.assert_array_equal(together, packed.data)


def test_small_constants_are_moved_at_once() -> None:
    builder = GraphBuilder()
    assert isinstance(builder.emit(Transpose((1, 0)), builder.constant(normal(3, 4))).constant, np.ndarray)


@pytest.mark.parametrize("dtype", [d for d in dtypes.ALL if d.is_float and d.bits < 32], ids=str)
def test_constants_of_narrow_floats_are_widened_at_once(dtype: DType) -> None:
    builder = GraphBuilder()
    codes = np.arange(1 << dtype.bits, dtype=np.uint16 if dtype.bits == 16 else np.uint8).view(dtype.storage)
    value = builder.emit(Cast(dtypes.FLOAT32), builder.constant(codes, dtype))
    assert value.data is not None and not builder.nodes
    np.testing.assert_array_equal(value.data, codes.astype(np.float32))
