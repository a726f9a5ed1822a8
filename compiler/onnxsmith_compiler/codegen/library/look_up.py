"""Values by key."""

from __future__ import annotations

from typing import Any

from numpy import int64

from onnxsmith_compiler.codegen.intrinsics import load, store
from onnxsmith_compiler.codegen.scalar import minimum, select


def look_up(ctx: Any, x: Any, keys: Any, values: Any, y: Any, count: Any, size: Any, begin: Any, end: Any) -> int:
    """y[i] = the value of the key that is x[i], else values[count]; `count` > 0 ascending keys. A tile is 1024."""
    for place in range(begin * 1024, minimum(end * 1024, size)):
        wanted = load(x, place)
        start: Any = int64(0)
        rest = count
        while rest > 1:
            half = rest >> 1
            start = select(load(keys, start + half) <= wanted, start + half, start)
            rest -= half
        store(y, place, load(values, select(load(keys, start) == wanted, start, count)))
    return 0
