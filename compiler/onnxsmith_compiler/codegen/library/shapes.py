"""Checks of sizes, axes and lengths that are given at run time, before anything relies on them."""

from __future__ import annotations

from typing import Any

from numpy import int64

from onnxsmith_compiler.codegen.intrinsics import load, store
from onnxsmith_compiler.codegen.scalar import int_div, select


def axis_mask(ctx: Any, axes: Any, mask: Any, count: int, rank: int, all_if_none: int, begin: int, end: int) -> int:
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


def split_sizes(ctx: Any, sizes: Any, checked: Any, count: int, extent: int, begin: int, end: int) -> int:
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
    ctx: Any, wanted: Any, before: Any, resolved: Any, count: int, rank: int, allow_zero: int, begin: int, end: int
) -> int:
    """resolved = the sizes that ONNX Reshape makes of `wanted` for a tensor of the sizes `before`.

    Fault 3: sizes that do not give the tensor's number of elements, or that are negative.
    """
    elements = int64(1)
    for axis in range(rank):
        elements *= load(before, axis)
    product = int64(1)
    missing = int64(-1)
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
