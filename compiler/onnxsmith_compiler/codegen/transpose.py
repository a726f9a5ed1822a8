"""A macro intrinsic that transposes a square block in registers."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

from llvmlite import ir

from onnxsmith_compiler.codegen.kernel_function import Intrinsic
from onnxsmith_compiler.codegen.storage import array_pointer, storage_type
from onnxsmith_compiler.ir.dtype import BY_NAME, DType

_I32 = ir.IntType(32)
_I64 = ir.IntType(64)


def transpose_name(dtype: str, size: int) -> str:
    """The name of the intrinsic for elements of `dtype`; those of one width share it."""
    return f"transpose_{size}x{size}_b{8 * BY_NAME[dtype].itemsize}"


def transpose(itemsize: int, size: int) -> Intrinsic:
    """The intrinsic `transpose_{size}x{size}_b{bits}(source, source_row, out, out_row)`, elements of `itemsize` bytes.

    out[i * out_row + j] = source[j * source_row + i] for i, j < size, a power of two. The two do not overlap.
    """

    def definition(context: Any, *kinds: Any) -> Any:
        from numba.core import types  # here: who prints a call has no need of numba

        from onnxsmith_compiler.codegen.pointer_types import StoragePointer

        if len(kinds) != 4 or not isinstance(kinds[0], StoragePointer) or kinds[2] != kinds[0]:
            return None
        if not all(isinstance(kind, types.Integer) for kind in (kinds[1], kinds[3])):
            return None
        pointer = kinds[0]
        if pointer.dtype.itemsize != itemsize:
            return None

        def emit(context: Any, builder: ir.IRBuilder, signature: Any, arguments: Any) -> ir.Value:
            builder.call(_function(builder.module, pointer.dtype, size), arguments)
            return context.get_dummy_value()

        return types.void(pointer, types.int64, pointer, types.int64), emit

    return Intrinsic(f"transpose_{size}x{size}_b{8 * itemsize}", definition, _reference(size))


def _reference(size: int) -> Callable[..., None]:
    def reference(source: Any, source_row: int, out: Any, out_row: int) -> None:
        a, b = array_pointer(source), array_pointer(out)
        for i in range(size):
            for j in range(size):
                b.array[b.start + i * out_row + j] = a.array[a.start + j * source_row + i]

    return reference


def _function(module: ir.Module, dtype: DType, size: int) -> ir.Function:
    name = f"onnxsmith.transpose_{size}x{size}_{dtype}"
    if name in module.globals:
        return module.globals[name]
    pointer = storage_type(dtype).as_pointer()
    function = ir.Function(module, ir.FunctionType(ir.VoidType(), [pointer, _I64, pointer, _I64]), name)
    function.attributes.add("noinline")
    for index in (0, 2):
        function.args[index].add_attribute("noalias")
    builder = ir.IRBuilder(function.append_basic_block("entry"))
    source, source_row, out, out_row = function.args
    vector = ir.VectorType(storage_type(dtype), size)
    alignment = dtype.itemsize

    def row(base: ir.Value, stride: ir.Value, number: int) -> ir.Value:
        place = builder.gep(base, [builder.mul(stride, _I64(number))])
        return builder.bitcast(place, vector.as_pointer())

    rows = [builder.load(row(source, source_row, i), align=alignment) for i in range(size)]
    step = size // 2
    while step:
        rows = _exchange(builder, rows, step)
        step //= 2
    for i, value in enumerate(rows):
        builder.store(value, row(out, out_row, i), align=alignment)
    builder.ret_void()
    return function


def _exchange(builder: ir.IRBuilder, rows: list[ir.Value], step: int) -> list[ir.Value]:
    """Swap the blocks off the diagonal in every square of 2 * step rows and columns."""
    size = len(rows)
    lanes = range(size)
    kind = ir.VectorType(_I32, size)
    upper = ir.Constant(kind, [size + lane - step if lane & step else lane for lane in lanes])
    lower = ir.Constant(kind, [size + lane if lane & step else lane + step for lane in lanes])
    new = list(rows)
    for i in range(size):
        if not i & step:
            new[i] = builder.shuffle_vector(rows[i], rows[i + step], upper)
            new[i + step] = builder.shuffle_vector(rows[i], rows[i + step], lower)
    return new


TRANSPOSES: Mapping[str, Intrinsic] = MappingProxyType(
    {
        intrinsic.name: intrinsic
        for itemsize, sizes in ((1, (8, 16)), (2, (8, 16)), (4, (4, 8, 16)), (8, (2, 4, 8)))
        for intrinsic in (transpose(itemsize, size) for size in sizes)
    }
)
"""Every transpose that printed kernels may call, by name."""
