"""Routines that turn the scores of a block of queries into weights: the same in every kernel of attention."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from onnxsmith_compiler.codegen.kernel_function import Intrinsic
from onnxsmith_compiler.codegen.routines import printed_routine
from onnxsmith_compiler.codegen.tile_shapes import TILE_SHAPES

_EXPONENTIALS = {"float32": "exp_negative_f32", "float64": "exp_f64"}


def softmax_name(dtype: str, columns: int) -> str:
    return f"attention_softmax_{columns}_{dtype}"


def softmax(dtype: str, columns: int) -> Intrinsic:
    """The routine `attention_softmax_{columns}_{dtype}(weights, tops, scales, rows, blind, seen, pitch)`.

    Of `rows` rows of `weights`, `pitch` elements apart, it makes exponentials of the `seen` scores, filled up to whole
    vectors of `columns` with -inf, above the row's largest, and the reciprocals of their sums in `scales`. `tops` has
    the largest of each of `columns` lanes of a row, and is written over. The first `blind` rows see no key: their
    scale is 0, and so are their weights. A NaN among the scores need not be the largest: its own weight is NaN, and so
    is their sum. One step after the other for all rows, so that the processor can overlap rows.
    """
    text = f"""
def kernel(weights, tops, scales, rows, blind, seen, pitch):
    for i in range(rows):
        largest = -{dtype}(inf)
        for j in range({columns}):
            largest = maximum(largest, load(tops, i * {columns} + j))
        store(scales, i, select(i >= blind, largest, {dtype}(0.0)))
    for i in range(rows):
        out = offset(weights, i * pitch)
        lanes = offset(tops, i * {columns})
        largest = load(scales, i)
        for j in range({columns}):
            store(lanes, j, {dtype}(0.0))
        for first_key in range(0, seen, {columns}):
            for j in range({columns}):
                weight = {_EXPONENTIALS[dtype]}(load(out, first_key + j) - largest)
                store(out, first_key + j, weight)
                store(lanes, j, load(lanes, j) + weight)
    for i in range(rows):
        total = {dtype}(0.0)
        for j in range({columns}):
            total = sum_step(total, load(tops, i * {columns} + j))
        store(scales, i, select(i >= blind, {dtype}(1.0) / total, {dtype}(0.0)))
"""
    arguments = [f"{dtype}*", f"{dtype}*", f"{dtype}*", "int64", "int64", "int64", "int64"]
    return printed_routine(softmax_name(dtype, columns), arguments, text)


SOFTMAXES: Mapping[str, Intrinsic] = MappingProxyType(
    {
        softmax_name(dtype, columns): softmax(dtype, columns)
        for dtype, columns in sorted({(shape.dtype, shape.columns) for shape in TILE_SHAPES})
    }
)
"""Every such routine that printed kernels may call, by name."""
