"""Writing updates at positions of a tensor, in the order of the updates, so that results never depend on threads.

The call's variant puts in `REPLACES`, whether an update takes an element's place, and `COMBINED`, the function of the
element and the update that it becomes otherwise.
"""

from __future__ import annotations

from typing import Any

from onnxsmith_compiler.codegen.intrinsics import address, load, store
from onnxsmith_compiler.codegen.scalar import int_div, maximum, minimum

COPY_BLOCK = 16384
"""Elements of one tile of a copy."""
SCATTER_BLOCK = 4096
"""Neighbouring updates of one tile."""

REPLACES = False
COMBINED = maximum


def copy_elements(ctx: Any, x: Any, y: Any, size: Any, begin: Any, end: Any) -> Any:
    """y = x, in tiles of 16384 of the `size` elements; nothing is to do where they are the same memory."""
    if address(x) == address(y):
        return 0
    for number in range(begin * 16384, minimum(end * 16384, size)):
        store(y, number, load(x, number))
    return 0


def scatter_elements(
    ctx: Any, y: Any, positions: Any, updates: Any, count: Any, width: Any, begin: Any, end: Any
) -> Any:
    """y[positions[o, j, i]] takes updates[o, j, i] for j = 0 to count - 1 in turn; no position is met by two (o, i).

    A tile is one o and 4096 of the `width` i.
    """
    blocks = int_div(width + 4095, 4096)
    for tile in range(begin, end):
        outer = int_div(tile, blocks)
        start = (tile - outer * blocks) * 4096
        stop = minimum(start + 4096, width)
        for row in range(outer * count, (outer + 1) * count):
            for at in range(row * width + start, row * width + stop):
                place = load(positions, at)
                value = load(updates, at)
                if REPLACES:
                    store(y, place, value)
                else:
                    store(y, place, COMBINED(load(y, place), value))
    return 0


def scatter_slices(ctx: Any, y: Any, positions: Any, updates: Any, count: Any, width: Any, begin: Any, end: Any) -> Any:
    """y[positions[j] + i] takes updates[j, i] for j = 0 to count - 1 in turn; a tile is 4096 of the `width` i."""
    for tile in range(begin, end):
        start = tile * 4096
        stop = minimum(start + 4096, width)
        for row in range(count):
            first = load(positions, row)
            for number in range(start, stop):
                place = first + number
                value = load(updates, row * width + number)
                if REPLACES:
                    store(y, place, value)
                else:
                    store(y, place, COMBINED(load(y, place), value))
    return 0
