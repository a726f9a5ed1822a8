"""Rearranging large numpy arrays without walking memory in strides."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np


def reshaped(array: np.ndarray, shape: Sequence[int]) -> np.ndarray:
    """As array.reshape(shape). Where that takes a copy, its memory keeps the order of the array's.

    numpy's own copy is in row-major order, for which a transposed array is read a cache line an element.
    """
    if array.size == 0 or array.flags.c_contiguous:
        return array.reshape(shape)
    groups = list(_common_groups(array.shape, shape))
    order = sorted(range(len(groups)), key=lambda number: -_stride(array, groups[number][0]))
    moved = array.transpose([axis for number in order for axis in groups[number][0]])
    merged = moved.reshape([shape[axis] for number in order for axis in groups[number][1]])
    position = {axis: place for place, axis in enumerate(axis for number in order for axis in groups[number][1])}
    return merged.transpose([position[axis] for axis in range(len(shape))])


def in_panels(matrices: np.ndarray, columns: int) -> np.ndarray:
    """[..., K, N] as panels [..., ceil(N / columns), K, columns], filled up with zero columns."""
    *batch, depth, width = matrices.shape
    whole, rest = divmod(width, columns)
    panels = np.empty((*batch, whole + bool(rest), depth, columns), matrices.dtype)
    split = reshaped(matrices[..., : whole * columns], (*batch, depth, whole, columns))
    panels[..., :whole, :, :] = split.swapaxes(-3, -2)
    if rest:
        panels[..., whole, :, :rest] = matrices[..., whole * columns :]
        panels[..., whole, :, rest:] = 0
    return panels


def _common_groups(before: Sequence[int], after: Sequence[int]) -> Iterator[tuple[list[int], list[int]]]:
    """The axes of two shapes of equally many elements, at least one, in the smallest runs that hold equally many."""
    i = j = 0
    while i < len(before) or j < len(after):
        start, end = (i, j), (1, 1)
        while end[0] != end[1] or start == (i, j):
            if i < len(before) and (end[0] <= end[1] or j == len(after)):
                end, i = (end[0] * before[i], end[1]), i + 1
            else:
                end, j = (end[0], end[1] * after[j]), j + 1
        yield list(range(start[0], i)), list(range(start[1], j))


def _stride(array: np.ndarray, axes: Sequence[int]) -> int:
    return max((abs(array.strides[axis]) for axis in axes if array.shape[axis] > 1), default=0)
