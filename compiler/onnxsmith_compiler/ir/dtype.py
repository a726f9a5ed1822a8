"""Element types of tensors: ONNX's, with how each is stored and what its arithmetic is done in."""

from __future__ import annotations

from dataclasses import dataclass

import ml_dtypes
import numpy as np


@dataclass(frozen=True)
class DType:
    """One element type.

    `name` is ONNX's lower-case name (`float32` where ONNX says `float`), `onnx_code` its
    TensorProto.DataType, `bits` the width of one element, `kind` one of "float", "int", "uint",
    "bool", "complex", "string". `storage` is the numpy dtype of one stored element.
    """

    name: str
    onnx_code: int
    bits: int
    kind: str
    storage: np.dtype

    @property
    def itemsize(self) -> int:
        """Bytes one stored element takes (types below 8 bits are stored one to a byte)."""
        return self.storage.itemsize

    @property
    def is_float(self) -> bool:
        return self.kind == "float"

    @property
    def is_integer(self) -> bool:
        return self.kind in ("int", "uint")

    @property
    def compute(self) -> DType:
        """The type arithmetic is done in: floats narrower than 32 bits compute in float32."""
        return FLOAT32 if self.is_float and self.bits < 32 else self

    def __str__(self) -> str:
        return self.name

    def __repr__(self) -> str:
        return self.name


def _dtype(name: str, code: int, bits: int, kind: str, storage: type) -> DType:
    return DType(name, code, bits, kind, np.dtype(storage))


FLOAT32 = _dtype("float32", 1, 32, "float", np.float32)
UINT8 = _dtype("uint8", 2, 8, "uint", np.uint8)
INT8 = _dtype("int8", 3, 8, "int", np.int8)
UINT16 = _dtype("uint16", 4, 16, "uint", np.uint16)
INT16 = _dtype("int16", 5, 16, "int", np.int16)
INT32 = _dtype("int32", 6, 32, "int", np.int32)
INT64 = _dtype("int64", 7, 64, "int", np.int64)
STRING = _dtype("string", 8, 0, "string", object)
BOOL = _dtype("bool", 9, 8, "bool", np.bool_)
FLOAT16 = _dtype("float16", 10, 16, "float", np.float16)
FLOAT64 = _dtype("float64", 11, 64, "float", np.float64)
UINT32 = _dtype("uint32", 12, 32, "uint", np.uint32)
UINT64 = _dtype("uint64", 13, 64, "uint", np.uint64)
COMPLEX64 = _dtype("complex64", 14, 64, "complex", np.complex64)
COMPLEX128 = _dtype("complex128", 15, 128, "complex", np.complex128)
BFLOAT16 = _dtype("bfloat16", 16, 16, "float", ml_dtypes.bfloat16)
FLOAT8E4M3FN = _dtype("float8e4m3fn", 17, 8, "float", ml_dtypes.float8_e4m3fn)
FLOAT8E4M3FNUZ = _dtype("float8e4m3fnuz", 18, 8, "float", ml_dtypes.float8_e4m3fnuz)
FLOAT8E5M2 = _dtype("float8e5m2", 19, 8, "float", ml_dtypes.float8_e5m2)
FLOAT8E5M2FNUZ = _dtype("float8e5m2fnuz", 20, 8, "float", ml_dtypes.float8_e5m2fnuz)
UINT4 = _dtype("uint4", 21, 4, "uint", ml_dtypes.uint4)
INT4 = _dtype("int4", 22, 4, "int", ml_dtypes.int4)
FLOAT4E2M1 = _dtype("float4e2m1", 23, 4, "float", ml_dtypes.float4_e2m1fn)
FLOAT8E8M0 = _dtype("float8e8m0", 24, 8, "float", ml_dtypes.float8_e8m0fnu)
UINT2 = _dtype("uint2", 25, 2, "uint", ml_dtypes.uint2)
INT2 = _dtype("int2", 26, 2, "int", ml_dtypes.int2)

ALL = (
    FLOAT32, UINT8, INT8, UINT16, INT16, INT32, INT64, STRING, BOOL, FLOAT16, FLOAT64, UINT32, UINT64,
    COMPLEX64, COMPLEX128, BFLOAT16, FLOAT8E4M3FN, FLOAT8E4M3FNUZ, FLOAT8E5M2, FLOAT8E5M2FNUZ, UINT4, INT4,
    FLOAT4E2M1, FLOAT8E8M0, UINT2, INT2,
)  # fmt: skip
BY_NAME = {dtype.name: dtype for dtype in ALL}
BY_ONNX_CODE = {dtype.onnx_code: dtype for dtype in ALL}
_BY_STORAGE = {dtype.storage: dtype for dtype in ALL if dtype is not STRING}


def from_numpy(storage: np.dtype) -> DType:
    """The DType whose stored element is numpy's `storage`; KeyError where ONNX has none."""
    if storage.kind in "OUS":
        return STRING
    return _BY_STORAGE[np.dtype(storage)]
