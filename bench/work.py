"""How many multiply-adds a model takes, counted from the sizes of an actual run."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from pathlib import Path

import onnx
import onnxruntime

from bench.catalog import Feed

Shape = tuple[int, ...]
# By operator: the multiply-adds, given the shapes of the inputs and of the first output.
COUNTS: Mapping[str, Callable[[list[Shape], Shape], int]] = {
    "Conv": lambda inputs, output: math.prod(output) * math.prod(inputs[1][1:]),
    "ConvTranspose": lambda inputs, output: math.prod(inputs[0]) * math.prod(inputs[1][1:]),
    "MatMul": lambda inputs, output: math.prod(output) * inputs[0][-1],
    "Gemm": lambda inputs, output: math.prod(inputs[0]) * math.prod(output) // output[0],
    "LSTM": lambda inputs, output: math.prod(inputs[0][:2]) * (math.prod(inputs[1]) + math.prod(inputs[2])),
    "GRU": lambda inputs, output: math.prod(inputs[0][:2]) * (math.prod(inputs[1]) + math.prod(inputs[2])),
}


def multiply_adds(path: Path, feed: Feed) -> int:
    """Those of matrix products, convolutions and recurrent layers, done directly; 0 where there are none."""
    model = onnx.load(path)
    nodes = [node for node in model.graph.node if node.op_type in COUNTS]
    if not nodes:
        return 0
    shapes: dict[str, Shape] = {weight.name: tuple(weight.dims) for weight in model.graph.initializer}
    names = dict.fromkeys(name for node in nodes for name in (*node.input[:3], node.output[0]) if name)
    watched = [name for name in names if name not in shapes]
    del model.graph.output[:]
    model.graph.output.extend(onnx.ValueInfoProto(name=name) for name in watched)
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    shapes.update(zip(watched, (result.shape for result in session.run(watched, feed)), strict=True))
    return sum(
        COUNTS[node.op_type]([shapes.get(name, ()) for name in node.input], shapes[node.output[0]]) for node in nodes
    )
