"""OrtValue: a tensor in memory that its holder shares with sessions, as in onnxruntime."""

from __future__ import annotations

import operator
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from onnxsmith.errors import InvalidArgument, error
from onnxsmith.values import numpy_dtype, numpy_dtype_from_code, onnx_code, program_dtype, tensor_type_of

if TYPE_CHECKING:
    import numpy.typing as npt  # annotations alone

Array: TypeAlias = np.ndarray[Any, np.dtype[np.generic]]
ElementType: TypeAlias = "int | npt.DTypeLike"
"""A TensorProto.DataType, or anything that numpy takes for a dtype."""


class OrtValue:
    """A tensor on the CPU. Make one with the class methods, which share memory wherever that is possible."""

    __slots__ = ("_array",)

    def __init__(self, array: Array) -> None:
        """Wrap `array`, which must be C-contiguous, aligned, in native byte order, of a type that ONNX has."""
        self._array = array

    @classmethod
    def ortvalue_from_numpy(
        cls, numpy_obj: Array, /, device_type: str = "cpu", device_id: int = 0, vendor_id: int = -1
    ) -> OrtValue:
        """The tensor in `numpy_obj`, whose memory is shared unless it is not contiguous.

        RuntimeError for anything but an array of numbers or booleans.
        """
        _require_cpu(device_type)
        if not isinstance(numpy_obj, np.ndarray) or numpy_obj.dtype.kind in "OUSTMm":
            raise RuntimeError("Creation of OrtValues is currently only supported from non-string numpy arrays")
        native = numpy_dtype(program_dtype(element_dtype(numpy_obj.dtype.newbyteorder("="))))
        from onnxsmith.feeds import with_dtype_object  # here: most sessions have no need of it

        return cls(np.require(with_dtype_object(np.asarray(numpy_obj), native), requirements=["C", "A"]))

    @classmethod
    def ortvalue_from_numpy_with_onnx_type(cls, data: Array, /, onnx_element_type: int) -> OrtValue:
        """The bytes of `data` seen as elements of another type of the same width; memory is shared."""
        dtype = numpy_dtype_from_code(onnx_element_type)
        if dtype.itemsize != data.dtype.itemsize:
            raise error(
                InvalidArgument,
                f"Elements of {data.dtype} cannot be seen as {tensor_type_of(dtype)}: their widths differ.",
            )
        return cls(np.ascontiguousarray(data).view(dtype))

    @classmethod
    def ortvalue_from_shape_and_type(
        cls,
        shape: Sequence[int],
        element_type: ElementType,
        device_type: str = "cpu",
        device_id: int = 0,
        vendor_id: int = -1,
    ) -> OrtValue:
        """A tensor of unspecified contents."""
        _require_cpu(device_type)
        return cls(np.empty(tuple(shape), element_dtype(element_type)))

    @classmethod
    def from_dlpack(cls, data: Any, /) -> OrtValue:
        """The CPU tensor of an object with `__dlpack__`, or of a DLPack capsule; memory is shared.

        RuntimeError where it is not contiguous.
        """
        array = np.from_dlpack(data if hasattr(data, "__dlpack__") else _Capsule(data))
        if not array.flags.c_contiguous:
            raise RuntimeError(f"A tensor must be contiguous, and the strides of this one are {array.strides}")
        return cls(array)

    def numpy(self) -> Array:
        """The tensor as an array that shares its memory."""
        return self._array

    def __array__(self, dtype: npt.DTypeLike | None = None, copy: bool | None = None) -> Array:
        return np.array(self._array, dtype, copy=copy)

    def __dlpack__(self, **options: Any) -> Any:
        array: Any = self._array
        return array.__dlpack__(**options)

    def __dlpack_device__(self) -> tuple[int, int]:
        return self._array.__dlpack_device__()

    def update_inplace(self, data: Any) -> None:
        """Overwrite the elements with those of an array of as many elements, in C order.

        RuntimeError where there are more or fewer.
        """
        array = np.asarray(data)
        if array.size != self._array.size:
            raise RuntimeError(
                f"The input size of numpy arrays does not match the size of the OrtValue: {array.size} "
                f"elements were given for {self._array.size}."
            )
        np.copyto(self._array, array.reshape(self._array.shape), casting="unsafe")

    def shape(self) -> list[int]:
        """The sizes of the dimensions."""
        return list(self._array.shape)

    def data_type(self) -> str:
        """ONNX's name of the type, such as 'tensor(float)'."""
        return tensor_type_of(self._array.dtype)

    def element_type(self) -> int:
        """The TensorProto.DataType."""
        return onnx_code(self._array.dtype)

    def device_name(self) -> str:
        """'cpu'."""
        return "cpu"

    def data_ptr(self) -> int:
        """The address of the first element."""
        return self._array.ctypes.data

    def tensor_size_in_bytes(self) -> int:
        """Bytes that the elements take."""
        return self._array.nbytes

    def has_value(self) -> bool:
        """Whether there is a tensor, which is so."""
        return True

    def is_tensor(self) -> bool:
        """Whether this is a dense tensor, which is so."""
        return True

    def is_sparse_tensor(self) -> bool:
        """Whether this is a sparse tensor, which is not so."""
        return False

    def is_tensor_sequence(self) -> bool:
        """Whether this is a sequence, which is not so."""
        return False


class _Capsule:
    """A DLPack capsule of CPU memory, as an object that numpy takes."""

    def __init__(self, capsule: Any) -> None:
        self._capsule = capsule

    def __dlpack__(self, **options: Any) -> Any:
        return self._capsule

    def __dlpack_device__(self) -> tuple[int, int]:
        return (1, 0)


def element_dtype(element_type: ElementType) -> np.dtype[np.generic]:
    """The numpy dtype of a TensorProto.DataType or of what numpy takes for a dtype. RuntimeError for none."""
    try:
        if isinstance(element_type, int | np.integer):
            return numpy_dtype_from_code(operator.index(element_type))
        dtype: np.dtype[np.generic] = np.dtype(element_type)
        onnx_code(dtype)
    except (KeyError, TypeError) as problem:
        raise RuntimeError(f"{element_type!r} is no element type: {problem}") from None
    return dtype


def _require_cpu(device_type: str) -> None:
    if device_type.lower() != "cpu":
        raise RuntimeError(f"Memory on device '{device_type}' cannot be had here; 'cpu' can.")
