"""Models of a few nodes, as bytes."""

from __future__ import annotations

from collections.abc import Sequence

import onnx
from onnx import TensorProto, helper

Shape = Sequence[int | str | None] | None


def tensor(name: str, shape: Shape, dtype: int = TensorProto.FLOAT) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, dtype, shape)


def model(
    nodes: Sequence[onnx.NodeProto],
    inputs: Sequence[onnx.ValueInfoProto],
    outputs: Sequence[onnx.ValueInfoProto],
    initializers: Sequence[onnx.TensorProto] = (),
    *,
    ir: int = 10,
    opset: int = 20,
    **metadata: object,
) -> bytes:
    graph = helper.make_graph(nodes, "graph", inputs, outputs, initializer=initializers, doc_string="of a test")
    imports = [helper.make_opsetid("", opset)]
    return helper.make_model(graph, opset_imports=imports, ir_version=ir, **metadata).SerializeToString()
