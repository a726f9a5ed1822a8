"""Weights laid out for register tiles with numpy alone, for tests of the kernels that read them.

A panel holds `columns` columns of a matrix of K rows, dense, row by row: [K][columns]. The panels of a
matrix follow each other; the last one is filled up with zero columns.
"""

from __future__ import annotations

from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]


def pack_matmul(matrix: Array, columns: int) -> Array:
    """B of shape [..., K, N] as panels of shape [..., ceil(N / columns), K, columns], contiguous."""
    *batch, depth, width = matrix.shape
    panels = -(-width // columns)
    padded = np.zeros((*batch, depth, panels * columns), matrix.dtype)
    padded[..., :width] = matrix
    split = padded.reshape(*batch, depth, panels, columns)
    return np.ascontiguousarray(np.moveaxis(split, -2, -3))


def pack_conv(weights: Array, groups: int, columns: int) -> Array:
    """Weights [O, I / groups, *window] as panels [groups, ceil(O / groups / columns), K, columns].

    K runs over the window's positions in row-major order, then over the group's input channels, as the pixels
    of a channels-last image do.
    """
    outputs, inputs, *window = weights.shape
    by_group = weights.reshape(groups, outputs // groups, inputs, -1)
    matrix = by_group.transpose(0, 3, 2, 1).reshape(groups, int(np.prod(window)) * inputs, outputs // groups)
    return pack_matmul(matrix, columns)


def interleave(panels: Array) -> Array:
    """Panels [..., K, columns], K even, with element j of row 2i + 1 behind element j of row 2i."""
    return np.stack([panels[..., ::2, :], panels[..., 1::2, :]], -1).reshape(panels.shape)


def pack_depthwise(weights: Array) -> Array:
    """Depthwise weights [C * multiplier, 1, *window] as [*window, C * multiplier], contiguous."""
    return np.ascontiguousarray(np.moveaxis(weights[:, 0], 0, -1))
