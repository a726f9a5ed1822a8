"""Checks of sizes, axes and lengths that are given at run time, before anything relies on them."""

from __future__ import annotations

from typing import Any

from numpy import int64

from onnxsmith_compiler.codegen.intrinsics import load, scratch, store
from onnxsmith_compiler.codegen.scalar import int_div, maximum, minimum, select


def axis_mask(ctx: Any, axes: Any, mask: Any, count: Any, rank: Any, all_if_none: Any, begin: Any, end: Any) -> int:
    """mask[d] = whether axis d is among the `count` axes; all are where there are none and `all_if_none` is 1.

    Fault 1: an axis out of range. Fault 3: an axis named twice.
    """
    for place in range(rank):
        store(mask, place, select(count == 0, all_if_none, int64(0)))
    for number in range(count):
        axis = int64(load(axes, number))
        place = axis + select(axis < 0, rank, int64(0))
        store(ctx, 3, axis)
        store(ctx, 4, rank)
        if place < 0 or place >= rank:
            return 1
        if load(mask, place) != 0:
            return 3
        store(mask, place, 1)
    return 0


def kept_sizes(ctx: Any, mask: Any, sizes: Any, kept: Any, rank: Any, count: Any, begin: Any, end: Any) -> int:
    """kept = the sizes of the axes whose mask is 0. Fault 3: they are not `count`."""
    place = int64(0)
    for axis in range(rank):
        if load(mask, axis) == 0:
            if place < count:
                store(kept, place, load(sizes, axis))
            place += 1
    store(ctx, 3, place)
    store(ctx, 4, count)
    return 3 if place != count else 0


def widened_sizes(ctx: Any, mask: Any, sizes: Any, widened: Any, rank: Any, begin: Any, end: Any) -> int:
    """widened = 1 for each of `rank` axes whose mask is 1, and `sizes` in order for the others."""
    place = int64(0)
    for axis in range(rank):
        size = int64(1)
        if load(mask, axis) == 0:
            size = load(sizes, place)
            place += 1
        store(widened, axis, size)
    return 0


def slice_bounds(
    ctx: Any,
    starts: Any,
    ends: Any,
    axes: Any,
    steps: Any,
    sizes: Any,
    bounds: Any,
    count: Any,
    rank: Any,
    begin: Any,
    end: Any,
) -> int:
    """bounds[axis] = (first position, step, number of positions) of ONNX Slice of a tensor of `sizes`.

    Fault 1: an axis out of range. Fault 3: a step of 0.
    """
    for axis in range(rank):
        store(bounds, axis * 3, 0)
        store(bounds, axis * 3 + 1, 1)
        store(bounds, axis * 3 + 2, load(sizes, axis))
    for number in range(count):
        named = int64(load(axes, number))
        axis = named + select(named < 0, rank, int64(0))
        if axis < 0 or axis >= rank:
            store(ctx, 3, named)
            store(ctx, 4, rank)
            return 1
        step = int64(load(steps, number))
        if step == 0:
            store(ctx, 3, step)
            store(ctx, 4, number)
            return 3
        size = load(sizes, axis)
        low = select(step < 0, int64(-1), int64(0))
        first = int64(load(starts, number))
        last = int64(load(ends, number))
        first = minimum(maximum(first + select(first < 0, size, int64(0)), int64(0)), size + low)
        last = minimum(maximum(last + select(last < 0, size, int64(0)), low), size + low)
        # the quotient rounded up, of two numbers that have one sign
        length = select(step > 0, last - first, first - last)
        stride = select(step > 0, step, select(step == -9223372036854775807 - 1, 9223372036854775807, -step))
        positions = select(length > 0, int_div(length - 1, stride) + 1, int64(0))
        store(bounds, axis * 3, first)
        store(bounds, axis * 3 + 1, select(positions > 1, step, int64(1)))  # a large one would overflow
        store(bounds, axis * 3 + 2, positions)
    return 0


def split_sizes(ctx: Any, sizes: Any, checked: Any, count: Any, extent: Any, begin: Any, end: Any) -> int:
    """checked = sizes. Fault 3: one that is negative, or a sum that is not `extent`."""
    rest = extent
    for number in range(count):
        size = int64(load(sizes, number))
        store(ctx, 3, size)
        store(ctx, 4, extent)
        if size < 0 or size > rest:
            return 3
        rest -= size
        store(checked, number, size)
    store(ctx, 3, extent - rest)
    store(ctx, 4, extent)
    return 3 if rest != 0 else 0


def reshape_sizes(
    ctx: Any, wanted: Any, before: Any, resolved: Any, count: Any, rank: Any, allow_zero: Any, begin: Any, end: Any
) -> int:
    """resolved = the sizes that ONNX Reshape makes of `wanted` for a tensor of the sizes `before`.

    Fault 3: sizes that do not give the tensor's number of elements, or that are negative.
    """
    elements = int64(1)
    for axis in range(rank):
        elements *= load(before, axis)
    product = int64(1)
    missing: Any = int64(-1)
    for number in range(count):
        size = int64(load(wanted, number))
        if size == 0 and allow_zero == 0 and number < rank:
            size = load(before, number)
        store(resolved, number, size)
        if size == -1 and missing < 0:
            missing = number
        elif size < 0:
            store(ctx, 3, size)
            store(ctx, 4, elements)
            return 3
        else:
            product *= size
    if missing >= 0:
        size = int_div(elements, product)
        store(resolved, missing, size)
        product *= size
    store(ctx, 3, product)
    store(ctx, 4, elements)
    return 3 if product != elements else 0


def axis_sizes(ctx: Any, axis: Any, sizes: Any, parts: Any, rank: Any, begin: Any, end: Any) -> Any:
    """parts = the numbers of elements before, along and after the axis that element 0 of `axis` names.

    Fault 1: an axis out of range.
    """
    named = int64(load(axis, 0))
    place = named + select(named < 0, rank, int64(0))
    if place < 0 or place >= rank:
        store(ctx, 3, named)
        store(ctx, 4, rank)
        return 1
    before = int64(1)
    for number in range(place):
        before *= load(sizes, number)
    after = int64(1)
    for number in range(place + 1, rank):
        after *= load(sizes, number)
    store(parts, 0, before)
    store(parts, 1, load(sizes, place))
    store(parts, 2, after)
    return 0


def pad_amounts(ctx: Any, pads: Any, axes: Any, amounts: Any, count: Any, rank: Any, begin: Any, end: Any) -> Any:
    """amounts = the `rank` paddings before and then the `rank` after, 0 for axes that are not among the `count`.

    Fault 1: an axis out of range. Fault 3: an axis named twice.
    """
    named = scratch(ctx, int64, 0)
    for number in range(rank):
        store(named, number, 0)
        store(amounts, number, 0)
        store(amounts, rank + number, 0)
    for number in range(count):
        axis = int64(load(axes, number))
        place = axis + select(axis < 0, rank, int64(0))
        store(ctx, 3, axis)
        store(ctx, 4, rank)
        if place < 0 or place >= rank:
            return 1
        if load(named, place) != 0:
            return 3
        store(named, place, 1)
        store(amounts, place, load(pads, number))
        store(amounts, rank + place, load(pads, count + number))
    return 0
