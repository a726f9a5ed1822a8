"""Pooling over regions of interest, and the adjoint of taking windows (ONNX RoiAlign, MaxRoiPool, Col2Im)."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from onnxsmith_compiler.ir import dim as dims
from onnxsmith_compiler.ir import dtype as dtypes
from onnxsmith_compiler.ir import loop
from onnxsmith_compiler.ir.atom import LoopIndex
from onnxsmith_compiler.ir.dim import Dim
from onnxsmith_compiler.ir.graph import Node, Relation, TensorType, Value
from onnxsmith_compiler.ops.base import Op, Shape, ShapeError, SizePair, Types, required
from onnxsmith_compiler.ops.builder import GraphBuilder
from onnxsmith_compiler.ops.lowering import LibraryCall
from onnxsmith_compiler.ops.windows import ChannelsFirst, TileColumns


@dataclass(frozen=True)
class RegionPool:
    """How regions are pooled to `height` x `width` elements each; their coordinates are multiplied by `scale`.

    `kind`: "avg" or "max" of `ratio` x `ratio` samples (as many as elements where it is 0), moved by half an element
    where `half_pixel`; or "roi_max": the largest of the elements, of regions rounded to whole ones.
    """

    kind: str
    height: int
    width: int
    scale: float
    ratio: int = 0
    half_pixel: bool = False

    @property
    def has_batches(self) -> bool:
        """Whether the numbers of the regions' images are an input of their own, not the first of five coordinates."""
        return self.kind != "roi_max"


@dataclass(frozen=True)
class PooledRegions(ChannelsFirst):
    """[N, C, H, W] pooled over regions [R, 4] (x1, y1, x2, y2) of the images [R]: [R, C, height, width].

    For "roi_max" the regions are [R, 5], an image's number before its coordinates. A fault where there is no image.
    """

    pool: RegionPool

    def infer(self, inputs: Types) -> tuple[TensorType, ...]:
        x, regions = required(inputs, 0), required(inputs, 1)
        if x.rank != 4 or regions.rank != 2:
            raise ShapeError(f"{x} cannot be pooled over regions {regions}: expected ranks 4 and 2")
        return (TensorType(x.dtype, (regions.shape[0], x.shape[1], self.pool.height, self.pool.width)),)

    def emit_channels_last(
        self, builder: GraphBuilder, tile_columns: TileColumns, x: Value, *rest: Value | None
    ) -> tuple[Value, ...]:
        return (builder.emit(PooledRegionsLast(self.pool), x, *rest),)


@dataclass(frozen=True)
class PooledRegionsLast(Op):
    """PooledRegions of [N, H, W, C]: [R, height, width, C]."""

    pool: RegionPool

    def infer(self, inputs: Types) -> tuple[TensorType, ...]:
        x, regions = required(inputs, 0), required(inputs, 1)
        return (TensorType(x.dtype, (regions.shape[0], self.pool.height, self.pool.width, x.shape[-1])),)

    def assumes(self, inputs: Types) -> Iterable[SizePair]:
        regions = required(inputs, 1).shape
        yield regions[1], 4 if self.pool.has_batches else 5, Relation.EQUAL
        if self.pool.has_batches:
            yield required(inputs, 2).size, regions[0], Relation.EQUAL

    def lower(self, node: Node) -> LibraryCall:
        x, regions, *batches = node.operands()
        images, height, width, channels = x.shape
        compute = x.dtype.compute
        sizes = (images, height, width, channels, self.pool.height, self.pool.width)
        tiles = regions.shape[0] * (self.pool.height * self.pool.width)
        if not self.pool.has_batches:
            return LibraryCall(
                "max_roi_pool",
                (x, regions, node.output, *sizes),
                tiles=tiles,
                cost=channels + 100,
                variant=(("REAL", compute.name), ("SCALE", repr(self.pool.scale))),
            )
        return LibraryCall(
            "roi_align",
            (x, regions, *batches, node.output, *sizes, self.pool.ratio),
            tiles=tiles,
            cost=channels * 2 + 100,
            scratch=channels * compute.itemsize,
            variant=(
                ("REAL", compute.name),
                ("SCALE", repr(self.pool.scale)),
                ("HALF_PIXEL", str(self.pool.half_pixel)),
                ("AVERAGE", str(self.pool.kind == "avg")),
            ),
        )


@dataclass(frozen=True)
class Col2Im(Op):
    """Blocks [N, C * taps, positions] added up where they lie in images: [N, C, image...].

    `block` are the sizes of a block, row-major in `taps`; `positions` how many blocks lie along each axis.
    """

    image: Shape
    block: Shape
    strides: tuple[int, ...]
    dilations: tuple[int, ...]
    before: tuple[int, ...]
    after: tuple[int, ...]

    def infer(self, inputs: Types) -> tuple[TensorType, ...]:
        x = required(inputs, 0)
        if x.rank != 3:
            raise ShapeError(f"blocks are {x}: expected rank 3")
        return (TensorType(x.dtype, (x.shape[0], self._channels(x), *self.image)),)

    def _channels(self, x: TensorType) -> Dim:
        return dims.floordiv(x.shape[1], dims.maximum(1, dims.product(self.block)))

    def _positions(self) -> Shape:
        counts = []
        for axis, size in enumerate(self.image):
            extent = (self.block[axis] - 1) * self.dilations[axis] + 1
            room = size + self.before[axis] + self.after[axis] - extent
            counts.append(dims.maximum(0, dims.floordiv(room, self.strides[axis]) + 1))
        return tuple(counts)

    def assumes(self, inputs: Types) -> Iterable[SizePair]:
        x = required(inputs, 0)
        yield x.shape[1], self._channels(x) * dims.product(self.block), Relation.EQUAL
        yield x.shape[2], dims.product(self._positions()), Relation.EQUAL

    def lower(self, node: Node) -> loop.Computation:
        (x,) = node.operands()
        axes = loop.axes_for(node.output.shape)
        batch, channel, *place = loop.index_of(axes)
        taps = tuple(LoopIndex(f"k{axis}", size) for axis, size in enumerate(self.block))
        tap = loop.index_of(taps)
        counts = self._positions()
        numbers: list[Dim] = []
        checks: list[loop.Expr] = []
        for axis, stride in enumerate(self.strides):
            start = place[axis] + self.before[axis] - tap[axis] * self.dilations[axis]
            rest = loop.IndexValue(dtypes.INT64, dims.modulo(start, stride))
            if rest.dim != 0:
                checks.append(loop.apply("eq", rest, loop.const(0, dtypes.INT64), dtype=dtypes.BOOL))
            numbers.append(dims.floordiv(start, stride))
        inside = loop.all_in_range(tuple(numbers), counts)
        guard = loop.conjunction([*checks, *([inside] if inside is not None else [])])
        row = channel * dims.product(self.block) + loop.linear_offset(self.block, tap)
        body = loop.load(x, (batch, row, loop.linear_offset(counts, tuple(numbers))))
        return loop.Computation(axes, body, taps, "sum", guard)
