"""Resampling a tensor along an axis; ONNX Resize and Upsample are one such step after another."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from onnxsmith_compiler.ir import dim as dims
from onnxsmith_compiler.ir import dtype as dtypes
from onnxsmith_compiler.ir import loop
from onnxsmith_compiler.ir.atom import LoopIndex
from onnxsmith_compiler.ir.dim import Dim
from onnxsmith_compiler.ir.dtype import DType
from onnxsmith_compiler.ir.graph import Node, Relation, TensorType, Value
from onnxsmith_compiler.ir.loop import Expr
from onnxsmith_compiler.ops import sampling
from onnxsmith_compiler.ops.base import Op, Shape, SizePair, Types, required
from onnxsmith_compiler.ops.sampling import Tap, choose, combine, compare, number


@dataclass(frozen=True)
class ResizedAxis:
    """An axis of the result with `size` elements, and the coordinates in the input at which they stand.

    `scale` is the element of the scales that belongs to the axis, None where the scale is the ratio of the sizes.
    `roi` are the elements of the region of interest. `repeat`, where it is not 0, says that each element of the
    input is repeated so many times: a nearest element found without floats.
    """

    axis: int
    size: Dim
    scale: int | None = None
    roi: tuple[int, int] = (0, 0)
    repeat: int = 0


@dataclass(frozen=True)
class Sampler:
    """How elements between those of the input are made.

    `coordinates`: ONNX's coordinate_transformation_mode. `kind`: "nearest", "linear" or "cubic" with parameter
    `cubic_a`. `rounding`: ONNX's nearest_mode, or "simple", which rounds up where an axis shrinks and else down.
    `exclude_outside`: only elements inside the input take part; else the outermost ones stand for those outside.
    """

    kind: str
    coordinates: str
    rounding: str = "round_prefer_floor"
    cubic_a: float = -0.75
    exclude_outside: bool = False

    @property
    def taps(self) -> int:
        """Elements that take part along an axis, without antialiasing."""
        return {"nearest": 1, "linear": 2, "cubic": 4}[self.kind]

    @property
    def support(self) -> int:
        """Half the width of the filter."""
        return self.taps // 2

    def coordinate_type(self, dtype: DType) -> DType:
        """The type of coordinates and weights for elements of `dtype`; what is nearest is found in float32."""
        return dtypes.FLOAT32 if self.kind == "nearest" else sampling.weight_type(dtype)

    def filter(self, distance: Expr) -> Expr:
        return sampling.linear_filter(distance) if self.kind == "linear" else self._cubic(distance)

    def _cubic(self, distance: Expr) -> Expr:
        return sampling.cubic_filter(distance, self.cubic_a)


@dataclass(frozen=True)
class _Mapping:
    """One axis while expressions are built: `extent` is its size in the input, `dtype` that of coordinates."""

    axis: ResizedAxis
    extent: Dim
    sampler: Sampler
    scales: Value | None
    roi: Value | None
    dtype: DType

    def scale(self) -> Expr:
        if self.axis.scale is None:
            return combine("div", number(self.axis.size, self.dtype), number(self.extent, self.dtype))
        assert self.scales is not None
        return self._element(self.scales, self.axis.scale)

    def _element(self, value: Value, position: int) -> Expr:
        element = loop.load(value, (position,))
        return element if element.dtype is self.dtype else loop.apply("cast", element, dtype=self.dtype)

    def _width(self) -> Expr:
        """The size of the axis in the result before it was made whole."""
        if self.axis.scale is None:
            return number(self.axis.size, self.dtype)
        return combine("mul", self.scale(), number(self.extent, self.dtype))

    def coordinate(self, position: Dim) -> Expr:
        """Where in the input element `position` of the result stands."""
        x = number(position, self.dtype)
        match self.sampler.coordinates:
            case "asymmetric":
                return combine("div", x, self.scale())
            case "half_pixel":
                return self._half_pixel(x)
            case "pytorch_half_pixel":
                zero = number(0.0, self.dtype)
                return choose(compare("gt", number(self.axis.size, dtypes.INT64), 1), self._half_pixel(x), zero)
            case "tf_half_pixel_for_nn":
                return combine("div", combine("add", x, 0.5), self.scale())
            case "half_pixel_symmetric":
                adjustment = combine("div", number(self.axis.size, self.dtype), self._width())
                center = combine("mul", number(self.extent, self.dtype), 0.5)
                offset = combine("mul", center, combine("sub", number(1.0, self.dtype), adjustment))
                return combine("sub", combine("add", offset, combine("div", combine("add", x, 0.5), self.scale())), 0.5)
            case "align_corners":
                return self._spread(x, number(self.extent - 1, self.dtype), number(0.0, self.dtype))
            case "tf_crop_and_resize":
                return self._cropped(x)
        raise ValueError(f"coordinate_transformation_mode is '{self.sampler.coordinates}'")

    def _half_pixel(self, x: Expr) -> Expr:
        return combine("sub", combine("div", combine("add", x, 0.5), self.scale()), 0.5)

    def _spread(self, x: Expr, length: Expr, single: Expr) -> Expr:
        """x moved so that the last element stands at `length`; `single` is where an only element stands."""
        width = self._width()
        is_single = compare("eq", width, 1.0)
        last = choose(is_single, number(1.0, self.dtype), combine("sub", width, 1.0))
        return choose(is_single, single, combine("div", combine("mul", x, length), last))

    def _cropped(self, x: Expr) -> Expr:
        assert self.roi is not None
        start, end = (self._element(self.roi, element) for element in self.axis.roi)
        last = number(self.extent - 1, self.dtype)
        length = combine("mul", combine("sub", end, start), last)
        moved = self._spread(x, length, combine("mul", length, 0.5))
        return combine("add", moved, combine("mul", start, last))

    def taps(self, position: Dim) -> tuple[Tap, ...]:
        if self.axis.repeat:
            whole = number(dims.floordiv(position, self.axis.repeat), dtypes.INT64)
            return (Tap(whole, number(1.0, self.dtype)),)
        x = self.coordinate(position)
        if self.sampler.kind == "nearest":
            return sampling.nearest_tap(self._rounded(x))
        if self.sampler.kind == "linear":
            found = sampling.linear_taps(x)
        else:
            found = sampling.cubic_taps(x, self.sampler.cubic_a)
        return sampling.without_outside(found, self.extent) if self.sampler.exclude_outside else found

    def _rounded(self, x: Expr) -> Expr:
        floor = loop.apply("floor", x)
        part = combine("sub", x, floor)
        match self.sampler.rounding:
            case "floor":
                return floor
            case "ceil":
                return loop.apply("ceil", x)
            case "round_prefer_floor":
                return choose(compare("gt", part, 0.5), combine("add", floor, 1.0), floor)
            case "round_prefer_ceil":
                return choose(compare("ge", part, 0.5), combine("add", floor, 1.0), floor)
            case "simple":
                return choose(compare("lt", self.scale(), 1.0), loop.apply("ceil", x), floor)
        raise ValueError(f"nearest_mode is '{self.sampler.rounding}'")

    def source(self, position: Expr) -> Dim:
        """The element of the input that stands at `position`, or for it."""
        if self.axis.repeat:
            return loop.computed(position)
        return loop.computed(sampling.clamped(position, self.extent))


@dataclass(frozen=True)
class Resize(Op):
    """The input (input 0) with one axis resampled. Inputs 1 and 2: the scales and the region of interest, both 1-D.

    Either may be left out where the axis does not refer to it. What is interpolated has the type of the coordinates.
    """

    axis: ResizedAxis
    sampler: Sampler

    def permute_axes(self, order: Sequence[int]) -> Op:
        return replace(self, axis=replace(self.axis, axis=order.index(self.axis.axis)))

    def infer(self, inputs: Types) -> tuple[TensorType, ...]:
        x = required(inputs, 0)
        dtype = x.dtype if self.sampler.kind == "nearest" else self.sampler.coordinate_type(x.dtype)
        return (TensorType(dtype, _resized(x, self.axis)),)

    def assumes(self, inputs: Types) -> Iterable[SizePair]:
        return _elements_to_read(required(inputs, 0), self.axis)

    def lower(self, node: Node) -> loop.Computation:
        x, scales, roi = node.inputs
        assert x is not None
        place = self.axis.axis
        dtype = self.sampler.coordinate_type(x.dtype)
        mapping = _Mapping(self.axis, x.shape[place], self.sampler, scales, roi, dtype)
        axes = loop.axes_for(node.output.shape)
        index = loop.index_of(axes)

        def read(positions: tuple[Expr, ...]) -> Expr:
            return loop.load(x, (*index[:place], mapping.source(*positions), *index[place + 1 :]))

        return loop.Computation(axes, sampling.interpolate(read, [mapping.taps(index[place])]))


def _resized(x: TensorType, axis: ResizedAxis) -> Shape:
    return (*x.shape[: axis.axis], axis.size, *x.shape[axis.axis + 1 :])


def _elements_to_read(x: TensorType, axis: ResizedAxis) -> Iterable[SizePair]:
    """An axis without elements can only be resized to none."""
    yield dims.minimum(1, axis.size), x.shape[axis.axis], Relation.AT_MOST


@dataclass(frozen=True)
class Outside(Op):
    """Whether each element of one axis of the result, bool [size], stands outside the input.

    `extent`: the axis's size in the input. Inputs 0 and 1: the scales and the region of interest, as in Resize.
    """

    axis: ResizedAxis
    sampler: Sampler
    extent: Dim

    def infer(self, inputs: Types) -> tuple[TensorType, ...]:
        return (TensorType(dtypes.BOOL, (self.axis.size,)),)

    def lower(self, node: Node) -> loop.Computation:
        scales, roi = node.inputs
        mapping = _Mapping(self.axis, self.extent, self.sampler, scales, roi, dtypes.FLOAT32)
        axes = loop.axes_for(node.output.shape)
        x = mapping.coordinate(loop.index_of(axes)[0])
        last = number(self.extent - 1, x.dtype)
        outside = loop.apply("or", compare("lt", x, 0.0), compare("gt", x, last), dtype=dtypes.BOOL)
        return loop.Computation(axes, outside)


@dataclass(frozen=True)
class FilterWeights(Op):
    """The antialiasing filter for one axis: [taps, size] weights, not yet made to add up to 1.

    The filter is stretched by max(1, 1 / scale). Tap t of element o stands at `_first(o) + t`.
    `extent`: the axis's size in the input. Inputs 0 and 1: the scales and the region of interest, as in Resize.
    """

    axis: ResizedAxis
    sampler: Sampler
    extent: Dim
    taps: Dim
    dtype: DType

    def infer(self, inputs: Types) -> tuple[TensorType, ...]:
        return (TensorType(self.dtype, (self.taps, self.axis.size)),)

    def lower(self, node: Node) -> loop.Computation:
        scales, roi = node.inputs
        mapping = _Mapping(self.axis, self.extent, self.sampler, scales, roi, self.dtype)
        axes = loop.axes_for(node.output.shape)
        tap, element = loop.index_of(axes)
        position = combine("add", _first(mapping, element), tap)
        distance = combine("sub", loop.apply("cast", position, dtype=self.dtype), mapping.coordinate(element))
        weight = self.sampler.filter(combine("mul", distance, _shrinking(mapping)))
        if self.sampler.exclude_outside:
            weight = choose(sampling.inside(position, self.extent), weight, number(0.0, self.dtype))
        return loop.Computation(axes, weight)


def _shrinking(mapping: _Mapping) -> Expr:
    """The scale, at most 1."""
    return combine("min", mapping.scale(), 1.0)


def _first(mapping: _Mapping, element: Dim) -> Expr:
    """The position of the first tap of an element of the result."""
    half = combine("div", number(float(mapping.sampler.support), mapping.dtype), _shrinking(mapping))
    return sampling.to_position(loop.apply("ceil", combine("sub", mapping.coordinate(element), half)))


_MOST_UNROLLED = 16
"""Taps of a filter up to this many are written out, so that the loop along the innermost axis is the result's."""


@dataclass(frozen=True)
class FilterAxis(Op):
    """The input (input 0) with one axis resampled by weights [taps, size] (input 1), as of FilterWeights.

    Inputs 2 and 3: the scales and the region of interest.
    """

    axis: ResizedAxis
    sampler: Sampler

    def permute_axes(self, order: Sequence[int]) -> Op:
        return replace(self, axis=replace(self.axis, axis=order.index(self.axis.axis)))

    def infer(self, inputs: Types) -> tuple[TensorType, ...]:
        return (TensorType(required(inputs, 1).dtype, _resized(required(inputs, 0), self.axis)),)

    def assumes(self, inputs: Types) -> Iterable[SizePair]:
        return _elements_to_read(required(inputs, 0), self.axis)

    def lower(self, node: Node) -> loop.Computation:
        x, weights, scales, roi = node.inputs
        assert x is not None and weights is not None
        place = self.axis.axis
        mapping = _Mapping(self.axis, x.shape[place], self.sampler, scales, roi, weights.dtype)
        axes = loop.axes_for(node.output.shape)
        index = loop.index_of(axes)
        first = _first(mapping, index[place])

        def product(tap: Dim) -> Expr:
            position = mapping.source(combine("add", first, tap))
            element = loop.load(x, (*index[:place], position, *index[place + 1 :]))
            return combine("mul", sampling.converted(element, weights.dtype), loop.load(weights, (tap, index[place])))

        count = weights.shape[0]
        if not isinstance(count, int) or count > _MOST_UNROLLED:
            taps = (LoopIndex("t", count),)
            return loop.Computation(axes, product(loop.index_of(taps)[0]), taps, "sum")
        total = product(0)
        for tap in range(1, count):
            total = combine("add", total, product(tap))
        return loop.Computation(axes, total)
