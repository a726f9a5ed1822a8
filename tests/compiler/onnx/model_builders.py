"""Small ModelProtos for the loader's tests."""

from __future__ import annotations

from collections.abc import Sequence

import onnx
from onnx import TensorProto, helper

NODE = helper.make_node


def float_info(name: str, shape: Sequence[int | str | None] | None = (2,)) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)


def make_model(
    nodes: Sequence[onnx.NodeProto],
    *,
    inputs: Sequence[onnx.ValueInfoProto | str] = ("x",),
    outputs: Sequence[onnx.ValueInfoProto | str] = ("y",),
    initializers: Sequence[onnx.TensorProto] = (),
    functions: Sequence[onnx.FunctionProto] = (),
    opset: int = 17,
    ir_version: int = 8,
    imports: dict[str, int] | None = None,
) -> onnx.ModelProto:
    """A model; inputs and outputs given by name are float32 of shape (2,)."""
    graph = helper.make_graph(
        list(nodes),
        "graph",
        [float_info(item) if isinstance(item, str) else item for item in inputs],
        [float_info(item) if isinstance(item, str) else item for item in outputs],
        list(initializers),
    )
    domains = {"": opset, **(imports or {})}
    return helper.make_model(
        graph,
        functions=list(functions),
        opset_imports=[helper.make_opsetid(domain, version) for domain, version in domains.items()],
        ir_version=ir_version,
    )


def relu_model(**options: object) -> onnx.ModelProto:
    return make_model([NODE("Relu", ["x"], ["y"])], **options)  # type: ignore[arg-type]


def weight_model(weight: onnx.TensorProto, **options: object) -> onnx.ModelProto:
    """y = x + weight, of whatever shape."""
    return make_model(
        [NODE("Add", ["x", weight.name], ["y"])],
        initializers=[weight],
        **options,  # type: ignore[arg-type]
    )
