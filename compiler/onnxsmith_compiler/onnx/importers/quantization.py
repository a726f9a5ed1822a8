"""Linear quantisation: QuantizeLinear and its inverse, and products and convolutions of quantised tensors.

Products are exact: of integers in int32, convolutions in float64, whose 53 bits hold every sum that int32 does.
"""

from __future__ import annotations

from onnxsmith_compiler.ir import dim as dims
from onnxsmith_compiler.ir import dtype as dtypes
from onnxsmith_compiler.ir.dtype import DType
from onnxsmith_compiler.ir.graph import Value
from onnxsmith_compiler.onnx.importers.windows import window_of
from onnxsmith_compiler.onnx.node_import import NodeImport
from onnxsmith_compiler.ops.base import normalize_axis
from onnxsmith_compiler.ops.cast import Cast
from onnxsmith_compiler.ops.contraction import Conv


def quantize_linear(node: NodeImport) -> Value:
    """saturate(round(x / scale) + zero_point)."""
    x, scale, zero = node.input(0), node.input(1), node.optional(2)
    to = node.dtype("output_dtype", dtypes.UINT8) if node.int("output_dtype", 0) else dtypes.UINT8
    if zero is not None:
        to = zero.dtype
    wide = _precision(node, x)
    quotient = node.div(node.cast(x, wide), node.cast(_along(node, scale, x), wide))
    if not to.is_integer:
        return node.emit(Cast(to, node.flag("saturate", True)), quotient)
    return _rounded(node, quotient, None if zero is None else _along(node, zero, x), to)


def _precision(node: NodeImport, x: Value) -> DType:
    given = node.int("precision", 0)
    wanted = dtypes.BY_ONNX_CODE[given] if given else x.dtype
    return dtypes.FLOAT64 if wanted is dtypes.FLOAT64 else dtypes.FLOAT32


def _rounded(node: NodeImport, value: Value, zero: Value | None, to: DType) -> Value:
    """`value` rounded half to even, moved by the zero point and clamped to the integers that `to` holds."""
    rounded = node.map("round", value)
    if zero is not None:
        rounded = node.add(rounded, node.cast(zero, rounded.dtype))
    low, high = integer_range(to)
    clamped = node.map("min", node.map("max", rounded, float(low)), float(high))
    return node.emit(Cast(to), node.cast(clamped, dtypes.INT32) if to.bits < 32 else clamped)


def integer_range(dtype: DType) -> tuple[int, int]:
    """The least and the greatest integer of the type."""
    if dtype.kind == "uint":
        return 0, (1 << dtype.bits) - 1
    return -(1 << (dtype.bits - 1)), (1 << (dtype.bits - 1)) - 1


def _along(node: NodeImport, factor: Value, x: Value) -> Value:
    """A scale or zero point shaped to broadcast over x: one in all, one for each slice along `axis`, or one a block."""
    if factor.rank == 0 or (factor.rank == 1 and factor.shape[0] == 1):
        return node.reshape(factor, ())
    axis = normalize_axis(node.int("axis", 1), x.rank)
    if factor.rank == 1 and not node.int("block_size", 0):
        return node.reshape(factor, tuple(factor.shape[0] if a == axis else 1 for a in range(x.rank)))
    size = node.int("block_size", 0)
    blocks = factor.shape[axis]
    split = (*factor.shape[: axis + 1], 1, *factor.shape[axis + 1 :])
    wide = (*factor.shape[: axis + 1], size, *factor.shape[axis + 1 :])
    whole = (*factor.shape[:axis], blocks * size, *factor.shape[axis + 1 :])
    repeated = node.reshape(node.expand(node.reshape(factor, split), wide), whole)
    if whole[axis] == x.shape[axis]:
        return repeated
    from onnxsmith_compiler.onnx.importers.shape import take  # the last block may be cut

    return take(node, repeated, [(0, 1, extent) for extent in x.shape])


def dequantize_linear(node: NodeImport) -> Value:
    """(x - zero_point) * scale, of the scale's type unless `output_dtype` says otherwise."""
    x, scale, zero = node.input(0), node.input(1), node.optional(2)
    to = node.dtype("output_dtype", scale.dtype) if node.int("output_dtype", 0) else scale.dtype
    wide = dtypes.FLOAT64 if scale.dtype is dtypes.FLOAT64 else dtypes.FLOAT32
    if x.dtype.is_integer:
        number = node.cast(x, dtypes.INT32)
        if zero is not None:
            number = node.sub(number, node.cast(_along(node, zero, x), dtypes.INT32))
        value = node.cast(number, wide)
    else:
        value = node.cast(x, wide)
        if zero is not None:
            value = node.sub(value, node.cast(_along(node, zero, x), wide))
    return node.cast(node.mul(value, node.cast(_along(node, scale, x), wide)), to)


def dynamic_quantize_linear(node: NodeImport) -> list[Value | None]:
    """uint8 with the range of x, made to hold 0: outputs y, scale and zero point."""
    x = node.input(0)
    axes = list(range(x.rank))
    top = node.map("max", node.reduce("max", x, axes, keepdims=False), 0.0)
    bottom = node.map("min", node.reduce("min", x, axes, keepdims=False), 0.0)
    scale = node.div(node.sub(top, bottom), 255.0)
    safe = node.select(node.map("eq", scale, 0.0), 1.0, scale)
    zero = _rounded(node, node.div(node.map("neg", bottom), safe), None, dtypes.UINT8)
    return [_rounded(node, node.div(x, safe), zero, dtypes.UINT8), scale, zero]


def _centred(node: NodeImport, x: Value, zero: Value | None, axis: int | None) -> Value:
    """x - zero_point in int32; the zero point is one in all, or one for each slice along `axis`."""
    number = node.cast(x, dtypes.INT32)
    if zero is None:
        return number
    if zero.rank == 1 and zero.shape[0] != 1 and axis is not None:
        zero = node.reshape(zero, tuple(zero.shape[0] if a == axis else 1 for a in range(x.rank)))
    elif zero.rank <= 1:
        zero = node.reshape(zero, ())
    return node.sub(number, node.cast(zero, dtypes.INT32))


def matmul_integer(node: NodeImport) -> Value:
    a, b = node.input(0), node.input(1)
    left = _centred(node, a, node.optional(2), a.rank - 2)
    return _product(node, left, _centred(node, b, node.optional(3), b.rank - 1))


def _product(node: NodeImport, a: Value, b: Value) -> Value:
    from onnxsmith_compiler.onnx.importers.linear import product

    return product(node, a, b)


def qlinear_matmul(node: NodeImport) -> Value:
    """Inputs: a, its scale and zero point, the same of b, scale and zero point of the result."""
    a, b = node.input(0), node.input(3)
    left = _centred(node, a, node.input(2), a.rank - 2)
    total = _product(node, left, _centred(node, b, node.input(5), b.rank - 1))
    a_scale = _matrix_scale(node, node.input(1), total, total.rank - 2)
    factor = node.mul(a_scale, _matrix_scale(node, node.input(4), total, total.rank - 1))
    return _requantized(node, total, node.div(factor, _wide_scalar(node, node.input(6))), node.input(7))


def _wide_scalar(node: NodeImport, scale: Value) -> Value:
    return node.cast(node.reshape(scale, ()), dtypes.FLOAT64)


def _matrix_scale(node: NodeImport, scale: Value, total: Value, axis: int) -> Value:
    if scale.rank == 1 and scale.shape[0] != 1:
        scale = node.reshape(scale, tuple(scale.shape[0] if a == axis else 1 for a in range(total.rank)))
    elif scale.rank <= 1:
        scale = node.reshape(scale, ())
    return node.cast(scale, dtypes.FLOAT64)


def _requantized(node: NodeImport, total: Value, factor: Value, zero: Value) -> Value:
    return _rounded(node, node.mul(node.cast(total, dtypes.FLOAT64), factor), node.reshape(zero, ()), zero.dtype)


def conv_integer(node: NodeImport) -> Value:
    x, weights = node.input(0), node.input(1)
    return node.cast(_convolution(node, x, node.optional(2), weights, node.optional(3)), dtypes.INT32)


def _convolution(node: NodeImport, x: Value, x_zero: Value | None, weights: Value, w_zero: Value | None) -> Value:
    """The exact sums, as float64. Padding stands for the zero point of x."""
    size = node.ints("kernel_shape") or [int(extent) for extent in weights.shape[2:] if isinstance(extent, int)]
    window = window_of(node, x.shape[2:], size)
    centred = node.cast(_centred(node, x, x_zero, None), dtypes.FLOAT64)
    kernel = node.cast(_centred(node, weights, w_zero, 0), dtypes.FLOAT64)
    return node.emit(Conv(window, node.int("group", 1)), centred, kernel)


def qlinear_conv(node: NodeImport) -> Value:
    """Inputs: x, its scale and zero point, the same of the weights and of the result, and an int32 bias."""
    x, weights = node.input(0), node.input(3)
    total = _convolution(node, x, node.input(2), weights, node.input(5))
    channels = (dims.product(weights.shape[:1]), *(1 for _ in range(x.rank - 2)))
    bias = node.optional(8)
    if bias is not None:
        total = node.add(total, node.cast(node.reshape(bias, channels), dtypes.FLOAT64))
    w_scale = node.input(4)
    w_scale = node.reshape(w_scale, () if w_scale.type.size == 1 else channels)
    factor = node.mul(node.cast(w_scale, dtypes.FLOAT64), _wide_scalar(node, node.input(1)))
    return _requantized(node, total, node.div(factor, _wide_scalar(node, node.input(6))), node.input(7))
