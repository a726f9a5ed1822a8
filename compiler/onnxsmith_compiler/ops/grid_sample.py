"""Reading a tensor at positions that another one gives, between its elements (ONNX GridSample, DeformConv)."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from onnxsmith_compiler.ir import dim as dims
from onnxsmith_compiler.ir import dtype as dtypes
from onnxsmith_compiler.ir import loop
from onnxsmith_compiler.ir.dim import Dim
from onnxsmith_compiler.ir.dtype import DType
from onnxsmith_compiler.ir.graph import Node, Relation, TensorType, Value
from onnxsmith_compiler.ir.loop import Expr
from onnxsmith_compiler.ops import sampling
from onnxsmith_compiler.ops.base import Op, Shape, ShapeError, SizePair, Types, required
from onnxsmith_compiler.ops.builder import GraphBuilder
from onnxsmith_compiler.ops.cast import Cast
from onnxsmith_compiler.ops.contraction import MatMul, convolution_pairs
from onnxsmith_compiler.ops.packed import Window
from onnxsmith_compiler.ops.sampling import Read, Tap, choose, combine, compare, number
from onnxsmith_compiler.ops.view import Reshape, Transpose
from onnxsmith_compiler.ops.windows import ChannelsFirst, TileColumns

_CUBIC_A = -0.75


@dataclass(frozen=True)
class GridSampler:
    """`kind`: "nearest", "linear" or "cubic". `padding`, of what lies outside: "zeros", "border" or "reflection".

    `align_corners`: -1 and 1 are the centres of the first and the last element, else their outer edges.
    """

    kind: str
    padding: str
    align_corners: bool


@dataclass(frozen=True)
class GridSample(ChannelsFirst):
    """[N, C, spatial...] at the positions of a grid [N, positions..., axes], the last axis first: [N, C, positions...].

    What is interpolated has at least the precision of float32.
    """

    sampler: GridSampler

    def infer(self, inputs: Types) -> tuple[TensorType, ...]:
        x, grid = required(inputs, 0), required(inputs, 1)
        if x.rank < 3 or grid.rank != x.rank:
            raise ShapeError(f"{x} cannot be sampled by a grid {grid}: expected both of one rank, at least 3")
        return (TensorType(_result(self.sampler, x, grid), (*x.shape[:2], *grid.shape[1:-1])),)

    def emit_channels_last(
        self, builder: GraphBuilder, tile_columns: TileColumns, x: Value, *rest: Value | None
    ) -> tuple[Value, ...]:
        (grid,) = rest
        return (builder.emit(GridSampleLast(self.sampler), x, grid),)


def _result(sampler: GridSampler, x: TensorType, grid: TensorType) -> DType:
    return x.dtype if sampler.kind == "nearest" else _coordinate_type(x, grid)


def _coordinate_type(x: TensorType, grid: TensorType) -> DType:
    wide = dtypes.FLOAT64 in (sampling.weight_type(x.dtype), grid.dtype)
    return dtypes.FLOAT64 if wide else dtypes.FLOAT32


@dataclass(frozen=True)
class GridSampleLast(Op):
    """GridSample of [N, spatial..., C]: [N, positions..., C]."""

    sampler: GridSampler

    def infer(self, inputs: Types) -> tuple[TensorType, ...]:
        x, grid = required(inputs, 0), required(inputs, 1)
        return (TensorType(_result(self.sampler, x, grid), (x.shape[0], *grid.shape[1:-1], x.shape[-1])),)

    def assumes(self, inputs: Types) -> Iterable[SizePair]:
        x, grid = required(inputs, 0), required(inputs, 1)
        yield x.shape[0], grid.shape[0], Relation.EQUAL
        yield grid.shape[-1], x.rank - 2, Relation.EQUAL
        yield from elements_to_read(x.shape[1:-1], grid.size * x.shape[-1])

    def lower(self, node: Node) -> loop.Computation:
        x, grid = node.operands()
        dtype = _coordinate_type(x.type, grid.type)
        spatial = x.shape[1:-1]
        axes = loop.axes_for(node.output.shape)
        index = loop.index_of(axes)
        taps, paddings = [], []
        for axis, extent in enumerate(spatial):
            place = loop.load(grid, (*index[:-1], len(spatial) - 1 - axis))
            padding = _Padding(self.sampler, extent, dtype)
            taps.append(padding.taps(sampling.converted(place, dtype)))
            paddings.append(padding)

        def read(positions: tuple[Expr, ...]) -> Expr:
            if self.sampler.padding == "zeros":
                return read_or_zero(x, index[0], positions, index[-1])
            places = (padding.position(p) for padding, p in zip(paddings, positions, strict=True))
            return loop.load(x, (index[0], *map(loop.computed, places), index[-1]))

        return loop.Computation(axes, sampling.interpolate(read, taps))


def elements_to_read(spatial: Shape, results: Dim) -> Iterable[SizePair]:
    """Without elements there is nothing to sample."""
    for extent in spatial:
        yield dims.minimum(1, results), extent, Relation.AT_MOST


def read_or_zero(x: Value, batch: Dim, positions: Sequence[Expr], channel: Dim) -> Expr:
    """The element of x [N, spatial..., C] at these positions, 0 where they lie outside."""
    spatial = x.shape[1:-1]
    checks = [sampling.inside(position, extent) for position, extent in zip(positions, spatial, strict=True)]
    places = [sampling.clamped(position, extent) for position, extent in zip(positions, spatial, strict=True)]
    element = loop.load(x, (batch, *map(loop.computed, places), channel))
    condition = loop.conjunction(checks)
    assert condition is not None
    return choose(condition, element, loop.const(0, element.dtype))


@dataclass(frozen=True)
class _Padding:
    """One axis of the input while expressions are built: `extent` is its size, `dtype` that of coordinates."""

    sampler: GridSampler
    extent: Dim
    dtype: DType

    def taps(self, place: Expr) -> tuple[Tap, ...]:
        """The elements that take part for the normalised position `place`."""
        x = self._within(self._coordinate(place))
        if self.sampler.kind == "nearest":
            return sampling.nearest_tap(x)
        return sampling.linear_taps(x) if self.sampler.kind == "linear" else sampling.cubic_taps(x, _CUBIC_A)

    def _coordinate(self, place: Expr) -> Expr:
        moved = combine("add", place, 1.0)
        if self.sampler.align_corners:
            x = combine("mul", combine("mul", moved, 0.5), number(self.extent - 1, self.dtype))
        else:
            x = combine("mul", combine("sub", combine("mul", moved, number(self.extent, self.dtype)), 1.0), 0.5)
        return loop.apply("round", x) if self.sampler.kind == "nearest" else x

    def _bounds(self) -> tuple[Expr, Expr]:
        """Where the input begins and ends."""
        last = number(self.extent - 1, self.dtype)
        if self.sampler.align_corners:
            return number(0.0, self.dtype), last
        return number(-0.5, self.dtype), combine("add", last, 0.5)

    def _within(self, x: Expr) -> Expr:
        """A coordinate brought into the input, but where what lies outside is zero.

        For "cubic" the border stands for each tap that lies outside, as in PyTorch, not for the coordinate.
        """
        if self.sampler.padding == "zeros" or (self.sampler.kind, self.sampler.padding) == ("cubic", "border"):
            return x
        low, high = self._bounds()
        outside = loop.apply("or", compare("lt", x, low), compare("gt", x, high), dtype=dtypes.BOOL)
        if self.sampler.padding == "border":
            last = number(self.extent - 1, self.dtype)
            return choose(outside, combine("max", combine("min", x, last), 0.0), x)
        return choose(outside, self._reflected(x), x)

    def _reflected(self, x: Expr) -> Expr:
        """x reflected at both bounds as often as needed; the lower one where they are the same."""
        low, high = self._bounds()
        length = combine("sub", high, low)
        length = combine("max", length, 1e-30)
        distance = loop.apply("abs", combine("sub", x, low))
        turns = loop.apply("floor", combine("div", distance, length))
        rest = combine("sub", distance, combine("mul", turns, length))
        halves = combine("mul", turns, 0.5)
        is_even = compare("eq", loop.apply("floor", halves), halves)
        return choose(is_even, combine("add", low, rest), combine("sub", high, rest))

    def position(self, position: Expr) -> Expr:
        """The element that stands for the one at `position`."""
        if self.sampler.padding == "reflection":
            outside = loop.apply("not", sampling.inside(position, self.extent), dtype=dtypes.BOOL)
            folded = self._reflected(loop.apply("cast", position, dtype=self.dtype))
            position = choose(outside, sampling.to_position(folded), position)
        return sampling.clamped(position, self.extent)


@dataclass(frozen=True)
class DeformConv(ChannelsFirst):
    """Convolution with moved taps: x [N, C, spatial...], weights [O, C / groups, window...], offsets, mask or None.

    `offset_groups` is how many groups of channels have offsets of their own; see DeformColumns for their shapes.
    """

    window: Window
    groups: int
    offset_groups: int

    def infer(self, inputs: Types) -> tuple[TensorType, ...]:
        x, weights = required(inputs, 0), required(inputs, 1)
        if x.rank != weights.rank or x.rank != self.window.rank + 2:
            raise ShapeError(f"cannot convolve {x} with weights {weights}: the ranks differ")
        return (TensorType(x.dtype, (x.shape[0], weights.shape[0], *self.window.output(x.shape[2:]))),)

    def assumes(self, inputs: Types) -> Iterable[SizePair]:
        return convolution_pairs(inputs, self.window, self.groups)

    def emit_channels_last(
        self, builder: GraphBuilder, tile_columns: TileColumns, x: Value, *rest: Value | None
    ) -> tuple[Value, ...]:
        """A product of matrices for every group: [groups, N * positions, K] x [groups, K, O / groups]."""
        weights, offset, mask = rest
        assert weights is not None
        columns = builder.emit(DeformColumns(self.window, self.offset_groups), x, offset, mask)
        outputs, inputs = weights.shape[0], weights.shape[1]
        places = columns.shape[:-2]
        rows, depth = dims.product(places), self.window.taps * inputs
        each = dims.floordiv(outputs, self.groups)
        split = builder.emit(Reshape((rows, self.window.taps, self.groups, inputs)), columns)
        left = builder.emit(Reshape((self.groups, rows, depth)), builder.emit(Transpose((2, 0, 1, 3)), split))
        grouped = builder.emit(Reshape((self.groups, each, inputs, self.window.taps)), weights)
        right = builder.emit(Reshape((self.groups, depth, each)), builder.emit(Transpose((0, 3, 2, 1)), grouped))
        product = builder.emit(MatMul(), left, builder.emit(Cast(left.dtype), right))
        merged = builder.emit(Reshape((*places, outputs)), builder.emit(Transpose((1, 0, 2)), product))
        return (builder.emit(Cast(x.dtype), merged),)


@dataclass(frozen=True)
class DeformColumns(Op):
    """What a deformable convolution multiplies with its weights, [N, positions..., taps, C], for x [N, spatial..., C].

    Inputs: x, offsets [N, groups * taps * axes, positions...] of the taps, and a mask [N, groups * taps, positions...]
    or None. The channels fall into `groups` with offsets of their own. What lies outside x is zero.
    """

    window: Window
    groups: int

    def infer(self, inputs: Types) -> tuple[TensorType, ...]:
        x, offset = required(inputs, 0), required(inputs, 1)
        if offset.rank != x.rank or x.rank != self.window.rank + 2:
            raise ShapeError(f"offsets {offset} do not fit {x}: expected both of rank {self.window.rank + 2}")
        positions = self.window.output(x.shape[1:-1])
        return (TensorType(sampling.weight_type(x.dtype), (x.shape[0], *positions, self.window.taps, x.shape[-1])),)

    def assumes(self, inputs: Types) -> Iterable[SizePair]:
        x = required(inputs, 0)
        positions = self.window.output(x.shape[1:-1])
        taps = self.groups * self.window.taps
        yield dims.modulo(x.shape[-1], self.groups), 0, Relation.EQUAL
        yield from elements_to_read(x.shape[1:-1], dims.product(positions))
        for given, rows in zip(inputs[1:], (taps * self.window.rank, taps), strict=True):
            if given is not None:
                for size, wanted in zip(given.shape, (x.shape[0], rows, *positions), strict=True):
                    yield size, wanted, Relation.EQUAL

    def lower(self, node: Node) -> loop.Computation:
        x, offset, mask = node.inputs
        assert x is not None and offset is not None
        dtype = node.output.dtype
        axes = loop.axes_for(node.output.shape)
        batch, *positions, tap, channel = loop.index_of(axes)
        group = dims.floordiv(channel, dims.floordiv(x.shape[-1], self.groups))
        row = group * self.window.taps + tap
        starts = self.window.positions(tuple(positions), _unravel(tap, self.window.size))
        taps = []
        for axis, start in enumerate(starts):
            moved = loop.load(offset, (batch, row * self.window.rank + axis, *positions))
            taps.append(sampling.linear_taps(combine("add", number(start, dtype), sampling.converted(moved, dtype))))
        read: Read = lambda places: read_or_zero(x, batch, places, channel)  # noqa: E731
        value = sampling.interpolate(read, taps)
        if mask is not None:
            factor = loop.load(mask, (batch, row, *positions))
            value = combine("mul", value, sampling.converted(factor, dtype))
        return loop.Computation(axes, value)


def _unravel(position: Dim, shape: Sequence[int]) -> Shape:
    """The row-major index of element `position` of a tensor of `shape`."""
    index: list[Dim] = []
    for size in reversed(shape):
        index.insert(0, dims.modulo(position, size))
        position = dims.floordiv(position, size)
    return tuple(index)
