"""The largest elements, distinct elements and running totals along an axis.

`KEY` is put in by the call's variant: the function that makes an int64 key of an element (`codegen.order_keys`).
"""

from __future__ import annotations

from typing import Any

from numpy import float32, int64

from onnxsmith_compiler.codegen.intrinsics import load, offset, scratch, stack, store
from onnxsmith_compiler.codegen.order_keys import compare_items, order_key_f32, sift_down, sort_items
from onnxsmith_compiler.codegen.scalar import int_div, maximum, minimum, select, sum_step

KEY = order_key_f32
TYPE = float32
UNIT = 0
TOTAL = sum_step

CUMULATE_BLOCK = 256
"""Neighbouring running totals of one tile."""
EXCLUSIVE = False


def top_k(
    ctx: Any, x: Any, values: Any, places: Any, count: Any, k: Any, width: Any, flip: Any, begin: Any, end: Any
) -> Any:
    """The k best of the `count` elements along the middle axis of [outer, count, width], best first; a tile is a row.

    Best is the largest where `flip` is 0, the smallest where it is -1; of equal ones the first.
    """
    keys = scratch(ctx, int64, 0)
    order = scratch(ctx, int64, k * 8)
    for tile in range(begin, end):
        outer = int_div(tile, width)
        lane = tile - outer * width
        source = outer * count * width + lane
        for number in range(k):
            store(keys, number, KEY(load(x, source + number * width)) ^ flip)
            store(order, number, number)
        for root in range(int_div(k, 2) - 1, -1, -1):
            sift_down(keys, order, root, k)
        if k > 0:
            worst = load(keys, 0)
            for start in range(k, count, 32):
                stop = minimum(start + 32, count)
                # most blocks have nothing that is good enough, which one vectorised pass tells
                top = int64(-9223372036854775807 - 1)
                for number in range(start, stop):
                    top = maximum(top, KEY(load(x, source + number * width)) ^ flip)
                if top > worst:
                    for number in range(start, stop):
                        key = KEY(load(x, source + number * width)) ^ flip
                        if key > worst:
                            store(keys, 0, key)
                            store(order, 0, number)
                            sift_down(keys, order, 0, k)
                            worst = load(keys, 0)
        for last in range(k - 1, 0, -1):
            key = load(keys, last)
            place = load(order, last)
            store(keys, last, load(keys, 0))
            store(order, last, load(order, 0))
            store(keys, 0, key)
            store(order, 0, place)
            sift_down(keys, order, 0, last)
        target = outer * k * width + lane
        for number in range(k):
            place = load(order, number)
            store(values, target + number * width, load(x, source + place * width))
            store(places, target + number * width, place)
    return 0


def unique_items(
    ctx: Any,
    x: Any,
    total: Any,
    first: Any,
    inverse: Any,
    counts: Any,
    outer: Any,
    count: Any,
    width: Any,
    by_value: Any,
    begin: Any,
    end: Any,
) -> Any:
    """The distinct ones of the `count` items along the middle axis of [outer, count, width]; one tile.

    total[0] is how many there are. Group g is the item first[g] and counts[g] - 1 more, inverse[j] the group of
    item j. Groups are sorted by value, lexicographically, or where `by_value` is 0 by first occurrence.
    """
    length = outer * width
    keys = scratch(ctx, int64, 0)
    order = scratch(ctx, int64, count * length * 8)
    spare = scratch(ctx, int64, count * length * 8 + count * 8)
    for number in range(count):
        for block in range(outer):
            for lane in range(width):
                key = KEY(load(x, (block * count + number) * width + lane))
                store(keys, number * length + block * width + lane, key)
    sort_items(keys, length, order, spare, count)
    groups = int64(0)
    for rank in range(count):
        item = load(order, rank)
        if rank == 0 or compare_items(keys, load(order, rank - 1), item, length) != 0:
            store(first, groups, item)
            store(counts, groups, int64(0))
            groups += 1
        store(counts, groups - 1, load(counts, groups - 1) + 1)
        store(inverse, item, groups - 1)
    store(total, 0, groups)
    if by_value == 0:
        for number in range(count):
            store(order, number, int64(-1))
        for group in range(groups):
            store(order, load(first, group), load(counts, group))
        place = int64(0)
        for number in range(count):
            if load(order, number) >= 0:
                store(first, place, number)
                store(counts, place, load(order, number))
                store(spare, load(inverse, number), place)
                place += 1
        for number in range(count):
            store(inverse, number, load(spare, load(inverse, number)))
    return 0


def cumulate(ctx: Any, x: Any, y: Any, count: Any, width: Any, reverse: Any, begin: Any, end: Any) -> Any:
    """Running totals along the middle axis of [outer, count, width]; a tile is one outer and 256 of the width.

    `EXCLUSIVE`: without the element itself. `reverse`: from the end. The call's
    variant also puts in `TOTAL`, what a total and an element make, `TYPE`, the totals' type, and `UNIT`, the empty one.
    """
    totals = stack(TYPE, 256)
    blocks = int_div(width + 255, 256)
    for tile in range(begin, end):
        outer = int_div(tile, blocks)
        start = (tile - outer * blocks) * 256
        lanes = minimum(width - start, 256)
        for lane in range(lanes):
            store(totals, lane, TYPE(UNIT))
        for step in range(count):
            number = select(reverse != 0, count - 1 - step, step)
            source = offset(x, (outer * count + number) * width + start)
            target = offset(y, (outer * count + number) * width + start)
            for lane in range(lanes):
                before = load(totals, lane)
                after = TOTAL(before, load(source, lane))
                store(totals, lane, after)
                if EXCLUSIVE:
                    store(target, lane, before)
                else:
                    store(target, lane, after)
    return 0
