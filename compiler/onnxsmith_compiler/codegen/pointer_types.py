"""Typed pointers and element types as numba sees them."""

from __future__ import annotations

from typing import Any

from numba.core import types
from numba.extending import models, register_model, typeof_impl

from onnxsmith_compiler.codegen.storage import storage_type
from onnxsmith_compiler.ir import dtype as dtypes
from onnxsmith_compiler.ir.dtype import DType

# Element types that kernels compute in, and those that they only load and store.
VALUE_TYPES: dict[str, types.Type] = {
    "float32": types.float32,
    "float64": types.float64,
    "int8": types.int8,
    "int16": types.int16,
    "int32": types.int32,
    "int64": types.int64,
    "uint8": types.uint8,
    "uint16": types.uint16,
    "uint32": types.uint32,
    "uint64": types.uint64,
    "bool": types.boolean,
}
_NARROW_INTEGERS = {"int4": types.int8, "uint4": types.uint8, "int2": types.int8, "uint2": types.uint8}


def value_type(dtype: DType) -> types.Type:
    """The numba type that `load` gives for elements of `dtype`; TypeError for strings and complex numbers."""
    if dtype.is_float and dtype.bits < 32:
        return types.float32
    found = VALUE_TYPES.get(dtype.name) or _NARROW_INTEGERS.get(dtype.name)
    if found is None:
        raise TypeError(f"kernels cannot address elements of type {dtype.name}")
    return found


class StoragePointer(types.Type):  # type: ignore[misc]
    """The numba type of an address of elements of `dtype`."""

    mutable = True

    def __init__(self, dtype: DType) -> None:
        self.dtype = dtype
        super().__init__(f"{dtype.name}*")


class StorageClass(types.Dummy):  # type: ignore[misc]
    """The numba type of a DType given as an argument, as in `stack(bfloat16, 16)`."""

    def __init__(self, dtype: DType) -> None:
        self.dtype = dtype
        super().__init__(f"storage class({dtype.name})")


@register_model(StoragePointer)
class _StoragePointerModel(models.PrimitiveModel):  # type: ignore[misc]
    def __init__(self, manager: Any, fe_type: StoragePointer) -> None:
        super().__init__(manager, fe_type, storage_type(fe_type.dtype).as_pointer())


register_model(StorageClass)(models.OpaqueModel)


@typeof_impl.register(DType)  # type: ignore[untyped-decorator]
def _typeof_dtype(value: DType, context: object) -> StorageClass:
    return StorageClass(value)


def dtype_of_class(kind: types.Type) -> DType | None:
    """The DType that an argument of numba type `kind` names: a scalar class (`float32`) or a DType."""
    if isinstance(kind, StorageClass):
        return kind.dtype
    if isinstance(kind, types.NumberClass):
        names = [name for name, known in VALUE_TYPES.items() if known == kind.instance_type]
        return dtypes.BY_NAME[names[0]] if names else None
    return None


def named_type(name: str) -> types.Type:
    """The numba type of "int64", "float32", ..., of a pointer, "float32*", or of "void"."""
    if name == "void":
        return types.void
    if name.endswith("*"):
        return StoragePointer(dtypes.BY_NAME[name[:-1]])
    return VALUE_TYPES[name]
