"""Probabilities of classes from those of each pair of classes."""

from __future__ import annotations

from typing import Any

from numpy import float32, int64

from onnxsmith_compiler.codegen.intrinsics import load, offset, scratch, store
from onnxsmith_compiler.codegen.scalar import maximum, minimum


def couple_pairs(ctx: Any, pairs: Any, y: Any, rows: Any, count: Any, begin: Any, end: Any) -> int:
    """y [rows, count] of pairs [rows, count * (count - 1) / 2]; a tile is 16 rows.

    p minimises p' Q p over sums of 1: Q[i, i] is the sum of r[j, i]^2, Q[i, j] is -r[j, i] r[i, j]. Each step sets
    one p[i] to what is best given the others, and scales all back to the sum of 1.
    """
    q = scratch(ctx, float32, 0)
    qp = scratch(ctx, float32, count * count * 4)
    enough = float32(0.005) / float32(count)
    for row in range(begin * 16, minimum(end * 16, rows)):
        r = offset(pairs, row * int64(count * (count - 1) >> 1))
        p = offset(y, row * count)
        for i in range(count):
            store(q, i * count + i, float32(0))
            store(p, i, float32(1) / float32(count))
        pair = int64(0)
        for i in range(count - 1):
            for j in range(i + 1, count):
                first = load(r, pair)
                second = float32(1) - first
                store(q, i * count + i, load(q, i * count + i) + second * second)
                store(q, j * count + j, load(q, j * count + j) + first * first)
                store(q, i * count + j, -second * first)
                store(q, j * count + i, -second * first)
                pair += 1
        for _ in range(100):
            total = float32(0)
            for i in range(count):
                product = float32(0)
                for j in range(count):
                    product += load(q, i * count + j) * load(p, j)
                store(qp, i, product)
                total += load(p, i) * product
            error = float32(0)
            for i in range(count):
                error = maximum(error, maximum(load(qp, i) - total, total - load(qp, i)))
            if error < enough:
                break
            for i in range(count):
                diagonal = load(q, i * count + i)
                step = (total - load(qp, i)) / diagonal
                scale = float32(1) / (float32(1) + step)
                store(p, i, load(p, i) + step)
                total = (total + step * (step * diagonal + float32(2) * load(qp, i))) * scale * scale
                for j in range(count):
                    store(qp, j, (load(qp, j) + step * load(q, i * count + j)) * scale)
                    store(p, j, load(p, j) * scale)
    return 0
