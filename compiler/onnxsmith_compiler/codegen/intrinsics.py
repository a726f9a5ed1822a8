"""Memory intrinsics: element access through typed pointers, and memory of a kernel's own.

Every one also runs as plain Python, where a flat numpy array of the element's storage type stands for a
pointer.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from llvmlite import ir
from numba.core import types

from onnxsmith_compiler.codegen import narrow_float
from onnxsmith_compiler.codegen.kernel_function import Intrinsic, intrinsic
from onnxsmith_compiler.codegen.pointer_types import StoragePointer, dtype_of_class, value_type
from onnxsmith_compiler.codegen.prefetch import L1, emit_prefetch
from onnxsmith_compiler.codegen.storage import ArrayPointer, array_pointer
from onnxsmith_compiler.ir import dtype as dtypes
from onnxsmith_compiler.ir.dtype import DType

_I8 = ir.IntType(8)
_I64 = ir.IntType(64)
_STACK_ALIGNMENT = 64
_SCRATCH_WORD = 0


def emit_load(context: Any, builder: ir.IRBuilder, dtype: DType, address: ir.Value) -> ir.Value:
    """The value, in `dtype.compute`, of the element at `address`, a pointer to its storage type."""
    stored = builder.load(address)
    if dtype.is_float and dtype.bits < 32:
        return narrow_float.widen(builder, dtype.name, stored, native_half=context.kernel_target.native_half)
    if dtype.kind == "bool":
        return builder.icmp_unsigned("!=", stored, _I8(0))
    if dtype.bits < 8:
        unused = _I8(8 - dtype.bits)
        shift_back = builder.ashr if dtype.kind == "int" else builder.lshr
        return shift_back(builder.shl(stored, unused), unused)
    return stored


def emit_store(context: Any, builder: ir.IRBuilder, dtype: DType, value: ir.Value, address: ir.Value) -> None:
    """Store `value`, in `dtype.compute`, as the element at `address`."""
    if dtype.is_float and dtype.bits < 32:
        value = narrow_float.narrow(builder, dtype.name, value, native_half=context.kernel_target.native_half)
    elif dtype.kind == "bool":
        value = builder.zext(value, _I8)
    elif dtype.bits < 8:
        value = builder.and_(value, _I8((1 << dtype.bits) - 1))
    builder.store(value, address)


def _is_index(kind: types.Type) -> bool:
    return isinstance(kind, types.Integer)


def _load_element(pointer: Any, index: int) -> Any:
    at = array_pointer(pointer)
    position = at.start + int(index)
    if position < 0:
        raise IndexError(f"element {position} is before the array")
    value = at.array[position]
    dtype = dtypes.from_numpy(at.array.dtype)
    if dtype.is_float and dtype.bits < 32:
        return np.float32(value)
    if dtype.bits < 8 and dtype.is_integer:
        return (np.int8 if dtype.kind == "int" else np.uint8)(value)
    return value


@intrinsic(_load_element)
def load(context: Any, pointer: Any, index: Any) -> Any:
    """load(p, i): element `i` of `p`; float32 for narrower floats."""
    if not isinstance(pointer, StoragePointer) or not _is_index(index):
        return None

    def emit(context: Any, builder: ir.IRBuilder, signature: Any, arguments: Any) -> ir.Value:
        address = builder.gep(arguments[0], [arguments[1]], inbounds=True)
        return emit_load(context, builder, pointer.dtype, address)

    return value_type(pointer.dtype)(pointer, types.int64), emit


def _store_element(pointer: Any, index: int, value: Any) -> None:
    at = array_pointer(pointer)
    position = at.start + int(index)
    if position < 0:
        raise IndexError(f"element {position} is before the array")
    dtype = dtypes.from_numpy(at.array.dtype)
    if dtype.is_integer:
        mask = (1 << dtype.bits) - 1
        wrapped = int(value) & mask
        if dtype.kind == "int" and wrapped >> (dtype.bits - 1):
            wrapped -= mask + 1
        at.array[position] = wrapped
        return
    with np.errstate(over="ignore", invalid="ignore"):
        at.array[position] = np.asarray(value).astype(at.array.dtype)


def _takes(stored: types.Type, value: types.Type) -> bool:
    """Whether a value may be stored as elements of value type `stored`: integers wrap, floats must match."""
    return stored == value or (isinstance(stored, types.Integer) and isinstance(value, types.Integer))


@intrinsic(_store_element)
def store(context: Any, pointer: Any, index: Any, value: Any) -> Any:
    """store(p, i, v): element `i` of `p` becomes `v`, rounded to nearest even where it is a narrower float.

    Floats and booleans must have the element's value type; integers wrap.
    """
    if not isinstance(pointer, StoragePointer) or not _is_index(index):
        return None
    stored = value_type(pointer.dtype)
    if not _takes(stored, value):
        return None

    def emit(context: Any, builder: ir.IRBuilder, signature: Any, arguments: Any) -> ir.Value:
        address = builder.gep(arguments[0], [arguments[1]], inbounds=True)
        emit_store(context, builder, pointer.dtype, arguments[2], address)
        return context.get_dummy_value()

    return types.void(pointer, types.int64, stored), emit


def _offset_pointer(pointer: Any, count: int) -> ArrayPointer:
    at = array_pointer(pointer)
    return ArrayPointer(at.array, at.start + int(count))


@intrinsic(_offset_pointer)
def offset(context: Any, pointer: Any, count: Any) -> Any:
    """offset(p, n): the pointer `n` elements after `p`."""
    if not isinstance(pointer, StoragePointer) or not _is_index(count):
        return None

    def emit(context: Any, builder: ir.IRBuilder, signature: Any, arguments: Any) -> ir.Value:
        return builder.gep(arguments[0], [arguments[1]], inbounds=True)

    return pointer(pointer, types.int64), emit


def _as_dtype(kind: Any) -> DType:
    return kind if isinstance(kind, DType) else dtypes.from_numpy(np.dtype(kind))


def _stack_array(kind: Any, count: int) -> np.ndarray[Any, Any]:
    return np.zeros(count, _as_dtype(kind).storage)


@intrinsic(_stack_array, literals=True)
def stack(context: Any, kind: Any, count: Any) -> Any:
    """stack(float32, n): `n` elements (a literal), 64-byte aligned, that live until the return."""
    dtype = dtype_of_class(kind)
    if dtype is None or not isinstance(count, types.IntegerLiteral) or count.literal_value <= 0:
        return None

    def emit(context: Any, builder: ir.IRBuilder, signature: Any, arguments: Any) -> ir.Value:
        pointer = context.get_value_type(signature.return_type)
        with builder.goto_entry_block():
            memory = builder.alloca(pointer.pointee, _I64(count.literal_value), name="stack")
            memory.align = _STACK_ALIGNMENT
        return memory

    return StoragePointer(dtype)(kind, count), emit


def _scratch_array(context: Any, kind: Any, byte_offset: int) -> np.ndarray[Any, Any]:
    storage = _as_dtype(kind).storage
    memory: np.ndarray[Any, Any] = context.scratch[int(byte_offset) :]
    return memory[: len(memory) // storage.itemsize * storage.itemsize].view(storage)


@intrinsic(_scratch_array)
def scratch(context: Any, ctx: Any, kind: Any, byte_offset: Any) -> Any:
    """scratch(ctx, float32, byte_offset): a pointer into the thread's scratch memory.

    In plain Python `ctx` has an attribute `scratch`, an array of bytes.
    """
    dtype = dtype_of_class(kind)
    if dtype is None or not isinstance(ctx, StoragePointer) or not _is_index(byte_offset):
        return None

    def emit(context: Any, builder: ir.IRBuilder, signature: Any, arguments: Any) -> ir.Value:
        word = builder.load(builder.gep(arguments[0], [_I64(_SCRATCH_WORD)], inbounds=True))
        base = builder.inttoptr(word, _I8.as_pointer())
        place = builder.gep(base, [arguments[2]], inbounds=True)
        return builder.bitcast(place, context.get_value_type(signature.return_type))

    return StoragePointer(dtype)(ctx, kind, types.int64), emit


def _array_address(pointer: Any) -> int:
    at = array_pointer(pointer)
    return int(at.array.ctypes.data) + at.start * at.array.itemsize


@intrinsic(_array_address)
def address(context: Any, pointer: Any) -> Any:
    """address(p): the address as an int64."""
    if not isinstance(pointer, StoragePointer):
        return None

    def emit(context: Any, builder: ir.IRBuilder, signature: Any, arguments: Any) -> ir.Value:
        return builder.ptrtoint(arguments[0], _I64)

    return types.int64(pointer), emit


def _reinterpret_array(pointer: Any, kind: Any) -> np.ndarray[Any, Any]:
    at = array_pointer(pointer)
    raw = at.array[at.start :].view(np.uint8)
    storage = _as_dtype(kind).storage
    return raw[: len(raw) // storage.itemsize * storage.itemsize].view(storage)


@intrinsic(_reinterpret_array)
def reinterpret(context: Any, pointer: Any, kind: Any) -> Any:
    """reinterpret(p, uint32): the same address as a pointer to elements of another type."""
    dtype = dtype_of_class(kind)
    if dtype is None or not isinstance(pointer, StoragePointer):
        return None

    def emit(context: Any, builder: ir.IRBuilder, signature: Any, arguments: Any) -> ir.Value:
        return builder.bitcast(arguments[0], context.get_value_type(signature.return_type))

    return StoragePointer(dtype)(pointer, kind), emit


@intrinsic(lambda pointer, index: None)
def prefetch(context: Any, pointer: Any, index: Any) -> Any:
    """prefetch(p, i): element `i` of `p` will be read soon; it need not exist."""
    if not isinstance(pointer, StoragePointer) or not isinstance(index, types.Integer):
        return None

    def emit(context: Any, builder: ir.IRBuilder, signature: Any, arguments: Any) -> ir.Value:
        place = builder.bitcast(builder.gep(arguments[0], [arguments[1]]), _I8.as_pointer())
        emit_prefetch(builder, place, L1)
        return context.get_dummy_value()

    return types.void(pointer, types.int64), emit


def _extreme(name: str, comparison: str, reference: Callable[..., Any]) -> Intrinsic:
    def define(context: Any, *kinds: Any) -> Any:
        if len(kinds) < 2 or not all(isinstance(kind, types.Integer) and kind.signed for kind in kinds):
            return None

        def emit(context: Any, builder: ir.IRBuilder, signature: Any, arguments: Any) -> ir.Value:
            result = arguments[0]
            for other in arguments[1:]:
                result = builder.select(builder.icmp_signed(comparison, result, other), result, other)
            return result

        return types.int64(*[types.int64] * len(kinds)), emit

    return Intrinsic(name, define, reference)


MEMORY_INTRINSICS: dict[str, Intrinsic] = {
    function.name: function for function in (load, store, offset, stack, scratch, address, reinterpret, prefetch)
}

# Of signed sizes and indices only; numbers have `minimum` and `maximum`.
INDEX_INTRINSICS: dict[str, Intrinsic] = {
    "min": _extreme("min", "<", min),
    "max": _extreme("max", ">", max),
}
