"""numpy arrays as native code reads them: does this interpreter lay objects out as `native_layout` says?"""

from __future__ import annotations

import ctypes
import functools
import sys
from typing import Any

import numpy as np

from onnxsmith import native_layout as abi


def _word(address: int, index: int) -> int:
    return ctypes.c_int64.from_address(address + abi.WORD * index).value


def _low_32(address: int, index: int) -> int:
    return _word(address, index) & 0xFFFFFFFF


def _array_agrees(array: np.ndarray[Any, Any]) -> bool:
    # The dimensions come last: their address is followed only where all around it is as expected.
    address = id(array)
    return (
        _word(address, abi.OBJECT_TYPE) == id(np.ndarray)
        and _word(address, abi.ARRAY_DATA) == array.ctypes.data
        and _low_32(address, abi.ARRAY_RANK) == array.ndim
        and _word(address, abi.ARRAY_DESCR) == id(array.dtype)
        and _low_32(address, abi.ARRAY_FLAGS) == array.flags.num
        and all(_word(_word(address, abi.ARRAY_DIMS), i) == n for i, n in enumerate(array.shape))
    )


def _sequences_agree() -> bool:
    members = [np.zeros(1), np.zeros(2)]
    fixed = tuple(members)
    as_list, as_tuple = id(members), id(fixed)
    return (
        _word(as_list, abi.OBJECT_TYPE) == id(list)
        and _word(as_tuple, abi.OBJECT_TYPE) == id(tuple)
        and _word(as_list, abi.SEQUENCE_SIZE) == _word(as_tuple, abi.SEQUENCE_SIZE) == 2
        and all(_word(as_tuple, abi.SEQUENCE_ITEMS + i) == id(a) for i, a in enumerate(members))
        and all(_word(_word(as_list, abi.SEQUENCE_ITEMS), i) == id(a) for i, a in enumerate(members))
    )


def address_of(array: np.ndarray[Any, Any]) -> int:
    """The address of the array's first element."""
    if native_arrays():
        return _word(id(array), abi.ARRAY_DATA)
    return int(array.ctypes.data)


_INTEGERS = {
    1: ctypes.c_uint8, 2: ctypes.c_uint16, 4: ctypes.c_uint32, 8: ctypes.c_uint64,
    -1: ctypes.c_int8, -2: ctypes.c_int16, -4: ctypes.c_int32, -8: ctypes.c_int64,
}  # fmt: skip


def read_integer(address: int, size: int) -> int:
    """The integer of `size` bytes (negative: a signed one) at `address`."""
    return int(_INTEGERS[size].from_address(address).value)


@functools.cache
def native_arrays() -> bool:
    """Whether native code may read arrays by `id(array)`.

    Checked once against what numpy itself answers about arrays of several ranks, types and flags. Where it is
    false (an interpreter with another object header), runs work through numpy's public attributes, more
    slowly.
    """
    if sys.byteorder != "little" or ctypes.sizeof(ctypes.c_void_p) != abi.WORD:
        return False
    if object.__basicsize__ != abi.ARRAY_DATA * abi.WORD:
        return False
    block = np.arange(24, dtype=np.float32).reshape(2, 3, 4)
    frozen = np.ones((2, 2), np.int64)
    frozen.setflags(write=False)
    samples = (block, block[:, 1:], block.T, np.zeros((), np.bool_), np.zeros((0, 7), np.int8), frozen)
    return all(map(_array_agrees, samples)) and _sequences_agree()
