"""Feeds of a run: what a caller passes, made into the arrays that a program reads, or refused by name.

This is the slow way. Arrays that fit already are checked by native code, and come here only to be explained.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from onnxsmith.errors import InvalidArgument, error
from onnxsmith.values import numpy_dtype, tensor_type, tensor_type_of

if TYPE_CHECKING:
    from onnxsmith.program import Program, Tensor

Array: TypeAlias = np.ndarray[Any, np.dtype[np.generic]]


@dataclass(frozen=True)
class DimensionUse:
    """Where a symbol stands in a feed, and the size that the feed has there."""

    input: str
    axis: int
    size: int

    def __str__(self) -> str:
        return f"{self.size} in dimension {self.axis} of input '{self.input}'"


class SymbolConflict(Exception):
    """Two dimensions of the feeds that the model calls by one name have two sizes."""

    def __init__(self, symbol: str, first: DimensionUse, second: DimensionUse) -> None:
        super().__init__(f"Symbol '{symbol}' is {first} and {second}.")
        self.symbol = symbol
        self.first = first
        self.second = second


def collect(program: Program, feed: Mapping[str, Any], defaults: Mapping[str, Array]) -> list[Array]:
    """The feed's arrays in the order of the program's inputs; `defaults` are those of inputs not fed.

    Each array is C-contiguous, aligned, in native byte order, and has the input's dtype, rank and fixed
    sizes. Nothing that was passed is written to; arrays that fit are not copied.

    Raises ValueError where an input is missing, InvalidArgument for a name, dtype, rank or size that
    does not fit, SymbolConflict where two inputs disagree on a symbol.
    """
    _check_names(program, feed)
    arrays = [
        _fitting_array(tensor, feed[tensor.name]) if tensor.name in feed else defaults[tensor.name]
        for tensor in program.inputs
    ]
    _check_symbols(program, arrays)
    return arrays


def _check_names(program: Program, feed: Mapping[str, Any]) -> None:
    required = [tensor.name for tensor in program.inputs if tensor.name not in program.overridable]
    missing = [name for name in required if name not in feed]
    if missing:
        raise ValueError(f"Required inputs ({missing}) are missing from input feed ({list(feed)}).")
    known = {tensor.name for tensor in program.inputs}
    for name in feed:
        if name not in known:
            raise error(InvalidArgument, f"Invalid input name: {name}. The inputs are: {', '.join(sorted(known))}.")


def _fitting_array(tensor: Tensor, value: Any) -> Array:
    dtype = numpy_dtype(tensor.dtype)
    array = _as_array(tensor, value, dtype)
    if array.dtype != dtype:
        raise error(
            InvalidArgument,
            f"Unexpected input data type. Actual: ({tensor_type_of(array.dtype)}) , expected: "
            f"({tensor_type(tensor.dtype)}) for input: {tensor.name}. "
            f"Convert it, for example with .astype('{dtype.name}').",
        )
    array = _with_rank(tensor, array)
    return np.require(array, requirements=["C", "A"])


def _as_array(tensor: Tensor, value: Any, dtype: np.dtype[np.generic]) -> Array:
    """`value` as an array, of `dtype` where it has no dtype of its own; strings as objects.

    A foreign byte order ends here.
    """
    if isinstance(value, np.ndarray | memoryview):
        array = np.asarray(value)
    elif isinstance(value, list | tuple | bool | int | float | complex | str | bytes):
        array = _from_python(tensor, value, dtype)
    elif hasattr(value, "__array__"):
        array = np.asarray(value)
    elif hasattr(value, "numpy"):
        array = np.asarray(value.numpy())
    else:
        raise error(
            InvalidArgument,
            f"Input '{tensor.name}' was given a {type(value).__name__}: a {tensor_type(tensor.dtype)} is fed "
            "as a numpy array, a list or a number.",
        )
    if dtype.kind == "O" and array.dtype.kind in "OUST":
        return _strings(array)
    return with_dtype_object(array, dtype) if array.dtype.newbyteorder("=") == dtype else array


def with_dtype_object(array: Array, dtype: np.dtype[np.generic]) -> Array:
    """`array` with `dtype` itself, which is its own but for the byte order.

    Native code compares the addresses of dtype objects, and an unpickled array has one of its own.
    """
    if array.dtype is dtype:
        return array
    return array.view(dtype) if array.dtype == dtype else array.astype(dtype)


def _from_python(tensor: Tensor, value: Any, dtype: np.dtype[np.generic]) -> Array:
    try:
        return np.array(value, dtype)
    except (TypeError, ValueError, OverflowError) as problem:
        raise error(
            InvalidArgument,
            f"Input '{tensor.name}' cannot be made a {tensor_type(tensor.dtype)} from a "
            f"{type(value).__name__}: {problem}",
        ) from None


def _strings(array: Array) -> Array:
    """An array of str: bytes are read as UTF-8, other objects written as str() does."""
    if array.dtype.kind == "O" and all(isinstance(item, str) for item in array.flat):
        return array
    result = np.empty(array.shape, object)
    for index, item in enumerate(array.flat):
        result.flat[index] = item.decode() if isinstance(item, bytes) else str(item)
    return result


def _with_rank(tensor: Tensor, array: Array) -> Array:
    """`array`, with rank and fixed sizes as declared. A scalar may be fed as any array of one element."""
    rank = len(tensor.dims)
    if array.ndim != rank and rank == 0 and array.size == 1:
        return array.reshape(())
    if array.ndim != rank:
        raise error(
            InvalidArgument,
            f"Invalid rank for input: {tensor.name} Got: {array.ndim} Expected: {rank}. The shape fed is "
            f"{array.shape}; the model declares {_declared(tensor)}.",
        )
    wrong = [
        f" index: {axis} Got: {size} Expected: {expected}"
        for axis, (size, expected) in enumerate(zip(array.shape, tensor.shape or (), strict=False))
        if isinstance(expected, int) and size != expected
    ]
    if wrong:
        raise error(
            InvalidArgument,
            "\n".join(
                [
                    f"Got invalid dimensions for input: {tensor.name} for the following indices",
                    *wrong,
                    f" The shape fed is {array.shape}; the model declares {_declared(tensor)}.",
                ]
            ),
        )
    return array


def _declared(tensor: Tensor) -> str:
    return "any shape" if tensor.shape is None else str(list(tensor.shape))


def _check_symbols(program: Program, arrays: Sequence[Array]) -> None:
    seen: dict[int, DimensionUse] = {}
    for tensor, array in zip(program.inputs, arrays, strict=True):
        for axis, slot in enumerate(tensor.dims):
            if slot >= len(program.symbols):
                continue
            use = DimensionUse(tensor.name, axis, array.shape[axis])
            first = seen.setdefault(slot, use)
            if first.size != use.size:
                raise SymbolConflict(program.symbols[slot], first, use)
