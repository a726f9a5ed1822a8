from __future__ import annotations

import numpy as np
import pytest
from tests.graphs import Sketch

from onnxsmith_compiler.ir.graph import Graph
from onnxsmith_compiler.ops.contraction import MatMul
from onnxsmith_compiler.passes.packing import pack_matmuls


@pytest.mark.parametrize("columns", [1024, 1000, 1001])
@pytest.mark.parametrize("depth", [64, 4096])
def test_constant_weights_are_packed_once_whatever_their_size(depth: int, columns: int) -> None:
    sketch = Sketch()
    x = sketch.input(["rows", depth])
    product = sketch.emit(MatMul(), x, sketch.constant(np.ones((depth, columns), np.float32)))
    graph = Graph(tuple(sketch.inputs), (("y", product),), tuple(sketch.builder.nodes))
    assert [node.op.name for node in pack_matmuls(graph, lambda dtype, n: 32).nodes] == ["packedmatmul"]
