"""Depthwise convolutions that compute the product that they read: when that pays, and their steps."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from onnxsmith_compiler.codegen.batch_axes import batch_axes
from onnxsmith_compiler.codegen.bound_epilogue import bind_epilogue
from onnxsmith_compiler.codegen.contraction_source import columns_of_last_panel
from onnxsmith_compiler.codegen.contraction_step import contraction_step, window_sizes
from onnxsmith_compiler.codegen.depthwise_row_tile import depthwise_row_shape
from onnxsmith_compiler.codegen.expanded_depthwise_source import ExpandedDepthwiseForm, Lines
from onnxsmith_compiler.codegen.kernel_text import PrintedKernel, PrintedStep
from onnxsmith_compiler.codegen.other_tilings import TilingSpace
from onnxsmith_compiler.codegen.target import Target
from onnxsmith_compiler.codegen.tile_shapes import panel_tile
from onnxsmith_compiler.codegen.tiling import Tiling
from onnxsmith_compiler.ir import dim as dims
from onnxsmith_compiler.ir.dim import Dim
from onnxsmith_compiler.ops.packed import DepthwiseConv, PackedMatMul, Window
from onnxsmith_compiler.schedule.groups import ContractGroup

_LEAST_SHARE = 1
"""The part of the second-level cache that the product of one image must take."""
_MOST_TWICE = 0.3
"""The part of the product's lines that may be computed twice."""


def expands_in_depthwise(
    target: Target, lesser: Sequence[Target], product: ContractGroup, group: ContractGroup
) -> bool:
    """Whether `group`, which alone reads the result of `product`, is faster where it computes that itself.

    The result must be so large that it would leave the core's own caches before it is read. `lesser` are further
    targets that need kernels for the same groups.
    """
    expansion = _Expansion.of(group, product, target)
    if expansion is None or not all(can_expand(other, product, group) for other in lesser):
        return False
    lines, channels = expansion.lines, expansion.channels
    size = lines.input[0] * lines.input[1] * channels * product.outputs[0].dtype.itemsize
    band = expansion.form.tiling(channels, lines, target).rows
    twice = lines.under(band) - band * lines.strides[0]
    return size >= _LEAST_SHARE * target.l2 and twice <= _MOST_TWICE * band * lines.strides[0]


def can_expand(target: Target, product: ContractGroup, group: ContractGroup) -> bool:
    """Whether there is a kernel of `group` that computes the result of `product`, its first operand, itself."""
    return _Expansion.of(group, product, target) is not None


@dataclass(frozen=True)
class _Expansion:
    """What is known of both when a kernel is made: all sizes but the number of images."""

    form: ExpandedDepthwiseForm
    lines: Lines
    channels: int
    depth: int
    window: Window

    @staticmethod
    def of(group: ContractGroup, product: ContractGroup, target: Target) -> _Expansion | None:
        kernel, convolution = product.contract.kernel, group.contract.kernel
        x, (a, b) = product.outputs[0], product.operands[:2]
        if not isinstance(kernel, PackedMatMul) or not isinstance(convolution, DepthwiseConv):
            return None
        lines, channels, depth = _lines(group, convolution.window), x.shape[-1], a.shape[-1]
        if lines is None or not isinstance(channels, int) or not isinstance(depth, int):
            return None
        row = depthwise_row_shape(target, x.dtype.name, lines.window[1], lines.strides[1], lines.dilations[1])
        if row is None or a.dtype != x.dtype or group.operands[0] is not x or batch_axes(a.shape[:-2], b.shape[:-3]):
            return None
        tile = panel_tile(target, x.dtype.name, kernel.columns, b.dtype)
        last_columns, last_channels = (columns_of_last_panel(shape, channels) for shape in (tile, row))
        form = ExpandedDepthwiseForm(tile, row, last_columns, last_channels)
        return _Expansion(form, lines, channels, depth, convolution.window)


def print_expanded_depthwise(group: ContractGroup, product: ContractGroup, target: Target) -> PrintedStep:
    """The step of a depthwise convolution for which `can_expand` is true."""
    expansion = _Expansion.of(group, product, target)
    assert expansion is not None
    form, lines, channels = expansion.form, expansion.lines, expansion.channels
    x, weights = group.operands
    inner = bind_epilogue(product, dims.product(x.shape[:-1]), channels, place=form.place)
    bound = bind_epilogue(group, dims.product(group.node.output.shape[:-1]), channels)
    source = form.source(inner.epilogue, bound.epilogue)
    geometry = window_sizes(expansion.window, lines.input, lines.output)

    def cut(tiling: Tiling) -> PrintedKernel:
        sizes: Sequence[Dim] = (channels, expansion.depth, *geometry, tiling.rows, tiling.panels)
        return PrintedKernel(
            source,
            (*product.operands, *inner.arguments, weights, *bound.arguments, *sizes),
            form.tiles(x.shape[0], channels, lines, tiling),
            form.cost(expansion.depth, lines, tiling, target),
            form.scratch(lines, tiling),
        )

    space = TilingSpace(lines.output[0], form.panels(channels), 1, most_units=form.largest_band(lines, target))
    return contraction_step(group, "expanded_depthwise", cut, form.tiling(channels, lines, target), space)


def _lines(group: ContractGroup, window: Window) -> Lines | None:
    """How the window moves, if that is over images of known size."""
    shapes = (group.operands[0].shape[1:-1], group.node.output.shape[1:-1])
    pairs = [_pair(sizes) for sizes in (*shapes, window.size, window.strides, window.dilations, window.before)]
    known = [pair for pair in pairs if pair is not None]
    return Lines(*known) if len(known) == len(pairs) else None


def _pair(sizes: Sequence[Dim]) -> tuple[int, int] | None:
    if len(sizes) != 2:
        return None
    first, second = sizes
    return (first, second) if isinstance(first, int) and isinstance(second, int) else None
