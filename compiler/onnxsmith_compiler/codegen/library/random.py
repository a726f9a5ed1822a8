"""The process's sequence of seeds."""

from __future__ import annotations

from typing import Any

from onnxsmith_compiler.codegen.intrinsics import load, store
from onnxsmith_compiler.codegen.native_intrinsics import add_ordered


def draw_seed(ctx: Any, y: Any, begin: int, end: int) -> int:
    """y[0] = the state of the process's seeds, which moves on by SplitMix64's step."""
    store(y, 0, add_ordered(load(ctx, 5), 0, -7046029254386353131))
    return 0
