"""TensorProto and SparseTensorProto to numpy arrays, without copying what is stored as numpy stores it."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx

from onnxsmith_compiler.errors import ExternalDataError, InvalidTensor, UnsupportedFeature
from onnxsmith_compiler.ir import dtype as dt
from onnxsmith_compiler.ir.dtype import DType
from onnxsmith_compiler.onnx.external_data import ExternalData
from onnxsmith_compiler.onnx.limits import Budget
from onnxsmith_compiler.onnx.model import Array, SparseTensor
from onnxsmith_compiler.onnx.names import text
from onnxsmith_compiler.onnx.wire import DOUBLE_DATA, FLOAT_DATA, Payload, Stripped

_TYPED_FIELDS = ("float_data", "int32_data", "int64_data", "double_data", "uint64_data", "string_data")
_FIELD_OF = {
    dt.FLOAT32: "float_data",
    dt.COMPLEX64: "float_data",
    dt.FLOAT64: "double_data",
    dt.COMPLEX128: "double_data",
    dt.INT64: "int64_data",
    dt.UINT32: "uint64_data",
    dt.UINT64: "uint64_data",
    dt.STRING: "string_data",
}  # all others: int32_data
_FIELD_DTYPE: dict[str, np.dtype[Any]] = {
    "float_data": np.dtype("<f4"),
    "double_data": np.dtype("<f8"),
    "int32_data": np.dtype(np.int32),
    "int64_data": np.dtype(np.int64),
    "uint64_data": np.dtype(np.uint64),
}
_PAYLOAD_DTYPE = {FLOAT_DATA: "float_data", DOUBLE_DATA: "double_data"}
_MAX_ELEMENTS = 1 << 58  # 16 bytes each stay within an int64
_UNSIGNED: dict[int, np.dtype[Any]] = {1: np.dtype(np.uint8), 2: np.dtype(np.uint16)}


def element_type(code: int, owner: str) -> DType:
    """The DType of a TensorProto.DataType. Raises UnsupportedFeature."""
    if code not in dt.BY_ONNX_CODE:
        known = onnx.TensorProto.DataType.DESCRIPTOR.values_by_number
        name = known[code].name if code in known else str(code)
        raise UnsupportedFeature(f"{owner} has the unsupported element type {name}")
    return dt.BY_ONNX_CODE[code]


class TensorReader:
    """Reads the tensors of one model; `owner` names the tensor in errors."""

    def __init__(self, payloads: Stripped, external: ExternalData, budget: Budget) -> None:
        self._payloads = payloads
        self._external = external
        self._budget = budget

    def dense(self, tensor: onnx.TensorProto, owner: str) -> Array:
        """The tensor as an array of its DType's storage type, read-only where it is a view.

        Strings are str objects, or bytes where they are no UTF-8. Raises InvalidTensor, ExternalDataError,
        UnsupportedFeature and LimitExceeded.
        """
        dtype = element_type(tensor.data_type, owner)
        shape = self._shape(tensor.dims, owner)
        count = math.prod(shape)
        self._budget.spend_tensor(count * dtype.itemsize, owner)
        flat = self._elements(tensor, dtype, count, owner)
        if flat.size != count:
            raise InvalidTensor(f"{owner} has {flat.size} elements, dimensions {list(shape)} ask for {count}")
        return flat.reshape(shape)

    def sparse(self, tensor: onnx.SparseTensorProto, owner: str) -> SparseTensor:
        """A sparse tensor, its indices checked: ascending, without repetition, inside the dimensions."""
        shape = self._shape(tensor.dims, owner)
        size = math.prod(shape)
        values = self.dense(tensor.values, f"{owner} (values)")
        indices = self.dense(tensor.indices, f"{owner} (indices)")
        self._budget.spend_dense(size * values.dtype.itemsize, owner)
        if values.ndim != 1 or indices.dtype != np.int64:
            raise InvalidTensor(f"{owner} needs values of one dimension and int64 indices")
        linear = _linear_indices(indices.astype(np.int64, copy=False), values.size, shape, owner)
        outside = linear.size and (linear[0] < 0 or linear[-1] >= size)
        if outside or bool(np.any(linear[1:] <= linear[:-1])):
            raise InvalidTensor(f"{owner} has indices that are not ascending or not inside {list(shape)}")
        return SparseTensor(values, linear, shape)

    def _shape(self, dims: Iterable[int], owner: str) -> tuple[int, ...]:
        shape = tuple(dims)
        self._budget.check_rank(len(shape), owner)
        if any(size < 0 for size in shape):
            raise InvalidTensor(f"{owner} has a negative dimension: {list(shape)}")
        if math.prod(size or 1 for size in shape) > _MAX_ELEMENTS:  # numpy refuses it even where one size is 0
            raise InvalidTensor(f"{owner} has dimensions that are too large: {list(shape)}")
        return shape

    def _elements(self, tensor: onnx.TensorProto, dtype: DType, count: int, owner: str) -> Array:
        """All elements in one dimension."""
        typed = [field for field in _TYPED_FIELDS if len(getattr(tensor, field))]
        raw = tensor.HasField("raw_data") and (len(tensor.raw_data) > 0 or not typed)
        stripped = tensor.HasField("segment")
        external = tensor.data_location == onnx.TensorProto.EXTERNAL
        if len(typed) + raw + stripped + external > 1:
            raise InvalidTensor(f"{owner} has data in more than one field")
        if external:
            return self._external_elements(tensor, dtype, count, owner)
        if stripped:
            return self._stripped_elements(tensor.segment, dtype, count, owner)
        if raw:
            return _from_packed(np.frombuffer(tensor.raw_data, np.uint8), dtype, count, owner)
        if not typed:
            return np.empty(0, dtype.storage)
        return _from_field(typed[0], getattr(tensor, typed[0]), dtype, count, owner)

    def _external_elements(self, tensor: onnx.TensorProto, dtype: DType, count: int, owner: str) -> Array:
        if dtype is dt.STRING:
            raise ExternalDataError(f"{owner}: strings cannot be external data")
        entries = {text(entry.key): text(entry.value) for entry in tensor.external_data}
        if len(entries) != len(tensor.external_data):
            raise ExternalDataError(f"{owner}: an external data key is given twice")
        data = self._external.read(entries, _packed_bytes(dtype, count), owner)
        return _from_packed(data, dtype, count, owner)

    def _stripped_elements(self, segment: onnx.TensorProto.Segment, dtype: DType, count: int, owner: str) -> Array:
        payload = self._payloads.payloads.get((segment.begin, segment.end))
        if payload is None:
            raise UnsupportedFeature(f"{owner} is split into segments")
        if payload.field in _PAYLOAD_DTYPE:
            field = _PAYLOAD_DTYPE[payload.field]
            return _from_field(field, self._view(payload, _FIELD_DTYPE[field], owner), dtype, count, owner)
        return _from_packed(self._view(payload, np.dtype(np.uint8), owner), dtype, count, owner)

    def _view(self, payload: Payload, dtype: np.dtype[Any], owner: str) -> npt.NDArray[Any]:
        if (payload.end - payload.begin) % dtype.itemsize:
            raise InvalidTensor(f"{owner} has a part of an element at its end")
        return self._payloads.array(payload, dtype)


def _packed_bytes(dtype: DType, count: int) -> int:
    return (count * dtype.bits + 7) // 8


def _from_packed(data: npt.NDArray[np.uint8], dtype: DType, count: int, owner: str) -> Array:
    """Elements out of raw_data's little-endian bytes: 4 and 2 bit types are packed, low bits first."""
    if dtype is dt.STRING:
        raise InvalidTensor(f"{owner}: strings cannot be raw data")
    expected = _packed_bytes(dtype, count)
    if data.size != expected:
        raise InvalidTensor(f"{owner} has {data.size} bytes of data; {count} elements of {dtype} take {expected}")
    if dtype.bits < 8:
        return _unpack(data, dtype, count)
    if dtype is dt.BOOL:
        return _as_bool(data)
    return data.view(dtype.storage.newbyteorder("<")).astype(dtype.storage, copy=False)


def _from_field(field: str, values: Any, dtype: DType, count: int, owner: str) -> Array:
    """Elements out of one of TensorProto's typed fields."""
    if field != _FIELD_OF.get(dtype, "int32_data"):
        raise InvalidTensor(f"{owner}: {dtype} data cannot be in {field}")
    if dtype is dt.STRING:
        return _strings(values)
    data: npt.NDArray[Any] = np.asarray(values, _FIELD_DTYPE[field])
    if dtype.kind == "complex":
        if data.size % 2:
            raise InvalidTensor(f"{owner} has half of a complex number at its end")
        return data.view(dtype.storage)
    if dtype.bits < 8:
        if data.size != _packed_bytes(dtype, count):
            raise InvalidTensor(f"{owner} has {data.size} bytes in {field}, {count} elements of {dtype} differ")
        return _unpack(data.astype(np.uint8), dtype, count)
    if dtype is dt.BOOL:
        return data.astype(np.bool_)
    if dtype.is_float and field == "int32_data":
        return data.astype(_UNSIGNED[dtype.itemsize]).view(dtype.storage)
    return data.astype(dtype.storage, copy=False)


def _strings(values: list[bytes]) -> Array:
    out = np.empty(len(values), object)
    for index, value in enumerate(values):
        out[index] = decode(value)
    return out


def decode(value: bytes) -> str | bytes:
    """Text where the bytes are UTF-8, the bytes otherwise."""
    try:
        return value.decode()
    except UnicodeDecodeError:
        return value


def _as_bool(data: npt.NDArray[np.uint8]) -> Array:
    """Any byte but 0 is true; only 0 and 1 may be seen as numpy booleans without a copy."""
    if data.size and data.max() > 1:
        return data.astype(np.bool_)
    return data.view(np.bool_)


def _unpack(data: npt.NDArray[np.uint8], dtype: DType, count: int) -> Array:
    """One byte an element out of 4 or 2 bits an element."""
    bits, per_byte = dtype.bits, 8 // dtype.bits
    codes = np.empty((data.size, per_byte), np.uint8)
    for position in range(per_byte):
        np.right_shift(data, bits * position, out=codes[:, position])
    codes &= (1 << bits) - 1
    flat = codes.reshape(-1)[:count]
    if dtype.kind == "int":
        sign = np.uint8(1 << (bits - 1))
        return ((flat ^ sign) - sign).view(np.int8).astype(dtype.storage)
    return flat.view(dtype.storage)


def _linear_indices(
    indices: npt.NDArray[np.int64], count: int, shape: tuple[int, ...], owner: str
) -> npt.NDArray[np.int64]:
    """Row-major positions out of either form of sparse indices: (count,) or (count, rank)."""
    if indices.shape == (count,):
        return indices
    if indices.shape != (count, len(shape)):
        raise InvalidTensor(f"{owner} has {count} values and indices of shape {list(indices.shape)}")
    if bool(np.any((indices < 0) | (indices >= np.array(shape, np.int64)))):
        raise InvalidTensor(f"{owner} has indices outside of {list(shape)}")
    strides = [math.prod(shape[axis + 1 :]) for axis in range(len(shape))]
    return indices @ np.array(strides, np.int64) if shape else np.zeros(count, np.int64)
