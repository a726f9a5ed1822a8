"""Prints contractions: fits operands, sizes and the fused epilogue to the templates of matmul and convolution."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from onnxsmith_compiler.codegen.attention_source import AttentionForm, attention_rows_per_tile, attention_source
from onnxsmith_compiler.codegen.contraction_source import columns_of_last_panel
from onnxsmith_compiler.codegen.conv_source import ConvForm, conv_source, conv_tiling, merges_taps
from onnxsmith_compiler.codegen.depthwise_source import depthwise_form
from onnxsmith_compiler.codegen.epilogue import Epilogue, scaled_score
from onnxsmith_compiler.codegen.kernel_text import KernelText, PrintedKernel, PrintedStep
from onnxsmith_compiler.codegen.loop_shape import flatten, join_axes
from onnxsmith_compiler.codegen.matmul_source import MatmulForm, matmul_source, matmul_tiling
from onnxsmith_compiler.codegen.source import Parameter
from onnxsmith_compiler.codegen.target import Target
from onnxsmith_compiler.codegen.tiles import tile_shape
from onnxsmith_compiler.codegen.winograd_source import WinogradForm, winograd_source, winograd_tiling
from onnxsmith_compiler.ir import dim as dims
from onnxsmith_compiler.ir import loop
from onnxsmith_compiler.ir.dim import Dim, LoopIndex
from onnxsmith_compiler.ir.dtype import DType
from onnxsmith_compiler.ir.graph import Value
from onnxsmith_compiler.ir.loop import Computation
from onnxsmith_compiler.ops.attention import FusedAttention
from onnxsmith_compiler.ops.packed import DepthwiseConv, PackedConv, PackedMatMul, Window
from onnxsmith_compiler.ops.view import delinearize
from onnxsmith_compiler.ops.winograd import WinogradConv
from onnxsmith_compiler.schedule.groups import ContractGroup
from onnxsmith_compiler.schedule.work import contraction_work


def print_contraction(group: ContractGroup, target: Target) -> Iterable[PrintedStep]:
    match group.contract.kernel:
        case PackedMatMul() as kernel:
            yield _matmul(group, kernel, target)
        case PackedConv() as kernel:
            yield _conv(group, kernel, target)
        case WinogradConv() as kernel:
            yield _winograd(group, kernel, target)
        case DepthwiseConv() as kernel:
            yield _depthwise(group, kernel, target)
        case FusedAttention() as kernel:
            yield _attention(group, kernel, target)
        case kernel:
            raise TypeError(f"no template for {kernel.name}")


def tile_columns(target: Target, dtype: DType, n: Dim) -> int:
    """The width of the panels that a product with `n` columns is packed in."""
    return tile_shape(target, dtype.name, n if isinstance(n, int) else None).columns


@dataclass(frozen=True)
class BoundEpilogue:
    """An epilogue with the arguments of its parameters."""

    epilogue: Epilogue
    arguments: tuple[Value | Dim, ...]


def bind_epilogue(group: ContractGroup, rows: Dim, columns: Dim, batched: bool) -> BoundEpilogue:
    """What becomes of the result element in row m, column n of product `batch`: stored, or first mapped.

    Element (batch, m, n) is number (batch * rows + m) * columns + n of the result.
    """
    stage = group.epilogue
    if stage is None:
        axes = loop.axes_for(group.node.output.shape)
        computation = Computation(axes, loop.Accumulated(group.node.output.dtype.compute))
        output = group.node.output
    else:
        computation, output = stage.computation, stage.output
    flat = flatten(output, computation)
    (flat,), axes = join_axes([flat], flat.axes)
    m, n, batch = LoopIndex("m", rows), LoopIndex("n", columns), LoopIndex("batch", output.type.size)
    number = dims.from_atom(m) * columns + dims.from_atom(n)
    if batched:
        number = number + dims.from_atom(batch) * (rows * columns)
    index = delinearize(number, tuple(axis.extent for axis in axes))
    flat = flat.substitute(dict(zip(axes, index, strict=True)))
    probe = _print_epilogue(flat, m, n, batch, ("acc", "m_index", "n_index", "batch"))

    def lines(acc: str, row: str, column: str, product: str) -> Sequence[str]:
        text = _print_epilogue(flat, m, n, batch, (acc, row, column, product))
        return [line[4:] for line in text.lines]

    def destination(row: str, column: str, product: str) -> str:
        text = _print_epilogue(flat, m, n, batch, ("acc", row, column, product))
        return f"address({text.written(flat.output)}) + ({text.dim(flat.store)}) * {flat.output.dtype.itemsize}"

    is_dense = dims.coefficient_of(flat.store, n) == 1 and dims.coefficient_of(flat.store, m) == columns
    epilogue = Epilogue(tuple(probe.parameters), lines, destination if is_dense else None)
    return BoundEpilogue(epilogue, tuple(probe.arguments))


def _print_epilogue(
    flat: object, m: LoopIndex, n: LoopIndex, batch: LoopIndex, names: tuple[str, str, str, str]
) -> KernelText:
    text = KernelText(accumulated=names[0])
    for axis, name in zip((m, n, batch), names[1:], strict=True):
        text.name_index(axis, name)
    result = text.expr(flat.body)  # type: ignore[attr-defined]
    text.line(f"store({text.written(flat.output)}, {text.dim(flat.store)}, {result})")  # type: ignore[attr-defined]
    return text


def _known(size: Dim) -> int | None:
    return size if isinstance(size, int) else None


def _matmul(group: ContractGroup, kernel: PackedMatMul, target: Target) -> PrintedStep:
    a, b = group.operands
    batch = _batch_axes(a.shape[:-2], b.shape[:-3])
    k = a.shape[-1]
    m = a.shape[-2] if batch else dims.product(a.shape[:-1])
    shape = tile_shape(target, a.dtype.name, kernel.columns)
    form = MatmulForm(shape, columns_of_last_panel(shape, kernel.n), len(batch), single_row=m == 1)
    tiling = matmul_tiling(form, _known(m), _known(kernel.n), _known(k), target)
    bound = bind_epilogue(group, m, kernel.n, bool(batch))
    source = matmul_source(form, bound.epilogue)
    panel_elements = dims.ceildiv(kernel.n, kernel.columns) * k * kernel.columns
    strides: list[Dim] = []
    for axis in batch:
        strides += [axis.size, axis.a_stride * (m * k), axis.b_stride * panel_elements]
    arguments = (a, b, *bound.arguments, m, kernel.n, k, k, *strides, tiling.rows, tiling.panels)
    products = dims.product([axis.size for axis in batch])
    printed = PrintedKernel(
        source,
        arguments,
        form.tiles(m, kernel.n, products, tiling),
        form.cost(k, tiling, target),
        form.scratch(k, tiling),
    )
    return PrintedStep(printed, group.outputs, "matmul", group.origins, contraction_work(group))


def _conv(group: ContractGroup, kernel: PackedConv, target: Target) -> PrintedStep:
    x, weights = group.operands
    window, groups = kernel.window, kernel.groups
    channels = x.shape[-1]
    group_channels, outputs = dims.floordiv(channels, groups), dims.floordiv(kernel.outputs, groups)
    positions = group.node.output.shape[1:-1]
    pixels = dims.product((x.shape[0], *positions))
    shape = tile_shape(target, x.dtype.name, kernel.columns)
    merged = merges_taps(_known(channels), groups, window.dilations)
    form = ConvForm(shape, window.size, merged, columns_of_last_panel(shape, outputs))
    tiling = conv_tiling(form, _known(pixels), _known(outputs), _known(group_channels), target)
    bound = bind_epilogue(group, pixels, kernel.outputs, batched=False)
    geometry = _geometry(window, x.shape[1:-1], positions)
    arguments = (
        x, weights, *bound.arguments, pixels, outputs, channels, group_channels, *geometry, tiling.rows, tiling.panels,
    )  # fmt: skip
    printed = PrintedKernel(
        conv_source(form, bound.epilogue),
        arguments,
        form.tiles(pixels, outputs, groups, tiling),
        form.cost(group_channels, tiling, target),
        form.scratch(group_channels, tiling),
    )
    return PrintedStep(printed, group.outputs, "conv", group.origins, contraction_work(group))


def _winograd(group: ContractGroup, kernel: WinogradConv, target: Target) -> PrintedStep:
    x, weights = group.operands
    images, channels = x.shape[0], weights.shape[-2]
    assert isinstance(channels, int)
    height, width = kernel.positions(x.shape)
    form = WinogradForm(
        tile_shape(target, x.dtype.name, kernel.columns), kernel.block, kernel.outputs % kernel.columns == 0
    )
    blocks = tuple(dims.ceildiv(size, kernel.block) for size in (height, width))
    all_blocks = dims.product((images, *blocks))
    tiling = winograd_tiling(form, _known(all_blocks), kernel.outputs, channels, target)
    bound = bind_epilogue(group, dims.product((images, height, width)), kernel.outputs, batched=False)
    patches = Window((form.patch,) * 2, (kernel.block,) * 2, (1, 1), kernel.window.before, kernel.window.after)
    geometry = _geometry(patches, x.shape[1:-1], blocks)
    sizes = (all_blocks, kernel.outputs, channels, *geometry, height, width, tiling.rows, tiling.panels)
    printed = PrintedKernel(
        winograd_source(form, bound.epilogue),
        (x, weights, *bound.arguments, *sizes),
        form.tiles(all_blocks, kernel.outputs, tiling),
        form.cost(channels, tiling, target),
        form.scratch(channels, tiling),
    )
    return PrintedStep(printed, group.outputs, "winograd", group.origins, contraction_work(group))


def _depthwise(group: ContractGroup, kernel: DepthwiseConv, target: Target) -> PrintedStep:
    x, weights = group.operands
    channels = x.shape[-1]
    positions = group.node.output.shape[1:-1]
    pixels = dims.product((x.shape[0], *positions))
    window = kernel.window
    form = depthwise_form(target, x.dtype.name, channels, window.size, window.strides, window.dilations)
    places = (x.shape[0], *positions)
    tiling = form.tiling(places, channels, target)
    bound = bind_epilogue(group, pixels, channels, batched=False)
    geometry = _geometry(window, x.shape[1:-1], positions)
    printed = PrintedKernel(
        form.source(bound.epilogue),
        (x, weights, *bound.arguments, pixels, channels, *geometry, tiling.rows, tiling.panels),
        form.tiles(places, channels, tiling),
        form.cost(tiling, target),
        form.scratch(channels, tiling),
    )
    return PrintedStep(printed, group.outputs, "depthwise", group.origins, contraction_work(group))


def _attention(group: ContractGroup, kernel: FusedAttention, target: Target) -> PrintedStep:
    query, key, value, *mask = group.operands
    dtype = group.node.output.dtype
    form = AttentionForm(tile_shape(target, dtype.name), dtype.name)
    score = scaled_score(dtype, kernel.scale, str(mask[0].dtype) if mask else None)
    products = kernel.batch * kernel.heads
    rows = attention_rows_per_tile(form, _known(products), _known(kernel.rows), target)
    places = [size for view in (kernel.query, kernel.key, kernel.value) for size in (view.offset, *view.strides[:3])]
    masked: tuple[Value | Dim, ...] = ()
    if kernel.mask is not None:
        masked = (mask[0], kernel.mask.offset, *kernel.mask.strides)
    row = kernel.heads * kernel.width
    output = (group.node.output, kernel.heads, kernel.rows * row, kernel.width, row)
    shape = (kernel.heads, 1, kernel.rows, kernel.columns, kernel.depth, kernel.width)
    printed = PrintedKernel(
        attention_source(form, score, _heads_last(dtype)),
        (query, key, value, *masked, *output, *shape, *places, rows),
        form.tiles(kernel.batch, kernel.heads, kernel.rows, rows),
        form.cost(kernel.columns, kernel.depth, kernel.width, rows, target),
        form.scratch(kernel.columns, kernel.depth, kernel.width),
    )
    return PrintedStep(printed, group.outputs, "attention", group.origins, contraction_work(group))


def _heads_last(dtype: DType) -> Epilogue:
    """Stores element n of query m of a head to [batch, query, head, n]."""
    names = ("y0", "y1", "y2", "y3", "y4")  # the tensor, heads, strides over batch, head and query
    sizes = tuple(Parameter(name, "int64") for name in names[1:])

    def lines(acc: str, m: str, n: str, batch: str) -> Sequence[str]:
        return [
            f"p0 = int_div({batch}, y1)",
            f"store(y0, p0 * y2 + ({batch} - p0 * y1) * y3 + {m} * y4 + {n}, {acc})",
        ]

    return Epilogue((Parameter("y0", f"{dtype}*", noalias=True), *sizes), lines)


def _geometry(window: Window, spatial: Sequence[Dim], positions: Sequence[Dim]) -> list[Dim]:
    """For each axis the sizes of input, output and window, stride, dilation and padding before it."""
    return [
        size
        for axis in range(window.rank)
        for size in (
            *(spatial[axis], positions[axis], window.size[axis]),
            *(window.strides[axis], window.dilations[axis], window.before[axis]),
        )
    ]


@dataclass(frozen=True)
class _BatchAxis:
    """An axis of products; the strides count matrices of A and of B, 0 where one is used for all."""

    size: Dim
    a_stride: Dim
    b_stride: Dim


def _batch_axes(a: Sequence[Dim], b: Sequence[Dim]) -> list[_BatchAxis]:
    """The axes over which B varies too, neighbours joined where they can be; none where B has no batch."""
    rank = max(len(a), len(b))
    wide_a = (*(1 for _ in range(rank - len(a))), *a)
    wide_b = (*(1 for _ in range(rank - len(b))), *b)
    if all(size == 1 for size in wide_b):
        return []
    axes: list[_BatchAxis] = []
    a_stride: Dim = 1
    b_stride: Dim = 1
    for size_a, size_b in zip(reversed(wide_a), reversed(wide_b), strict=True):
        size = dims.broadcast(size_a, size_b)
        axis = _BatchAxis(size, a_stride * _varies(size_a, size), b_stride * _varies(size_b, size))
        a_stride, b_stride = a_stride * size_a, b_stride * size_b
        if size == 1:
            continue
        inner = axes[0] if axes else None
        if (
            inner is not None
            and axis.a_stride == inner.a_stride * inner.size
            and axis.b_stride == inner.b_stride * inner.size
        ):
            axes[0] = _BatchAxis(inner.size * size, inner.a_stride, inner.b_stride)
        else:
            axes.insert(0, axis)
    return axes or [_BatchAxis(1, 0, 0)]


def _varies(size: Dim, wide: Dim) -> Dim:
    """0 where an axis of `size` is used for all of an axis of `wide`, else 1."""
    if size == 1:
        return 0
    return 1 if size == wide else dims.minimum(1, size - 1)  # whether it is 1 shows when it runs
