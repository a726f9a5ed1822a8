"""Linear algebra that is no product: determinants."""

from __future__ import annotations

from typing import Any

from numpy import float64

from onnxsmith_compiler.codegen.intrinsics import load, offset, scratch, store


def determinant(ctx: Any, x: Any, y: Any, size: int, begin: int, end: int) -> int:
    """y[m] = the determinant of matrix m of `size` rows, by elimination with partial pivoting."""
    rows = scratch(ctx, float64, 0)
    for matrix in range(begin, end):
        origin = offset(x, matrix * size * size)
        for element in range(size * size):
            store(rows, element, load(origin, element))
        result = float64(1.0)
        for step in range(size):
            best = step
            for row in range(step + 1, size):
                if abs(load(rows, row * size + step)) > abs(load(rows, best * size + step)):
                    best = row
            pivot = load(rows, best * size + step)
            result *= pivot
            if best != step:
                result = -result
                for column in range(step, size):
                    held = load(rows, step * size + column)
                    store(rows, step * size + column, load(rows, best * size + column))
                    store(rows, best * size + column, held)
            if pivot == 0.0:
                break
            for row in range(step + 1, size):
                factor = load(rows, row * size + step) / pivot
                for column in range(step + 1, size):
                    value = load(rows, row * size + column) - factor * load(rows, step * size + column)
                    store(rows, row * size + column, value)
        store(y, matrix, result)
    return 0
