"""Stored elements as LLVM sees them, and pointers to them as plain Python does. Imports no numba."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from llvmlite import ir

from onnxsmith_compiler.codegen import narrow_float
from onnxsmith_compiler.ir.dtype import DType


def storage_type(dtype: DType) -> ir.Type:
    """The LLVM type of one stored element; TypeError for strings and complex numbers."""
    if dtype.is_float and dtype.bits < 32:
        return narrow_float.STORAGE[dtype.name]
    if dtype.is_float:
        return ir.FloatType() if dtype.bits == 32 else ir.DoubleType()
    if not dtype.is_integer and dtype.kind != "bool":
        raise TypeError(f"kernels cannot address elements of type {dtype.name}")
    return ir.IntType(8 * dtype.itemsize)


@dataclass(frozen=True)
class ArrayPointer:
    """What a pointer is in plain Python: element `start` of a flat numpy array."""

    array: np.ndarray[Any, Any]
    start: int = 0


def array_pointer(pointer: Any) -> ArrayPointer:
    """`pointer` as an ArrayPointer; it may be a flat numpy array."""
    if isinstance(pointer, ArrayPointer):
        return pointer
    if pointer.ndim != 1:
        raise TypeError(f"a flat array stands for a pointer, not one of shape {pointer.shape}")
    return ArrayPointer(pointer)
