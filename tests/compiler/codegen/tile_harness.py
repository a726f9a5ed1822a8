"""Kernels of one register tile, and the table of rows that it reads."""

from __future__ import annotations

import re
from typing import Any

import numpy as np

from onnxsmith_compiler.codegen.source import KernelSource, Parameter
from onnxsmith_compiler.codegen.tile_shapes import TileShape

VECTOR_ON_STACK = re.compile(r"v?mov[ua]p[sd]\s+%[xyz]mm.*\(%rsp\)|st[rp]\s+q.*\[sp")
"""Assembly that spills a vector."""


def tile_source(shape: TileShape, resume: int = 0) -> KernelSource:
    """A kernel that calls the tile once; its parameters are the tile's up to `out`."""
    parameters = (
        Parameter("rows", "int64*"),
        Parameter("count", "int64"),
        Parameter("taps", "int64"),
        Parameter("depth", "int64"),
        Parameter("panel", f"{shape.panel_element}*"),
        Parameter("out", f"{shape.dtype}*"),
    )
    names = ", ".join(parameter.name for parameter in parameters)
    call = f"{shape.name}({names}, address(panel), 64, {resume})"
    text = f"def kernel(ctx, {names}, begin, end):\n    {call}\n    return 0\n"
    return KernelSource(f"{shape.name}{resume or ''}", text, parameters)


def row_addresses(a: np.ndarray[Any, Any], shape: TileShape) -> np.ndarray[Any, Any]:
    """The table of rows of a[row, tap, k]; entries past the last row repeat it."""
    rows, taps, _ = a.shape
    table = np.empty((taps, shape.table_stride), np.int64)
    for tap in range(taps):
        for row in range(shape.table_stride):
            table[tap, row] = a[min(row, rows - 1), tap].ctypes.data
    return table
