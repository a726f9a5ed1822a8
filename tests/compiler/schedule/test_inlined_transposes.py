"""Which reductions compute a transpose as they go."""

from __future__ import annotations

from onnxsmith_compiler.ir import dtype as dtypes
from onnxsmith_compiler.ir.graph import Graph, TensorType, Value
from onnxsmith_compiler.ops.base import Op
from onnxsmith_compiler.ops.builder import GraphBuilder
from onnxsmith_compiler.ops.packed import Window
from onnxsmith_compiler.ops.pooling import PoolLast
from onnxsmith_compiler.ops.reduce import Reduce
from onnxsmith_compiler.ops.view import Transpose
from onnxsmith_compiler.schedule.fusion import schedule

WINDOW = Window((3, 3), (2, 2), (1, 1), (1, 1), (1, 1))


def kernels_of(reduction: Op) -> int:
    """The kernels of `reduction` of a channels-first tensor made channels-last."""
    builder = GraphBuilder()
    x = Value("x", TensorType(dtypes.FLOAT32, (1, 8, 9, 9)))
    y = builder.emit(reduction, builder.emit(Transpose((0, 2, 3, 1)), x))
    return len(schedule(Graph((x,), (("y", y),), tuple(builder.nodes))).groups)


def test_a_window_moves_over_a_stored_transpose() -> None:
    assert kernels_of(PoolLast("max", WINDOW)) == 2


def test_a_reduction_of_whole_axes_reads_through_a_transpose() -> None:
    assert kernels_of(Reduce("sum", (1, 2))) == 1
