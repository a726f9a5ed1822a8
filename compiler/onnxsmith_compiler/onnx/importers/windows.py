"""Convolutions and pools, and how ONNX describes a moving window: size, strides, dilations, pads, auto_pad."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from onnxsmith_compiler.ir import dim as dims
from onnxsmith_compiler.ir import dtype as dtypes
from onnxsmith_compiler.ir.dim import Dim
from onnxsmith_compiler.ir.graph import Value
from onnxsmith_compiler.onnx.node_import import Importer, NodeImport
from onnxsmith_compiler.ops.contraction import Conv
from onnxsmith_compiler.ops.conv_transpose import ConvTranspose
from onnxsmith_compiler.ops.packed import Window
from onnxsmith_compiler.ops.pooling import Pool, WindowCount
from onnxsmith_compiler.ops.view import Iota


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
    size: Sequence[Dim] = node.ints("kernel_shape") or weights.shape[2:]
    if not all(isinstance(extent, int) for extent in size):
        raise node.unsupported("the window's size must be known when the model is compiled")
    return [extent for extent in size if isinstance(extent, int)]


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


def _pool_window(node: NodeImport, x: Value) -> tuple[Window, Window]:
    """(the window as the attributes say, the window with padding stretched so that ceil_mode's positions fit)."""
    size = node.ints("kernel_shape")
    if size is None:
        raise node.invalid("kernel_shape is missing")
    if x.rank != len(size) + 2:
        raise node.invalid(f"a window of {len(size)} axes does not fit an input of rank {x.rank}")
    window = window_of(node, x.shape[2:], size)
    if not node.flag("ceil_mode"):
        return window, window
    after = []
    for axis, extent in enumerate(window.extents()):
        spatial, before, stride = x.shape[2 + axis], window.before[axis], window.strides[axis]
        count = dims.ceildiv(spatial + before + window.after[axis] - extent, stride) + 1
        # a last window that begins in the padding behind the input is left out
        count = dims.minimum(count, dims.floordiv(spatial + before - 1, stride) + 1)
        after.append((count - 1) * stride + extent - spatial - before)
    return window, replace(window, after=tuple(after))


def max_pool(node: NodeImport) -> list[Value | None]:
    """Outputs: the maxima, and where asked for their positions in the whole input, counted row- or column-major."""
    x = node.input(0)
    _, window = _pool_window(node, x)
    y = node.emit(Pool("max", window), x)
    if not node.has_output(1):
        return [y]
    taps = node.emit(Pool("argmax_first", window), x)
    return [y, _positions_of(node, x, window, taps)]


def _positions_of(node: NodeImport, x: Value, window: Window, taps: Value) -> Value:
    """The flat position in x of the element under tap number `taps` of every window, -1 where that is -1."""
    spatial = x.shape[2:]
    column_major = node.flag("storage_order")
    coordinates: list[Value] = []
    rest = taps
    for axis in reversed(range(window.rank)):
        size = float(window.size[axis])
        tap = node.map("mod", rest, size)
        rest = node.div(rest, size)
        place = node.emit(Iota(taps.shape, 2 + axis))
        start = node.sub(node.mul(place, float(window.strides[axis])), node.count(window.before[axis], dtypes.INT64))
        coordinates.insert(0, node.add(start, node.mul(tap, float(window.dilations[axis]))))
    number = node.constant(0, dtypes.INT64)
    order = range(window.rank - 1, -1, -1) if column_major else range(window.rank)
    for axis in order:
        number = node.add(node.mul(number, node.count(spatial[axis], dtypes.INT64)), coordinates[axis])
    plane = node.count(dims.product(spatial), dtypes.INT64)
    channel = node.add(
        node.mul(node.emit(Iota(taps.shape, 0)), node.count(x.shape[1], dtypes.INT64)), node.emit(Iota(taps.shape, 1))
    )
    return node.select(node.map("lt", taps, 0.0), -1.0, node.add(node.mul(channel, plane), number))


def average_pool(node: NodeImport) -> Value:
    x = node.input(0)
    declared, window = _pool_window(node, x)
    total = node.emit(Pool("sum", window), x)
    spatial = x.shape[2:]
    if node.flag("count_include_pad"):
        low: tuple[Dim, ...] = tuple(-pad for pad in declared.before)
        high: tuple[Dim, ...] = tuple(extent + pad for extent, pad in zip(spatial, declared.after, strict=True))
    else:
        low, high = (0,) * window.rank, tuple(spatial)
    if low == tuple(-pad for pad in window.before) and high == tuple(
        extent + pad for extent, pad in zip(spatial, window.after, strict=True)
    ):
        return node.div(total, float(window.taps))
    counts = node.emit(WindowCount(window, total.shape[2:], low, high, x.dtype))
    return node.div(total, counts)


def lp_pool(node: NodeImport) -> Value:
    x, p = node.input(0), node.int("p", 2)
    _, window = _pool_window(node, x)
    return _root(node, node.emit(Pool("sum", window), _power(node, x, p)), p)


def _power(node: NodeImport, x: Value, p: int) -> Value:
    size = node.map("abs", x)
    return size if p == 1 else node.mul(x, x) if p == 2 else node.map("pow", size, float(p))


def _root(node: NodeImport, total: Value, p: int) -> Value:
    return total if p == 1 else node.map("sqrt", total) if p == 2 else node.map("pow", total, 1 / p)


def global_pool(kind: str) -> Importer:
    def run(node: NodeImport) -> Value:
        x = node.input(0)
        axes = list(range(2, x.rank))
        return node.mean(x, axes) if kind == "mean" else node.reduce(kind, x, axes)

    return run


def global_lp_pool(node: NodeImport) -> Value:
    x, p = node.input(0), node.int("p", 2)
    return _root(node, node.reduce("sum", _power(node, x, p), list(range(2, x.rank))), p)
