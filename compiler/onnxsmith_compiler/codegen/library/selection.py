"""Finding elements: those that are not zero, and boxes that no better box overlaps."""

from __future__ import annotations

from typing import Any

from numpy import float32, int64

from onnxsmith_compiler.codegen.intrinsics import load, scratch, store
from onnxsmith_compiler.codegen.order_keys import order_key_f32, sift_down
from onnxsmith_compiler.codegen.scalar import boolean, int_div, maximum, minimum

FIND_BLOCK = 4096
"""Elements of one tile of a search."""


def count_nonzero(ctx: Any, x: Any, counts: Any, size: Any, begin: Any, end: Any) -> Any:
    """counts[t] = how many of the 4096 elements of tile t are not zero."""
    for tile in range(begin, end):
        total = int64(0)
        for number in range(tile * 4096, minimum((tile + 1) * 4096, size)):
            if boolean(load(x, number)):
                total += 1
        store(counts, tile, total)
    return 0


def exclusive_sums(ctx: Any, counts: Any, starts: Any, total: Any, count: Any, begin: Any, end: Any) -> Any:
    """starts[t] = counts[0] + ... + counts[t - 1], and total[0] = the sum of all `count`."""
    running = int64(0)
    for number in range(count):
        here = load(counts, number)
        store(starts, number, running)
        running += here
    store(total, 0, running)
    return 0


def find_nonzero(ctx: Any, x: Any, starts: Any, found: Any, size: Any, begin: Any, end: Any) -> Any:
    """found = the positions of the elements that are not zero; those of tile t are written from starts[t] on."""
    for tile in range(begin, end):
        place = load(starts, tile)
        for number in range(tile * 4096, minimum((tile + 1) * 4096, size)):
            if boolean(load(x, number)):
                store(found, place, number)
                place += 1
    return 0


def suppress_boxes(
    ctx: Any,
    boxes: Any,
    scores: Any,
    iou_threshold: Any,
    score_threshold: Any,
    chosen: Any,
    counts: Any,
    classes: Any,
    count: Any,
    most: Any,
    has_threshold: Any,
    centered: Any,
    begin: Any,
    end: Any,
) -> Any:
    """Greedy selection of boxes for one batch and class a tile: ONNX NonMaxSuppression.

    The best boxes come first, of equal scores the one with the lower number. chosen[tile, :] are the boxes, at
    most `most` of the `count`, counts[tile] says how many.
    """
    keys = scratch(ctx, int64, 0)
    places = scratch(ctx, int64, count * 8)
    kept = scratch(ctx, float32, count * 16)
    limit = load(iou_threshold, 0)
    for tile in range(begin, end):
        batch = int_div(tile, classes)
        waiting = int64(0)
        for number in range(count):
            score = load(scores, tile * count + number)
            if has_threshold == 0 or score > load(score_threshold, 0):
                # the heap's top is the least key, of those the last place: both are turned around
                store(keys, waiting, -order_key_f32(score))
                store(places, waiting, -number)
                waiting += 1
        for root in range(int_div(waiting, 2) - 1, -1, -1):
            sift_down(keys, places, root, waiting)
        taken = int64(0)
        while waiting > 0 and taken < most:
            number = -load(places, 0)
            waiting -= 1
            store(keys, 0, load(keys, waiting))
            store(places, 0, load(places, waiting))
            sift_down(keys, places, 0, waiting)
            box = (batch * count + number) * 4
            a = load(boxes, box)
            b = load(boxes, box + 1)
            c = load(boxes, box + 2)
            d = load(boxes, box + 3)
            if centered != 0:
                left = a - c / float32(2)
                right = a + c / float32(2)
                top = b - d / float32(2)
                bottom = b + d / float32(2)
            else:
                top = minimum(a, c)
                bottom = maximum(a, c)
                left = minimum(b, d)
                right = maximum(b, d)
            area = (bottom - top) * (right - left)
            overlaps = False
            for other in range(taken):
                height = minimum(bottom, load(kept, other * 5 + 1)) - maximum(top, load(kept, other * 5))
                width = minimum(right, load(kept, other * 5 + 3)) - maximum(left, load(kept, other * 5 + 2))
                both = maximum(height, float32(0)) * maximum(width, float32(0))
                union = area + load(kept, other * 5 + 4) - both
                if both > float32(0) and both / union > limit:
                    overlaps = True
                    break
            if not overlaps:
                store(kept, taken * 5, top)
                store(kept, taken * 5 + 1, bottom)
                store(kept, taken * 5 + 2, left)
                store(kept, taken * 5 + 3, right)
                store(kept, taken * 5 + 4, area)
                store(chosen, tile * most + taken, number)
                taken += 1
        store(counts, tile, taken)
    return 0


def list_boxes(
    ctx: Any, chosen: Any, counts: Any, starts: Any, listed: Any, classes: Any, most: Any, begin: Any, end: Any
) -> Any:
    """listed[starts[tile] + i] = (batch, class, box) for the i-th box chosen for a tile, one batch and class."""
    for tile in range(begin, end):
        batch = int_div(tile, classes)
        first = load(starts, tile)
        for number in range(load(counts, tile)):
            store(listed, (first + number) * 3, batch)
            store(listed, (first + number) * 3 + 1, tile - batch * classes)
            store(listed, (first + number) * 3 + 2, load(chosen, tile * most + number))
    return 0
