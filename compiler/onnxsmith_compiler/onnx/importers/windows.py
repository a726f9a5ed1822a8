"""Convolutions, and how ONNX describes a moving window: kernel_shape, strides, dilations, pads and auto_pad."""

from __future__ import annotations

from collections.abc import Sequence

from onnxsmith_compiler.ir import dim as dims
from onnxsmith_compiler.ir.dim import Dim
from onnxsmith_compiler.ir.graph import Value
from onnxsmith_compiler.onnx.node_import import NodeImport
from onnxsmith_compiler.ops.contraction import Conv, ConvTranspose
from onnxsmith_compiler.ops.packed import Window


def window_of(node: NodeImport, spatial: Sequence[Dim], size: Sequence[int]) -> Window:
    """The window that the node's attributes describe, over axes of these sizes."""
    rank = len(size)
    strides = node.ints("strides") or [1] * rank
    dilations = node.ints("dilations") or [1] * rank
    auto = node.string("auto_pad", "NOTSET")
    pads: list[Dim] = list(node.ints("pads") or [0] * (2 * rank))
    if any(len(values) != rank for values in (strides, dilations)) or len(pads) != 2 * rank:
        raise node.invalid(f"strides, dilations and pads must fit the {rank} axes of the window")
    if min(*strides, *dilations, 1) < 1:
        raise node.invalid("strides and dilations must be positive")
    before, after = pads[:rank], pads[rank:]
    if auto in ("SAME_UPPER", "SAME_LOWER"):
        for axis in range(rank):
            extent = (size[axis] - 1) * dilations[axis] + 1
            count = dims.ceildiv(spatial[axis], strides[axis])
            total = dims.maximum(0, (count - 1) * strides[axis] + extent - spatial[axis])
            half = dims.floordiv(total, 2)
            before[axis], after[axis] = (half, total - half) if auto == "SAME_UPPER" else (total - half, half)
    elif auto == "VALID":
        before, after = [0] * rank, [0] * rank
    elif auto != "NOTSET":
        raise node.invalid(f"auto_pad is '{auto}'")
    return Window(tuple(size), tuple(strides), tuple(dilations), tuple(before), tuple(after))


def _kernel_shape(node: NodeImport, weights: Value) -> list[int]:
    size = node.ints("kernel_shape") or list(weights.shape[2:])
    if not all(isinstance(extent, int) for extent in size):
        raise node.unsupported("the window's size must be known when the model is compiled")
    return [int(extent) for extent in size]  # type: ignore[arg-type]


def with_bias(node: NodeImport, result: Value, bias: Value | None) -> Value:
    """`result` [N, C, spatial...] plus a bias [C]."""
    if bias is None:
        return result
    return node.add(result, node.reshape(bias, (*bias.shape, *(1 for _ in range(result.rank - 2)))))


def conv(node: NodeImport) -> Value:
    x, weights = node.input(0), node.input(1)
    window = window_of(node, x.shape[2:], _kernel_shape(node, weights))
    return with_bias(node, node.emit(Conv(window, node.int("group", 1)), x, weights), node.optional(2))


def conv_transpose(node: NodeImport) -> Value:
    x, weights = node.input(0), node.input(1)
    size = _kernel_shape(node, weights)
    rank = len(size)
    extra = node.ints("output_padding") or [0] * rank
    plain = node.string("auto_pad", "NOTSET") in ("NOTSET", "VALID")
    strides = node.ints("strides") or [1] * rank
    dilations = node.ints("dilations") or [1] * rank
    given = node.ints("pads") if node.string("auto_pad", "NOTSET") == "NOTSET" else None
    pads: list[Dim] = list(given or [0] * (2 * rank))
    before, after = pads[:rank], pads[rank:]
    wanted: Sequence[Dim] | None = node.ints("output_shape")
    if wanted is None and not plain:
        wanted = [extent * stride for extent, stride in zip(x.shape[2:], strides, strict=True)]
    if wanted is not None:
        wanted = wanted[-rank:]
        for axis in range(rank):
            extent = (size[axis] - 1) * dilations[axis] + 1
            total = strides[axis] * (x.shape[2 + axis] - 1) + extra[axis] + extent - wanted[axis]
            half = dims.floordiv(total, 2)
            upper = node.string("auto_pad", "NOTSET") == "SAME_UPPER"
            before[axis], after[axis] = (half, total - half) if upper else (total - half, half)
    window = Window(tuple(size), tuple(strides), tuple(dilations), tuple(before), tuple(after))
    op = ConvTranspose(window, node.int("group", 1), tuple(extra))
    return with_bias(node, node.emit(op, x, weights), node.optional(2))
