"""Sampling at given places, regions of interest, and what undoes windows: GridSample, RoiAlign, Col2Im, ..."""

from __future__ import annotations

from collections.abc import Sequence

from onnxsmith_compiler.ir import dim as dims
from onnxsmith_compiler.ir import dtype as dtypes
from onnxsmith_compiler.ir.dim import Dim
from onnxsmith_compiler.ir.dtype import DType
from onnxsmith_compiler.ir.graph import Value
from onnxsmith_compiler.onnx.importers.resize import rounded
from onnxsmith_compiler.onnx.importers.shape import Bounds, take
from onnxsmith_compiler.onnx.importers.windows import window_of, with_bias
from onnxsmith_compiler.onnx.node_import import NodeImport
from onnxsmith_compiler.ops.base import normalize_axis
from onnxsmith_compiler.ops.grid_sample import DeformConv, GridSample, GridSampler
from onnxsmith_compiler.ops.regions import Col2Im, PooledRegions, RegionPool
from onnxsmith_compiler.ops.scatter import ElementPositions, ScatterElements
from onnxsmith_compiler.ops.view import Iota, Pad


def _sizes(node: NodeImport, value: Value, what: str) -> list[Dim]:
    """The elements of a small integer tensor as sizes; those below 0 that only a run knows count as 0."""
    if value.known is None:
        value = node.map("max", node.cast(value, dtypes.INT64), 0)
        count = value.type.size
        if not isinstance(count, int):
            raise node.unsupported(f"the number of elements of {what} is known only when the model runs")
        return [node.builder.late_symbol(value, number, signed=False) for number in range(count)]
    sizes = node.sizes(value, what)
    if any(isinstance(size, int) and size < 0 for size in sizes):
        raise node.invalid(f"{what} is {sizes}: expected no element below 0")
    return sizes


_GRID_KINDS = {"linear": "linear", "bilinear": "linear", "cubic": "cubic", "bicubic": "cubic", "nearest": "nearest"}


def grid_sample(node: NodeImport) -> Value:
    """The modes are bilinear, bicubic and nearest before opset 20, linear, cubic and nearest since."""
    x, grid = node.input(0), node.input(1)
    mode, padding = node.string("mode", "linear"), node.string("padding_mode", "zeros")
    if mode not in _GRID_KINDS:
        raise node.invalid(f"mode is '{mode}': expected one of {', '.join(_GRID_KINDS)}")
    if padding not in ("zeros", "border", "reflection"):
        raise node.invalid(f"padding_mode is '{padding}': expected zeros, border or reflection")
    sampler = GridSampler(_GRID_KINDS[mode], padding, node.flag("align_corners"))
    return rounded(node, node.emit(GridSample(sampler), x, grid), x.dtype)


def affine_grid(node: NodeImport) -> Value:
    """grid[n, positions..., k] = theta[n, k, :-1] . coordinates + theta[n, k, -1], the last axis's coordinate first."""
    theta, (_, _, *spatial) = node.input(0), _sizes(node, node.input(1), "size")
    rank = len(spatial)
    if theta.rank != 3 or rank not in (2, 3):
        raise node.invalid(f"theta has rank {theta.rank} and size names {rank} spatial axes: expected 3, and 2 or 3")
    wide = dtypes.FLOAT64 if theta.dtype is dtypes.FLOAT64 else dtypes.FLOAT32
    columns = node.transpose(node.cast(theta, wide), (2, 0, 1))
    ones = (1,) * rank

    def column(number: int) -> Value:
        bounds: list[Bounds] = [(number, 1, 1), *((0, 1, size) for size in columns.shape[1:])]
        return node.reshape(take(node, columns, bounds), (theta.shape[0], *ones, theta.shape[1]))

    node.builder.assume(theta.shape[1], rank)
    node.builder.assume(theta.shape[2], rank + 1)
    total = column(rank)
    for axis, size in enumerate(spatial):
        place = node.reshape(_centres(node, size, wide), (1, *ones[:axis], size, *ones[axis + 1 :], 1))
        total = node.add(total, node.mul(column(rank - 1 - axis), place))
    return node.cast(total, theta.dtype)


def _centres(node: NodeImport, size: Dim, dtype: DType) -> Value:
    """[size] coordinates of elements that fill -1 to 1; -1 where there is only one and it stands in the corner."""
    place = node.cast(node.emit(Iota((size,), 0)), dtype)
    if node.flag("align_corners"):
        return node.sub(node.mul(place, node.div(2.0, node.count(dims.maximum(1, size - 1), dtype))), 1.0)
    step = node.div(1.0, node.count(dims.maximum(1, size), dtype))
    return node.sub(node.mul(node.add(node.mul(place, 2.0), 1.0), step), 1.0)


def roi_align(node: NodeImport) -> Value:
    """Coordinates were not moved by half an element before opset 16."""
    default = "half_pixel" if node.version >= 16 else "output_half_pixel"
    coordinates, kind = node.string("coordinate_transformation_mode", default), node.string("mode", "avg")
    if coordinates not in ("half_pixel", "output_half_pixel") or kind not in ("avg", "max"):
        raise node.invalid(f"mode is '{kind}', coordinate_transformation_mode '{coordinates}'")
    height, width = node.int("output_height", 1), node.int("output_width", 1)
    ratio = node.int("sampling_ratio", 0)
    pool = RegionPool(kind, height, width, node.float("spatial_scale", 1.0), ratio, coordinates == "half_pixel")
    return node.emit(PooledRegions(pool), node.input(0), node.input(1), node.input(2))


def deform_conv(node: NodeImport) -> Value:
    x, weights, offset = node.input(0), node.input(1), node.input(2)
    size = node.ints("kernel_shape") or weights.shape[2:]
    if not all(isinstance(extent, int) for extent in size):
        raise node.unsupported("the window's size must be known when the model is compiled")
    window = window_of(node, x.shape[2:], [extent for extent in size if isinstance(extent, int)])
    op = DeformConv(window, node.int("group", 1), node.int("offset_group", 1))
    return with_bias(node, node.emit(op, x, weights, offset, node.optional(4)), node.optional(3))


def max_roi_pool(node: NodeImport) -> Value:
    shape = node.ints("pooled_shape")
    if shape is None or len(shape) != 2:
        raise node.invalid(f"pooled_shape is {shape}: expected two sizes")
    pool = RegionPool("roi_max", shape[0], shape[1], node.float("spatial_scale", 1.0))
    return node.emit(PooledRegions(pool), node.input(0), node.input(1))


def max_unpool(node: NodeImport) -> Value:
    """Indices count in the tensor that the window gives; where output_shape asks for more, zeros are added behind."""
    x, indices = node.input(0), node.input(1)
    size = node.ints("kernel_shape") or []
    rank = len(size)
    strides, pads = node.ints("strides") or [1] * rank, node.ints("pads") or [0] * (2 * rank)
    if x.rank != rank + 2 or len(strides) != rank or len(pads) != 2 * rank:
        raise node.invalid(f"kernel_shape, strides and pads must fit the {x.rank - 2} spatial axes of the input")
    shape = [*x.shape[:2]]
    for axis in range(rank):
        whole = (x.shape[2 + axis] - 1) * strides[axis] - pads[axis] - pads[rank + axis] + size[axis]
        shape.append(dims.maximum(0, whole))
    count = dims.product(shape)
    places = node.emit(ElementPositions(0, (count,)), node.reshape(indices, (indices.type.size,)))
    zeros = node.expand(node.constant(0, x.dtype), (count,))
    node.builder.assume(x.type.size, indices.type.size)
    flat = node.emit(ScatterElements(0, "none"), zeros, places, node.reshape(x, (x.type.size,)))
    y = node.reshape(flat, tuple(shape))
    if node.optional(2) is None:
        return y
    wanted = _sizes(node, node.input(2), "output_shape")
    if len(wanted) != x.rank:
        raise node.invalid(f"output_shape has {len(wanted)} elements: expected {x.rank}")
    return _resized(node, y, wanted, [0] * x.rank, [0] * x.rank)


def col2im(node: NodeImport) -> Value:
    image, block = _sizes(node, node.input(1), "image_shape"), _sizes(node, node.input(2), "block_shape")
    rank = len(image)
    strides, dilations = node.ints("strides") or [1] * rank, node.ints("dilations") or [1] * rank
    pads = node.ints("pads") or [0] * (2 * rank)
    if any(len(values) != rank for values in (block, strides, dilations)) or len(pads) != 2 * rank:
        raise node.invalid(f"block_shape, strides, dilations and pads must fit the {rank} axes of image_shape")
    if min(*strides, *dilations, 1) < 1:
        raise node.invalid("strides and dilations must be positive")
    op = Col2Im(tuple(image), tuple(block), *(map(tuple, (strides, dilations, pads[:rank], pads[rank:]))))
    return node.emit(op, node.input(0))


def center_crop_pad(node: NodeImport) -> Value:
    x = node.input(0)
    shape = _sizes(node, node.input(1), "shape")
    axes = [normalize_axis(axis, x.rank) for axis in node.ints("axes") or range(x.rank)]
    if len(shape) != len(axes):
        raise node.invalid(f"shape has {len(shape)} elements: expected {len(axes)}")
    wanted = list(x.shape)
    for axis, size in zip(axes, shape, strict=True):
        wanted[axis] = size
    starts = [dims.maximum(0, dims.floordiv(old - new, 2)) for old, new in zip(x.shape, wanted, strict=True)]
    before = [dims.maximum(0, dims.floordiv(new - old, 2)) for old, new in zip(x.shape, wanted, strict=True)]
    return _resized(node, x, wanted, starts, before)


def _resized(node: NodeImport, x: Value, wanted: Sequence[Dim], starts: Sequence[Dim], before: Sequence[Dim]) -> Value:
    """x cut from `starts` on to at most the sizes `wanted`, filled up to them with zeros, `before` of them in front."""
    kept = [dims.minimum(old, new) for old, new in zip(x.shape, wanted, strict=True)]
    cut = take(node, x, [(start, 1, size) for start, size in zip(starts, kept, strict=True)])
    after = [new - size - low for new, size, low in zip(wanted, kept, before, strict=True)]
    if all(amount == 0 for amount in (*before, *after)):
        return cut
    return node.emit(Pad(tuple(before), tuple(after)), cut, node.constant(0, x.dtype))
