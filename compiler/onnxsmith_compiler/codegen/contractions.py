"""Prints contractions: fits operands, sizes and the fused epilogue to the templates of matmul and convolution."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from onnxsmith_compiler.codegen.attention_form import AttentionForm, attention_rows_per_tile
from onnxsmith_compiler.codegen.attention_source import attention_source
from onnxsmith_compiler.codegen.batch_axes import batch_axes
from onnxsmith_compiler.codegen.bound_epilogue import bind_epilogue
from onnxsmith_compiler.codegen.contraction_source import columns_of_last_panel
from onnxsmith_compiler.codegen.contraction_step import contraction_step, window_sizes
from onnxsmith_compiler.codegen.conv_source import ConvForm, conv_source, conv_tiling, merges_taps
from onnxsmith_compiler.codegen.depthwise_source import depthwise_form
from onnxsmith_compiler.codegen.epilogue import Mask, masked_score
from onnxsmith_compiler.codegen.expanded_depthwise import print_expanded_depthwise
from onnxsmith_compiler.codegen.kernel_text import PrintedKernel, PrintedStep
from onnxsmith_compiler.codegen.matmul_source import MatmulForm, matmul_source, matmul_tiling
from onnxsmith_compiler.codegen.other_tilings import TilingSpace
from onnxsmith_compiler.codegen.row_tile import ROW_TILE_PANELS
from onnxsmith_compiler.codegen.target import Target
from onnxsmith_compiler.codegen.tile_shapes import panel_tile, tile_shape
from onnxsmith_compiler.codegen.tiling import Tiling
from onnxsmith_compiler.codegen.winograd_source import MOST_BLOCK_GROUPS, WinogradForm, winograd_source, winograd_tiling
from onnxsmith_compiler.ir import dim as dims
from onnxsmith_compiler.ir.dim import Dim
from onnxsmith_compiler.ir.dtype import DType
from onnxsmith_compiler.ir.graph import Value
from onnxsmith_compiler.ops.attention import FusedAttention
from onnxsmith_compiler.ops.packed import DepthwiseConv, PackedConv, PackedMatMul, Window
from onnxsmith_compiler.ops.winograd import WinogradConv
from onnxsmith_compiler.schedule.groups import ContractGroup


def print_contraction(group: ContractGroup, target: Target) -> Iterable[PrintedStep]:
    match group.contract.kernel:
        case PackedMatMul() as kernel:
            yield _matmul(group, kernel, target)
        case PackedConv() as kernel:
            yield _conv(group, kernel, target)
        case WinogradConv() as kernel:
            yield _winograd(group, kernel, target)
        case DepthwiseConv() if group.product is not None:
            yield print_expanded_depthwise(group, group.product, target)
        case DepthwiseConv() as kernel:
            yield _depthwise(group, kernel, target)
        case FusedAttention() as kernel:
            yield _attention(group, kernel, target)
        case kernel:
            raise TypeError(f"no template for {kernel.name}")


def tile_columns(target: Target, dtype: DType, n: Dim) -> int:
    """The width of the panels that a product with `n` columns is packed in."""
    return tile_shape(target, dtype.name, n if isinstance(n, int) else None).columns


def _known(size: Dim) -> int | None:
    return size if isinstance(size, int) else None


def _matmul(group: ContractGroup, kernel: PackedMatMul, target: Target) -> PrintedStep:
    a, b = group.operands
    batch = batch_axes(a.shape[:-2], b.shape[:-3])
    k = a.shape[-1]
    m = a.shape[-2] if batch else dims.product(a.shape[:-1])
    shape = panel_tile(target, a.dtype.compute.name, kernel.columns, b.dtype, pairs=kernel.pairs)
    form = MatmulForm(shape, columns_of_last_panel(shape, kernel.n), len(batch), single_row=m == 1)
    tiling = matmul_tiling(form, _known(m), _known(kernel.n), _known(k), target)
    bound = bind_epilogue(group, m, kernel.n, batched=bool(batch))
    source = matmul_source(form, bound.epilogue)
    panel_elements = dims.ceildiv(kernel.n, kernel.columns) * k * kernel.columns
    strides: list[Dim] = []
    for axis in batch:
        strides += [axis.size, axis.a_stride * (m * k), axis.b_stride * panel_elements]
    products = dims.product([axis.size for axis in batch])

    def cut(tiling: Tiling) -> PrintedKernel:
        return PrintedKernel(
            source,
            (a, b, *bound.arguments, m, kernel.n, k, k, *strides, *form.tiling_arguments(k, tiling)),
            form.tiles(m, kernel.n, products, tiling),
            form.cost(k, tiling, target),
            form.scratch(k, tiling),
        )

    panels = dims.ceildiv(kernel.n, shape.columns)
    space = TilingSpace(m, panels, shape.rows, panel_unit=ROW_TILE_PANELS if form.single_row else 1)
    return contraction_step(group, "matmul", cut, tiling, space)


def _conv(group: ContractGroup, kernel: PackedConv, target: Target) -> PrintedStep:
    x, weights = group.operands
    window, groups = kernel.window, kernel.groups
    channels = x.shape[-1]
    group_channels, outputs = dims.floordiv(channels, groups), dims.floordiv(kernel.outputs, groups)
    positions = group.node.output.shape[1:-1]
    pixels = dims.product((x.shape[0], *positions))
    shape = panel_tile(target, x.dtype.compute.name, kernel.columns, weights.dtype, pairs=kernel.pairs)
    merged = merges_taps(_known(channels), groups, window.dilations)
    form = ConvForm(shape, window.size, merged, columns_of_last_panel(shape, outputs))
    tiling = conv_tiling(form, _known(pixels), _known(outputs), _known(group_channels), target)
    bound = bind_epilogue(group, pixels, kernel.outputs)
    geometry = window_sizes(window, x.shape[1:-1], positions)
    source = conv_source(form, bound.epilogue)
    sizes = (pixels, outputs, channels, group_channels, *geometry)

    def cut(tiling: Tiling) -> PrintedKernel:
        return PrintedKernel(
            source,
            (x, weights, *bound.arguments, *sizes, tiling.rows, tiling.panels),
            form.tiles(pixels, outputs, groups, tiling),
            form.cost(group_channels, tiling, target),
            form.scratch(group_channels, tiling),
        )

    return contraction_step(
        group, "conv", cut, tiling, TilingSpace(pixels, dims.ceildiv(outputs, shape.columns), shape.rows)
    )


def _winograd(group: ContractGroup, kernel: WinogradConv, target: Target) -> PrintedStep:
    x, weights = group.operands
    images, channels = x.shape[0], weights.shape[-2]
    assert isinstance(channels, int)
    height, width = kernel.positions(x.shape)
    form = WinogradForm(
        panel_tile(target, x.dtype.name, kernel.columns), kernel.block, kernel.outputs % kernel.columns == 0
    )
    blocks = tuple(dims.ceildiv(size, kernel.block) for size in (height, width))
    all_blocks = dims.product((images, *blocks))
    tiling = winograd_tiling(form, _known(all_blocks), kernel.outputs, channels, target)
    bound = bind_epilogue(group, dims.product((images, height, width)), kernel.outputs)
    patches = Window((form.patch,) * 2, (kernel.block,) * 2, (1, 1), kernel.window.before, kernel.window.after)
    geometry = window_sizes(patches, x.shape[1:-1], blocks)
    source = winograd_source(form, bound.epilogue)
    sizes = (all_blocks, kernel.outputs, channels, *geometry, height, width)

    def cut(tiling: Tiling) -> PrintedKernel:
        return PrintedKernel(
            source,
            (x, weights, *bound.arguments, *sizes, tiling.rows, tiling.panels),
            form.tiles(all_blocks, kernel.outputs, tiling),
            form.cost(channels, tiling, target),
            form.scratch(channels, tiling),
        )

    panels = dims.ceildiv(kernel.outputs, form.tile.columns)
    space = TilingSpace(all_blocks, panels, form.tile.rows, most_units=MOST_BLOCK_GROUPS)
    return contraction_step(group, "winograd", cut, tiling, space)


def _depthwise(group: ContractGroup, kernel: DepthwiseConv, target: Target) -> PrintedStep:
    x, weights = group.operands
    channels = x.shape[-1]
    positions = group.node.output.shape[1:-1]
    pixels = dims.product((x.shape[0], *positions))
    window = kernel.window
    form = depthwise_form(target, x.dtype.name, channels, window.size, window.strides, window.dilations)
    places = (x.shape[0], *positions)
    tiling = form.tiling(places, channels, target)
    bound = bind_epilogue(group, pixels, channels)
    geometry = window_sizes(window, x.shape[1:-1], positions)
    source = form.source(bound.epilogue)

    def cut(tiling: Tiling) -> PrintedKernel:
        return PrintedKernel(
            source,
            (x, weights, *bound.arguments, pixels, channels, *geometry, tiling.rows, tiling.panels),
            form.tiles(places, channels, tiling),
            form.cost(tiling, target),
            form.scratch(channels, tiling),
        )

    space = TilingSpace(form.rows(places), dims.ceildiv(channels, form.tile.columns), form.row_unit)
    return contraction_step(group, "depthwise", cut, tiling, space)


def _attention(group: ContractGroup, kernel: FusedAttention, target: Target) -> PrintedStep:
    query, key, value, *masks = group.operands
    output = group.node.output
    dtype = output.dtype
    form = AttentionForm(
        tile_shape(target, dtype.name), dtype.name, len(kernel.outer), kernel.scale, kernel.past is not None
    )
    forms = [Mask(str(mask.dtype), _baked(view.strides[-1])) for mask, view in zip(masks, kernel.masks, strict=True)]
    score = masked_score(dtype, len(kernel.outer), forms, kernel.softcap)
    masked: list[Value | Dim] = []
    for mask, view, mask_form in zip(masks, kernel.masks, forms, strict=True):
        strides = view.strides if mask_form.key_stride is None else view.strides[:-1]
        masked += [mask, view.offset, *strides]
    products = dims.product(kernel.outer)
    tiling = Tiling(attention_rows_per_tile(form, _known(products), _known(kernel.rows), target), 1)
    views = (kernel.query, kernel.key, kernel.value)
    places = [size for view in views for size in (view.offset, *view.strides[:-1])]
    *before, row = _row_major(output.shape, kernel.rows_axis)
    shape = (*kernel.outer, kernel.rows, kernel.columns, kernel.depth, kernel.width)
    past = () if kernel.past is None else (kernel.past,)
    source = attention_source(form, score)

    def cut(tiling: Tiling) -> PrintedKernel:
        return PrintedKernel(
            source,
            (query, key, value, *masked, output, *shape, *places, 0, *before, row, *past, tiling.rows),
            form.tiles(products, kernel.rows, tiling.rows),
            form.cost(kernel.columns, kernel.depth, kernel.width, tiling.rows, target),
            form.scratch(kernel.columns, kernel.depth, kernel.width),
        )

    return contraction_step(group, "attention", cut, tiling, TilingSpace(kernel.rows, 1, form.tile.rows))


def _baked(stride: Dim) -> int | None:
    """A stride that is written into kernels: so loads of neighbours are known to be so."""
    return stride if isinstance(stride, int) and stride in (0, 1) else None


def _row_major(shape: Sequence[Dim], rows_axis: int) -> list[Dim]:
    """The strides of all axes but the last, that of the rows at the end."""
    strides = [dims.product(shape[number + 1 :]) for number in range(len(shape) - 1)]
    return [*strides[:rows_axis], *strides[rows_axis + 1 :], strides[rows_axis]]
