"""Every name that a printed kernel may use."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import numpy as np

from onnxsmith_compiler.codegen.attention_softmax import SOFTMAXES
from onnxsmith_compiler.codegen.conversions import CONVERSIONS
from onnxsmith_compiler.codegen.depthwise_row_tile import DEPTHWISE_ROW_TILES
from onnxsmith_compiler.codegen.depthwise_tile import DEPTHWISE_TILES
from onnxsmith_compiler.codegen.intrinsics import INDEX_INTRINSICS, MEMORY_INTRINSICS
from onnxsmith_compiler.codegen.kernel_function import Intrinsic, Routine
from onnxsmith_compiler.codegen.native_intrinsics import SHARING_INTRINSICS
from onnxsmith_compiler.codegen.order_keys import ORDER_KEYS
from onnxsmith_compiler.codegen.pixel_routines import PIXEL_ROUTINES
from onnxsmith_compiler.codegen.row_tile import ROW_TILES
from onnxsmith_compiler.codegen.scalar import SCALAR_INTRINSICS
from onnxsmith_compiler.codegen.sweep_routines import SWEEP_ROUTINES
from onnxsmith_compiler.codegen.tap_addresses import TAP_ADDRESSES
from onnxsmith_compiler.codegen.tiles import TILES
from onnxsmith_compiler.codegen.transpose import TRANSPOSES
from onnxsmith_compiler.codegen.tree_steps import TREE_STEPS
from onnxsmith_compiler.codegen.vector_math import PARTIAL_MATH, VECTOR_MATH
from onnxsmith_compiler.codegen.winograd_transforms import WINOGRAD_TRANSFORMS
from onnxsmith_compiler.ir import dtype as dtypes

# Types that scalars are computed in are numpy's, so that `float32(x)` converts; the others are only stored.
_SCALAR_TYPES: dict[str, Any] = {
    "float32": np.float32,
    "float64": np.float64,
    "int8": np.int8,
    "int16": np.int16,
    "int32": np.int32,
    "int64": np.int64,
    "uint8": np.uint8,
    "uint16": np.uint16,
    "uint32": np.uint32,
    "uint64": np.uint64,
    "bool": np.bool_,
}
_STORAGE_TYPES: dict[str, Any] = {
    dtype.name: dtype for dtype in dtypes.ALL if dtype.name not in _SCALAR_TYPES and dtype.is_float
}
_BUILTINS: dict[str, Any] = {"range": range, "nan": float("nan"), "inf": float("inf")}

# Intrinsics and helpers are callable in plain Python, so one table serves compiled and uncompiled kernels.
KERNEL_NAMESPACE: Mapping[str, Any] = MappingProxyType(
    {
        **_SCALAR_TYPES,
        **_STORAGE_TYPES,
        **_BUILTINS,
        **MEMORY_INTRINSICS,
        **INDEX_INTRINSICS,
        **CONVERSIONS,
        **SCALAR_INTRINSICS,
        **VECTOR_MATH,
        **PARTIAL_MATH,
        **ORDER_KEYS,
        **TILES,
        **ROW_TILES,
        **DEPTHWISE_TILES,
        **DEPTHWISE_ROW_TILES,
        **SWEEP_ROUTINES,
        **TAP_ADDRESSES,
        **PIXEL_ROUTINES,
        **SOFTMAXES,
        **WINOGRAD_TRANSFORMS,
        **TRANSPOSES,
        **TREE_STEPS,
        **SHARING_INTRINSICS,
    }
)
ROUTINES: Mapping[str, Routine] = MappingProxyType(
    {
        name: function.routine
        for name, function in KERNEL_NAMESPACE.items()
        if isinstance(function, Intrinsic) and function.routine is not None
    }
)
"""The routines that printed kernels may call, by name."""
REFERENCE_NAMESPACE: Mapping[str, Any] = KERNEL_NAMESPACE


def define_kernel(text: str, filename: str = "<kernel>") -> Any:
    """The function `kernel` that `text` defines, its globals being the kernel namespace and no builtins.

    Raises ValueError where the text does not define it.
    """
    scope: dict[str, Any] = {"__builtins__": {}, **KERNEL_NAMESPACE}
    exec(compile(text, filename, "exec"), scope)
    if "kernel" not in scope:
        raise ValueError("the text of a kernel must define a function named kernel")
    return scope["kernel"]
