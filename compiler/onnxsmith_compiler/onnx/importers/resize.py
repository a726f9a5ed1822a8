"""Resize and Upsample: which axes are resampled, to which sizes, and in how many steps."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from onnxsmith_compiler.ir import dim as dims
from onnxsmith_compiler.ir import dtype as dtypes
from onnxsmith_compiler.ir.dim import Dim
from onnxsmith_compiler.ir.dtype import DType
from onnxsmith_compiler.ir.graph import Value
from onnxsmith_compiler.onnx.node_import import NodeImport
from onnxsmith_compiler.ops.base import normalize_axis
from onnxsmith_compiler.ops.resize import FilterAxis, FilterWeights, Outside, Resize, ResizedAxis, Sampler

_COORDINATES = frozenset(
    [
        "half_pixel",
        "half_pixel_symmetric",
        "pytorch_half_pixel",
        "align_corners",
        "asymmetric",
        "tf_crop_and_resize",
        "tf_half_pixel_for_nn",
    ]
)
_ROUNDINGS = frozenset(["round_prefer_floor", "round_prefer_ceil", "floor", "ceil"])
_POLICIES = frozenset(["stretch", "not_larger", "not_smaller"])

_EXACT_DENOMINATOR = 256
"""Scales with denominators up to this give the same size by integer arithmetic as in float32."""


@dataclass(frozen=True, eq=False)
class _Request:
    """What a node asks for: the axes to resample, `factors` their scales where known, and the tensors they refer to."""

    axes: tuple[ResizedAxis, ...]
    factors: tuple[float | None, ...]
    scales: Value | None
    roi: Value | None

    def pick(self, chosen: Sequence[bool]) -> _Request:
        axes = tuple(axis for axis, keep in zip(self.axes, chosen, strict=True) if keep)
        factors = tuple(factor for factor, keep in zip(self.factors, chosen, strict=True) if keep)
        return replace(self, axes=axes, factors=factors)


def resize(node: NodeImport) -> Value:
    sampler = _sampler(node)
    roi, scales, sizes = (_given(node, position) for position in ((-1, 1, -1) if node.version < 11 else (1, 2, 3)))
    if (scales is None) == (sizes is None):
        raise node.invalid("expected scales or sizes, one of the two")
    rank = node.input(0).rank
    axes = [normalize_axis(axis, rank) for axis in node.ints("axes") or range(rank)]
    if sampler.coordinates != "tf_crop_and_resize":
        roi = None
    elif roi is None:
        raise node.invalid(f"expected a region of interest of {2 * len(axes)} elements")
    else:
        roi = _vector(node, roi, 2 * len(axes), "elements of the region of interest")
    request = _scaled(node, axes, scales, roi) if scales is not None else _sized(node, axes, sizes, roi)
    return _resample(node, request, sampler)


def upsample(node: NodeImport) -> Value:
    """Opset 7 has the scales as an attribute, 9 as an input."""
    if node.version < 9:
        scales: Value | None = node.constant(node.floats("scales") or [], dtypes.FLOAT32)
    else:
        scales = node.input(1)
    sampler = Sampler(_kind(node), "asymmetric", "floor")
    return _resample(node, _scaled(node, list(range(node.input(0).rank)), scales, None), sampler)


def _given(node: NodeImport, position: int) -> Value | None:
    """An input, None where it was left out or has no elements."""
    value = node.optional(position) if position >= 0 else None
    return None if value is None or value.type.size == 0 else value


def _vector(node: NodeImport, value: Value, count: int, what: str) -> Value:
    """`value` as a tensor of `count` elements, which it must have."""
    if isinstance(value.type.size, int) and value.type.size != count:
        raise node.invalid(f"{value.type.size} {what}: expected {count}")
    return node.reshape(value, (count,))


def _kind(node: NodeImport) -> str:
    kind = node.string("mode", "nearest")
    if kind not in ("nearest", "linear", "cubic"):
        raise node.invalid(f"mode is '{kind}': expected nearest, linear or cubic")
    return kind


def _sampler(node: NodeImport) -> Sampler:
    if node.version < 11:
        return Sampler(_kind(node), "asymmetric", "simple")
    coordinates = node.string("coordinate_transformation_mode", "half_pixel")
    rounding = node.string("nearest_mode", "round_prefer_floor")
    if coordinates not in _COORDINATES:
        raise node.invalid(f"coordinate_transformation_mode is '{coordinates}'")
    if rounding not in _ROUNDINGS:
        raise node.invalid(f"nearest_mode is '{rounding}'")
    cubic_a = node.float("cubic_coeff_a", -0.75)
    return Sampler(_kind(node), coordinates, rounding, cubic_a, node.flag("exclude_outside"))


def _scaled(node: NodeImport, axes: Sequence[int], scales: Value | None, roi: Value | None) -> _Request:
    """The axes of a node that gives scales."""
    assert scales is not None
    scales = _vector(node, scales, len(axes), "scales")
    factors: list[float | None] = [None] * len(axes)
    if scales.data is not None:
        factors = [float(factor) for factor in scales.data.reshape(-1)]
        if any(factor is not None and not factor > 0 for factor in factors):
            raise node.invalid(f"scales are {factors}: expected positive ones")
    extents = [node.input(0).shape[axis] for axis in axes]
    sizes = [_scaled_size(extent, factor) for extent, factor in zip(extents, factors, strict=True)]
    if any(size is None for size in sizes):
        exact = node.cast(node.sizes_constant(extents), dtypes.FLOAT32)
        found = node.map("max", node.map("floor", node.mul(exact, node.cast(scales, dtypes.FLOAT32))), 0.0)
        sizes = [other if size is None else size for size, other in zip(sizes, _read_sizes(node, found), strict=True)]
    resized = [
        ResizedAxis(axis, size, number, (number, len(axes) + number))
        for number, (axis, size) in enumerate(zip(axes, sizes, strict=True))
        if size is not None
    ]
    moved = [factor != 1.0 or not _is_whole(roi, number) for number, factor in enumerate(factors)]
    return _Request(tuple(resized), tuple(factors), scales, roi).pick(moved)


def _scaled_size(extent: Dim, factor: float | None) -> Dim | None:
    """floor(extent * factor) as float32 has it; None where only a run can tell."""
    if factor is None:
        return None
    if isinstance(extent, int):
        return int(np.floor(np.float32(extent) * np.float32(factor)))
    numerator, denominator = factor.as_integer_ratio()
    return dims.floordiv(extent * numerator, denominator) if denominator <= _EXACT_DENOMINATOR else None


def _is_whole(roi: Value | None, number: int) -> bool:
    """Whether the region of interest is known to be all of axis `number` of those it names."""
    if roi is None:
        return True
    if roi.data is None:
        return False
    bounds = roi.data.reshape(-1).astype(np.float32)
    return bool(bounds[number] == 0 and bounds[len(bounds) // 2 + number] == 1)


def _read_sizes(node: NodeImport, sizes: Value) -> list[Dim]:
    """A tensor of whole numbers, not negative, as sizes."""
    whole = node.cast(sizes, dtypes.INT64)
    if whole.known is not None:
        return node.sizes(whole)
    count = whole.type.size
    assert isinstance(count, int)
    return [node.builder.late_symbol(whole, number, signed=False) for number in range(count)]


def _sized(node: NodeImport, axes: Sequence[int], sizes: Value | None, roi: Value | None) -> _Request:
    """The axes of a node that gives sizes."""
    assert sizes is not None
    sizes = _vector(node, sizes, len(axes), "sizes")
    policy = node.string("keep_aspect_ratio_policy", "stretch")
    if policy not in _POLICIES:
        raise node.invalid(f"keep_aspect_ratio_policy is '{policy}'")
    extents = [node.input(0).shape[axis] for axis in axes]
    scales: Value | None = None
    if policy == "stretch":
        wanted = node.sizes(sizes, "sizes")
    else:
        scales, wanted = _keep_aspect_ratio(node, policy, extents, sizes)
    if any(isinstance(size, int) and size < 0 for size in wanted):
        raise node.invalid(f"sizes are {wanted}: expected none below 0")
    resized = [
        ResizedAxis(axis, size, None if scales is None else number, (number, len(axes) + number))
        for number, (axis, size) in enumerate(zip(axes, wanted, strict=True))
    ]
    known = None if scales is None or scales.data is None else [float(factor) for factor in scales.data]
    factors = [
        size / extent if isinstance(size, int) and isinstance(extent, int) and extent else None
        for size, extent in zip(wanted, extents, strict=True)
    ]
    if scales is not None:
        factors = [None] * len(axes) if known is None else [known[number] for number in range(len(axes))]
    moved = [
        size != extent or not _is_whole(roi, number)
        for number, (size, extent) in enumerate(zip(wanted, extents, strict=True))
    ]
    return _Request(tuple(resized), tuple(factors), scales, roi).pick(moved)


def _keep_aspect_ratio(node: NodeImport, policy: str, extents: Sequence[Dim], sizes: Value) -> tuple[Value, list[Dim]]:
    """(one scale for every axis, the sizes that follow from it)."""
    old = node.cast(node.sizes_constant(extents), dtypes.FLOAT32)
    ratios = node.div(node.cast(sizes, dtypes.FLOAT32), old)
    scale = node.expand(node.reduce("min" if policy == "not_larger" else "max", ratios, [0]), (len(extents),))
    rounded = node.map("max", node.map("floor", node.add(node.mul(old, scale), 0.5)), 0.0)
    return scale, _read_sizes(node, rounded)


def _resample(node: NodeImport, request: _Request, sampler: Sampler) -> Value:
    """One axis after the other: that reads fewer elements than all at once, and what is nearest costs nothing."""
    x = y = node.input(0)
    antialias = sampler.kind != "nearest" and node.version >= 18 and node.flag("antialias")
    for axis, factor in sorted(zip(request.axes, request.factors, strict=True), key=_turn):
        if antialias and (factor is None or factor < 1):
            y = _filter_axis(node, y, axis, factor, request, sampler)
        else:
            axis = _with_repeat(axis, factor, x, sampler) if sampler.kind == "nearest" else axis
            y = node.emit(Resize(axis, sampler), y, request.scales, request.roi)
    if request.roi is not None:
        y = _extrapolate(node, y, request, sampler)
    return rounded(node, y, x.dtype)


def _turn(resized: tuple[ResizedAxis, float | None]) -> tuple[bool, int]:
    """When an axis is resized: first those that shrink, and of those that grow the innermost first."""
    axis, factor = resized
    grows = factor is None or factor >= 1
    return grows, -axis.axis if grows else axis.axis


_REPEATING = frozenset(
    [
        ("asymmetric", "floor"),
        ("asymmetric", "simple"),
        ("tf_half_pixel_for_nn", "floor"),
        *((mode, rounding) for mode in ("half_pixel", "pytorch_half_pixel", "half_pixel_symmetric")
          for rounding in ("round_prefer_floor", "round_prefer_ceil")),
    ]
)  # fmt: skip
"""Where an axis that is enlarged by a whole number repeats each element so often."""


def _with_repeat(axis: ResizedAxis, factor: float | None, x: Value, sampler: Sampler) -> ResizedAxis:
    times = dims.exact_quotient(axis.size, x.shape[axis.axis])
    if not isinstance(times, int) or times < 1 or (axis.scale is not None and factor != times):
        return axis
    mode = (sampler.coordinates, sampler.rounding)
    if mode in _REPEATING or (mode == ("asymmetric", "round_prefer_floor") and times == 2):
        return replace(axis, repeat=times)
    return axis


def _filter_axis(
    node: NodeImport, x: Value, axis: ResizedAxis, factor: float | None, request: _Request, sampler: Sampler
) -> Value:
    extent = x.shape[axis.axis]
    dtype = sampler.coordinate_type(x.dtype)
    taps = _filter_taps(node, axis, factor, extent, request.scales, sampler)
    weights = node.emit(FilterWeights(axis, sampler, extent, taps, dtype), request.scales, request.roi)
    total = node.reduce("sum", weights, [0])
    weights = node.div(weights, node.select(node.map("eq", total, 0.0), 1.0, total))
    return node.emit(FilterAxis(axis, sampler), x, weights, request.scales, request.roi)


def _filter_taps(
    node: NodeImport, axis: ResizedAxis, factor: float | None, extent: Dim, scales: Value | None, sampler: Sampler
) -> Dim:
    """How many elements a stretched filter can cover, and one to spare for rounding."""
    width = 2 * sampler.support
    if factor is not None:
        return int(width / min(1.0, factor)) + 2
    if axis.scale is None:
        return dims.maximum(width, dims.floordiv(width * extent, dims.maximum(1, axis.size))) + 2
    assert scales is not None
    scale = node.map("min", node.cast(scales, dtypes.FLOAT32), 1.0)
    covered = node.map("min", node.map("floor", node.div(node.constant(width, dtypes.FLOAT32), scale)), 2.0**31)
    return _read_sizes(node, node.add(covered, 2.0))[axis.scale]


def _extrapolate(node: NodeImport, y: Value, request: _Request, sampler: Sampler) -> Value:
    """The extrapolation value wherever a coordinate lies outside the input."""
    fill = node.constant(node.float("extrapolation_value", 0.0), y.dtype)
    for axis in request.axes:
        extent = node.input(0).shape[axis.axis]
        outside = node.emit(Outside(axis, sampler, extent), request.scales, request.roi)
        shape = tuple(axis.size if number == axis.axis else 1 for number in range(y.rank))
        y = node.select(node.reshape(outside, shape), fill, y)
    return y


def rounded(node: NodeImport, y: Value, dtype: DType) -> Value:
    """`y` as `dtype`: to integers rounded to nearest even, those out of range becoming the type's limits."""
    if y.dtype is dtype:
        return y
    if dtype.is_integer:
        limits = np.iinfo(dtype.storage)
        y = node.map("max", node.map("min", node.map("round", y), float(limits.max)), float(limits.min))
    return node.cast(y, dtype)
