"""A network definition that reads like one: `x.conv(64, 7, stride=2).batch_norm().relu()` writes ONNX nodes.

Weights are drawn as they are asked for, from the net's own seeded generator, so that every one of them
matters: matrices and convolutions keep the variance of what goes through them, scales are U(0.5, 1.5),
biases N(0, 0.3).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from numpy.typing import DTypeLike, NDArray
from onnx import TensorProto, helper, numpy_helper

Shape = tuple[int | str, ...]


class Net:
    """An ONNX graph in the making. `opset` is of the ai.onnx domain."""

    def __init__(self, name: str, seed: int = 0, opset: int = 17) -> None:
        self.name = name
        self.opset = opset
        self.rng = np.random.default_rng(seed)
        self.nodes: list[onnx.NodeProto] = []
        self.initializers: list[TensorProto] = []
        self.inputs: list[onnx.ValueInfoProto] = []
        self.outputs: list[onnx.ValueInfoProto] = []

    def input(self, name: str, shape: Shape, dtype: DTypeLike = np.float32) -> Value:
        """A model input; a string in `shape` is a symbolic dimension."""
        element = helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
        self.inputs.append(helper.make_tensor_value_info(name, element, shape))
        return Value(self, name, shape)

    def output(self, name: str, value: Value, dtype: DTypeLike = np.float32) -> None:
        """Makes `value` the model output `name`."""
        element = helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
        self.nodes.append(helper.make_node("Identity", [value.name], [name], f"output_{name}"))
        self.outputs.append(helper.make_tensor_value_info(name, element, value.shape))

    def model(self) -> onnx.ModelProto:
        graph = helper.make_graph(self.nodes, self.name, self.inputs, self.outputs, self.initializers)
        opsets = [helper.make_opsetid("", self.opset)]
        return helper.make_model(graph, opset_imports=opsets, ir_version=8, producer_name="onnxsmith.tests")

    def weight(self, array: NDArray[Any], label: str = "weight") -> Value:
        """An initializer, whose name begins with `label`."""
        name = f"{label}_{len(self.initializers)}"
        self.initializers.append(numpy_helper.from_array(array, name))
        return Value(self, name, array.shape)

    def constant(self, value: object, dtype: DTypeLike) -> Value:
        """A Constant node, as exporters write for sizes, axes and scalars."""
        array = np.asarray(value, dtype)
        attribute = numpy_helper.from_array(array, "value")
        return self.node("Constant", [], array.shape, value=attribute)

    def ints(self, *values: int) -> Value:
        """A 1-D int64 Constant."""
        return self.constant(values, np.int64)

    def scalar(self, value: float) -> Value:
        """A 0-D float32 Constant."""
        return self.constant(value, np.float32)

    def matrix(self, *shape: int, fan_in: int, gain: float = 1.0) -> Value:
        """Weights from N(0, gain / sqrt(fan_in)): unit variance in, variance gain ** 2 out."""
        drawn = self.rng.standard_normal(shape) * gain / math.sqrt(fan_in)
        return self.weight(drawn.astype(np.float32))

    def scale(self, size: int, gain: float = 1.0) -> Value:
        return self.weight((self.rng.uniform(0.5, 1.5, size) * gain).astype(np.float32))

    def bias(self, *shape: int, label: str = "bias") -> Value:
        return self.weight(self.rng.normal(0, 0.3, shape).astype(np.float32), label)

    def node(self, op: str, inputs: Sequence[Value | None], shape: Shape, **attributes: Any) -> Value:
        """Appends a node with one output of `shape`; None skips an optional input."""
        return self.split_node(op, inputs, [shape], **attributes)[0]

    def split_node(
        self, op: str, inputs: Sequence[Value | None], shapes: Sequence[Shape], **attributes: Any
    ) -> list[Value]:
        """Appends a node with one output for each of `shapes`."""
        number = len(self.nodes)
        names = [f"{op.lower()}_{number}_{index}" for index in range(len(shapes))]
        operands = ["" if value is None else value.name for value in inputs]
        self.nodes.append(helper.make_node(op, operands, names, f"{op}_{number}", **attributes))
        return [Value(self, name, shape) for name, shape in zip(names, shapes, strict=True)]


@dataclass(frozen=True, eq=False)
class Value:
    """A tensor of `net`: every method appends nodes that compute a new one from it."""

    net: Net
    name: str
    shape: Shape

    def unary(self, op: str, **attributes: Any) -> Value:
        """A node that keeps the shape."""
        return self.net.node(op, [self], self.shape, **attributes)

    def binary(self, op: str, other: Value | float) -> Value:
        """A node with numpy's broadcasting; a Python number becomes a float32 scalar."""
        operand = other if isinstance(other, Value) else self.net.scalar(other)
        return self.net.node(op, [self, operand], broadcast(self.shape, operand.shape))

    def __add__(self, other: Value | float) -> Value:
        return self.binary("Add", other)

    def __sub__(self, other: Value | float) -> Value:
        return self.binary("Sub", other)

    def __mul__(self, other: Value | float) -> Value:
        return self.binary("Mul", other)

    def __truediv__(self, other: Value | float) -> Value:
        return self.binary("Div", other)

    def __matmul__(self, other: Value) -> Value:
        batch = broadcast(self.shape[:-2], other.shape[:-2])
        return self.net.node("MatMul", [self, other], (*batch, self.shape[-2], other.shape[-1]))

    def size(self, axis: int) -> int:
        """The extent of `axis`, which must be known."""
        extent = self.shape[axis]
        if not isinstance(extent, int):
            raise ValueError(f"axis {axis} of {self.name} {self.shape} has no fixed extent")
        return extent

    # Activations

    def relu(self) -> Value:
        return self.unary("Relu")

    def relu6(self) -> Value:
        return self.net.node("Clip", [self, self.net.scalar(0.0), self.net.scalar(6.0)], self.shape)

    def sigmoid(self) -> Value:
        return self.unary("Sigmoid")

    def silu(self) -> Value:
        return self * self.sigmoid()

    def hard_swish(self) -> Value:
        return self.unary("HardSwish")

    def hard_sigmoid(self) -> Value:
        return self.unary("HardSigmoid", alpha=1 / 6)

    def tanh(self) -> Value:
        return self.unary("Tanh")

    def gelu(self) -> Value:
        """The exact GELU, in the five nodes that torch exports."""
        return self * ((self / math.sqrt(2)).unary("Erf") + 1.0) * 0.5

    def gelu_tanh(self) -> Value:
        """GPT-2's GELU, by tanh."""
        cubed = self.binary("Pow", 3.0)
        inner = (self + cubed * 0.044715) * math.sqrt(2 / math.pi)
        return self * 0.5 * (inner.tanh() + 1.0)

    def softmax(self, axis: int = -1) -> Value:
        return self.unary("Softmax", axis=axis)

    # Layers with weights

    def conv(
        self,
        channels: int,
        kernel: int,
        stride: int = 1,
        padding: int | None = None,
        groups: int = 1,
        bias: bool = False,
    ) -> Value:
        """A 2-D convolution of [n, c, h, w], padded by default so that stride 1 keeps the size."""
        pad = kernel // 2 if padding is None else padding
        taps = self.size(1) // groups * kernel * kernel
        weights = self.net.matrix(channels, self.size(1) // groups, kernel, kernel, fan_in=taps, gain=math.sqrt(2))
        inputs = [self, weights, self.net.bias(channels)] if bias else [self, weights]
        shape = (self.shape[0], channels, *self._window(kernel, stride, pad))
        return self.net.node(
            "Conv", inputs, shape,
            kernel_shape=[kernel] * 2, strides=[stride] * 2, pads=[pad] * 4, group=groups, dilations=[1, 1],
        )  # fmt: skip

    def depthwise(self, kernel: int, stride: int = 1, bias: bool = False) -> Value:
        return self.conv(self.size(1), kernel, stride, groups=self.size(1), bias=bias)

    def batch_norm(self, gain: float = 1.0) -> Value:
        """Over axis 1. A `gain` below 1 at the end of residual branches keeps deep sums small."""
        channels = self.size(1)
        statistics = [self.net.bias(channels), self.net.scale(channels)]
        inputs = [self, self.net.scale(channels, gain), self.net.bias(channels), *statistics]
        return self.net.node("BatchNormalization", inputs, self.shape, epsilon=1e-5)

    def layer_norm(self) -> Value:
        """Over the last axis."""
        width = self.size(-1)
        inputs = [self, self.net.scale(width), self.net.bias(width)]
        return self.net.node("LayerNormalization", inputs, self.shape, axis=-1, epsilon=1e-5)

    def linear(self, features: int, gain: float = 1.0, bias_label: str = "bias") -> Value:
        """MatMul and Add over the last axis, as exporters write a linear layer on three or more axes."""
        width = self.size(-1)
        product = self @ self.net.matrix(width, features, fan_in=width, gain=gain)
        return product + self.net.bias(features, label=bias_label)

    def gemm(self, features: int) -> Value:
        """Gemm of [rows, width] with transposed weights, as exporters write a linear layer on two axes."""
        width = self.size(-1)
        weights = self.net.matrix(features, width, fan_in=width)
        inputs = [self, weights, self.net.bias(features)]
        return self.net.node("Gemm", inputs, (self.shape[0], features), transB=1)

    # Pooling and reduction

    def max_pool(self, kernel: int, stride: int, padding: int = 0) -> Value:
        return self._pool("MaxPool", kernel, stride, padding)

    def average_pool(self, kernel: int, stride: int, padding: int = 0) -> Value:
        return self._pool("AveragePool", kernel, stride, padding)

    def global_average(self) -> Value:
        """[n, c, h, w] to [n, c, 1, 1]."""
        return self.net.node("GlobalAveragePool", [self], (*self.shape[:2], 1, 1))

    def mean(self, axes: Sequence[int], keepdims: bool) -> Value:
        """ReduceMean, with axes as an attribute up to opset 17 and as an input after."""
        reduced = {axis % len(self.shape) for axis in axes}
        shape = tuple(
            1 if axis in reduced else extent
            for axis, extent in enumerate(self.shape)
            if keepdims or axis not in reduced
        )
        if self.net.opset >= 18:
            return self.net.node("ReduceMean", [self, self.net.ints(*axes)], shape, keepdims=int(keepdims))
        return self.net.node("ReduceMean", [self], shape, axes=list(axes), keepdims=int(keepdims))

    # Shapes

    def flatten(self) -> Value:
        """[n, ...] to [n, the product of the rest]."""
        width = math.prod(self.size(axis) for axis in range(1, len(self.shape)))
        return self.net.node("Flatten", [self], (self.shape[0], width), axis=1)

    def reshape(self, *shape: int) -> Value:
        """To a constant shape, in which one extent may be -1."""
        known = math.prod(extent for extent in shape if extent != -1)
        total = math.prod(self.size(axis) for axis in range(len(self.shape)))
        result = tuple(total // known if extent == -1 else extent for extent in shape)
        return self.net.node("Reshape", [self, self.net.ints(*shape)], result)

    def reshape_to(self, target: Value, shape: Shape) -> Value:
        """To the shape in the 1-D int64 tensor `target`; `shape` says what is known of it beforehand."""
        return self.net.node("Reshape", [self, target], shape)

    def transpose(self, *order: int) -> Value:
        return self.net.node("Transpose", [self], tuple(self.shape[axis] for axis in order), perm=list(order))

    def unsqueeze(self, *axes: int) -> Value:
        shape = list(self.shape)
        for axis in sorted(axes):
            shape.insert(axis, 1)
        return self.net.node("Unsqueeze", [self, self.net.ints(*axes)], tuple(shape))

    def squeeze(self, axis: int) -> Value:
        shape = tuple(extent for index, extent in enumerate(self.shape) if index != axis)
        return self.net.node("Squeeze", [self, self.net.ints(axis)], shape)

    def slice(self, axis: int, start: int, stop: int) -> Value:
        """Elements [start, stop) of `axis`, with Python's meaning of negative and large bounds."""
        shape = list(self.shape)
        shape[axis] = len(range(*slice(start, stop).indices(self.size(axis))))
        bounds = [self.net.ints(start), self.net.ints(stop), self.net.ints(axis)]
        return self.net.node("Slice", [self, *bounds], tuple(shape))

    def roll(self, axis: int, shift: int) -> Value:
        """numpy.roll along one axis, as two slices and a Concat."""
        return concat([self.slice(axis, -shift, 2**31), self.slice(axis, 0, -shift)], axis)

    def split(self, parts: int, axis: int) -> list[Value]:
        shape = list(self.shape)
        shape[axis] = self.size(axis) // parts
        sizes = self.net.ints(*[self.size(axis) // parts] * parts)
        return self.net.split_node("Split", [self, sizes], [tuple(shape)] * parts, axis=axis)

    def gather(self, indices: Value, axis: int = 0) -> Value:
        shape = (*self.shape[:axis], *indices.shape, *self.shape[axis + 1 :])
        return self.net.node("Gather", [self, indices], shape, axis=axis)

    def extent(self, axis: int) -> Value:
        """The run-time extent of `axis` as an int64 of shape [1]: Shape, Gather, Unsqueeze."""
        shape = self.net.node("Shape", [self], (len(self.shape),))
        return shape.gather(self.net.constant(axis, np.int64)).unsqueeze(0)

    def cast(self, dtype: DTypeLike) -> Value:
        return self.unary("Cast", to=helper.np_dtype_to_tensor_dtype(np.dtype(dtype)))

    def _pool(self, op: str, kernel: int, stride: int, padding: int) -> Value:
        shape = (*self.shape[:2], *self._window(kernel, stride, padding))
        attributes = {"kernel_shape": [kernel] * 2, "strides": [stride] * 2, "pads": [padding] * 4}
        return self.net.node(op, [self], shape, **attributes)

    def _window(self, kernel: int, stride: int, padding: int) -> tuple[int, int]:
        height, width = ((self.size(axis) + 2 * padding - kernel) // stride + 1 for axis in (2, 3))
        return height, width


def concat(values: Sequence[Value], axis: int) -> Value:
    """The values joined along `axis`."""
    shape = list(values[0].shape)
    shape[axis] = sum(value.size(axis) for value in values)
    return values[0].net.node("Concat", values, tuple(shape), axis=axis)


def broadcast(first: Shape, second: Shape) -> Shape:
    """numpy's rule, where extents that are not 1 agree and a symbol stands for itself."""
    rank = max(len(first), len(second))
    padded = [(1,) * (rank - len(shape)) + tuple(shape) for shape in (first, second)]
    return tuple(right if left == 1 else left for left, right in zip(*padded, strict=True))
