"""Reading a tensor between its elements: positions and weights along one axis, as scalar expressions.

A coordinate is a float32 or float64 expression in which element i of an axis stands at i.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from onnxsmith_compiler.ir import dtype as dtypes
from onnxsmith_compiler.ir import loop
from onnxsmith_compiler.ir.dim import Dim
from onnxsmith_compiler.ir.dtype import DType
from onnxsmith_compiler.ir.loop import Expr

Read = Callable[[tuple[Expr, ...]], Expr]
"""The element at int64 positions, one for each axis that is interpolated."""


@dataclass(frozen=True)
class Tap:
    """One element that an interpolation along an axis takes part of; `position` may lie outside the axis."""

    position: Expr
    weight: Expr


def number(value: Dim | float, dtype: DType) -> Expr:
    """A size, or a literal, as an expression of type `dtype`."""
    if isinstance(value, float) or (isinstance(value, int) and value in (0, 1)):
        return loop.const(value, dtype)
    exact = loop.IndexValue(dtypes.INT64, value)
    return exact if dtype is dtypes.INT64 else loop.apply("cast", exact, dtype=dtype)


def combine(function: str, left: Expr, right: Expr | Dim | float) -> Expr:
    """A function of two expressions of one type."""
    return loop.apply(function, left, right if isinstance(right, Expr) else number(right, left.dtype))


def compare(function: str, left: Expr, right: Expr | Dim | float) -> Expr:
    other = right if isinstance(right, Expr) else number(right, left.dtype)
    return loop.apply(function, left, other, dtype=dtypes.BOOL)


def choose(condition: Expr, left: Expr, right: Expr) -> Expr:
    return loop.apply("select", condition, left, right, dtype=left.dtype)


def to_position(coordinate: Expr) -> Expr:
    """A whole coordinate as int64."""
    return loop.apply("cast", coordinate, dtype=dtypes.INT64)


def clamped(position: Expr, extent: Dim) -> Expr:
    """The element of an axis of `extent` (not 0) that is nearest to `position`."""
    return combine("max", combine("min", position, extent - 1), 0)


def inside(position: Expr, extent: Dim) -> Expr:
    return loop.apply("and", compare("ge", position, 0), compare("lt", position, extent), dtype=dtypes.BOOL)


def nearest_tap(coordinate: Expr) -> tuple[Tap, ...]:
    """The element at a coordinate that has been rounded to a whole one."""
    return (Tap(to_position(coordinate), loop.const(1.0, coordinate.dtype)),)


def linear_taps(coordinate: Expr) -> tuple[Tap, ...]:
    """The elements on both sides of a coordinate."""
    floor = loop.apply("floor", coordinate)
    part = combine("sub", coordinate, floor)
    first = to_position(floor)
    one = loop.const(1.0, coordinate.dtype)
    return Tap(first, combine("sub", one, part)), Tap(combine("add", first, 1), part)


def cubic_taps(coordinate: Expr, a: float) -> tuple[Tap, ...]:
    """The four elements around a coordinate, weighted by the cubic convolution kernel with parameter `a`.

    R. Keys, "Cubic convolution interpolation for digital image processing", 1981, equation 4.
    """
    floor = loop.apply("floor", coordinate)
    part = combine("sub", coordinate, floor)
    first = to_position(floor)
    rest = combine("sub", loop.const(1.0, coordinate.dtype), part)
    weights = (
        _outer_cubic(combine("add", part, 1.0), a),
        _inner_cubic(part, a),
        _inner_cubic(rest, a),
        _outer_cubic(combine("add", rest, 1.0), a),
    )
    return tuple(Tap(combine("add", first, shift - 1), weight) for shift, weight in enumerate(weights))


def _inner_cubic(distance: Expr, a: float) -> Expr:
    """The kernel at distances of 0 to 1."""
    slope = combine("sub", combine("mul", distance, a + 2.0), a + 3.0)
    return combine("add", combine("mul", slope, combine("mul", distance, distance)), 1.0)


def _outer_cubic(distance: Expr, a: float) -> Expr:
    """The kernel at distances of 1 to 2."""
    value = combine("sub", combine("mul", distance, a), 5.0 * a)
    value = combine("add", combine("mul", value, distance), 8.0 * a)
    return combine("sub", combine("mul", value, distance), 4.0 * a)


def linear_filter(distance: Expr) -> Expr:
    """The weight of an element at `distance` (of either sign): a triangle over -1 to 1."""
    size = loop.apply("abs", distance)
    return combine("max", combine("sub", loop.const(1.0, distance.dtype), size), 0.0)


def cubic_filter(distance: Expr, a: float) -> Expr:
    """The cubic convolution kernel over -2 to 2."""
    size = loop.apply("abs", distance)
    outer = choose(compare("lt", size, 2.0), _outer_cubic(size, a), loop.const(0.0, distance.dtype))
    return choose(compare("le", size, 1.0), _inner_cubic(size, a), outer)


def without_outside(taps: Sequence[Tap], extent: Dim) -> tuple[Tap, ...]:
    """The taps with no weight outside the axis, and weights that add up to 1 (to 0 where all are outside)."""
    zero = loop.const(0.0, taps[0].weight.dtype)
    weights = [choose(inside(tap.position, extent), tap.weight, zero) for tap in taps]
    total = weights[0]
    for weight in weights[1:]:
        total = combine("add", total, weight)
    total = choose(compare("eq", total, 0.0), loop.const(1.0, total.dtype), total)
    return tuple(Tap(tap.position, combine("div", weight, total)) for tap, weight in zip(taps, weights, strict=True))


def interpolate(read: Read, axes: Sequence[Sequence[Tap]], positions: tuple[Expr, ...] = ()) -> Expr:
    """The weighted sum of the elements under all combinations of the axes' taps."""
    if not axes:
        return read(positions)
    terms = []
    for tap in axes[0]:
        value = interpolate(read, axes[1:], (*positions, tap.position))
        whole = len(axes[0]) == 1 and isinstance(tap.weight, loop.Const)
        terms.append(value if whole else combine("mul", converted(value, tap.weight.dtype), tap.weight))
    total = terms[0]
    for term in terms[1:]:
        total = combine("add", total, term)
    return total


def converted(value: Expr, dtype: DType) -> Expr:
    return value if value.dtype is dtype else loop.apply("cast", value, dtype=dtype)


def weight_type(dtype: DType) -> DType:
    """The float type in which elements of `dtype` are interpolated."""
    wide = dtype is dtypes.FLOAT64 or (dtype.is_integer and dtype.bits >= 32)
    return dtypes.FLOAT64 if wide else dtypes.FLOAT32
