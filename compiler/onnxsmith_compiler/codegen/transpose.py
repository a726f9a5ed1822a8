"""A macro intrinsic that transposes a square block in registers."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

from llvmlite import ir
from numba.core import types

from onnxsmith_compiler.codegen.kernel_function import Intrinsic
from onnxsmith_compiler.codegen.storage import StoragePointer, array_pointer, storage_type
from onnxsmith_compiler.ir.dtype import BY_NAME

_I32 = ir.IntType(32)
_I64 = ir.IntType(64)


def transpose_name(dtype: str, size: int) -> str:
    return f"transpose_{size}x{size}_f{BY_NAME[dtype].bits}"


def transpose(dtype: str, size: int) -> Intrinsic:
    """The intrinsic `transpose_{size}x{size}_f{bits}(source, source_row, out, out_row)`.

    out[i * out_row + j] = source[j * source_row + i] for i, j < size, a power of two. The two do not overlap.
    """
    pointer, number = StoragePointer(BY_NAME[dtype]), types.int64

    def definition(context: Any, *kinds: Any) -> Any:
        if len(kinds) != 4 or kinds[0] != pointer or kinds[2] != pointer:
            return None
        if not all(isinstance(kind, types.Integer) for kind in (kinds[1], kinds[3])):
            return None

        def emit(context: Any, builder: ir.IRBuilder, signature: Any, arguments: Any) -> ir.Value:
            builder.call(_function(builder.module, dtype, size), arguments)
            return context.get_dummy_value()

        return types.void(pointer, number, pointer, number), emit

    return Intrinsic(transpose_name(dtype, size), definition, _reference(size))


def _reference(size: int) -> Callable[..., None]:
    def reference(source: Any, source_row: int, out: Any, out_row: int) -> None:
        a, b = array_pointer(source), array_pointer(out)
        for i in range(size):
            for j in range(size):
                b.array[b.start + i * out_row + j] = a.array[a.start + j * source_row + i]

    return reference


def _function(module: ir.Module, dtype: str, size: int) -> ir.Function:
    name = f"onnxsmith.{transpose_name(dtype, size)}"
    if name in module.globals:
        return module.globals[name]
    pointer = storage_type(BY_NAME[dtype]).as_pointer()
    function = ir.Function(module, ir.FunctionType(ir.VoidType(), [pointer, _I64, pointer, _I64]), name)
    function.attributes.add("noinline")
    for index in (0, 2):
        function.args[index].add_attribute("noalias")
    builder = ir.IRBuilder(function.append_basic_block("entry"))
    source, source_row, out, out_row = function.args
    vector = ir.VectorType(storage_type(BY_NAME[dtype]), size)
    alignment = BY_NAME[dtype].itemsize

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
        transpose_name(dtype, size): transpose(dtype, size)
        for dtype, sizes in (("float32", (4, 8, 16)), ("float64", (2, 4, 8)))
        for size in sizes
    }
)
"""Every transpose that printed kernels may call, by name."""
