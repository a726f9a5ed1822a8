"""One step of a walk down a tree, by the form of its records (`ops.tree_layout`)."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from llvmlite import ir
from numba.core import types
from numpy import float32, float64, int16, int32, int64, uint16

from onnxsmith_compiler.codegen.intrinsics import load, reinterpret
from onnxsmith_compiler.codegen.kernel_function import Helper, helper, intrinsic

_I64 = ir.IntType(64)


def _itself(value: Any) -> Any:
    return value


@intrinsic(_itself)
def in_register(context: Any, value: Any) -> Any:
    """in_register(n): the int64 `n`, which LLVM may not make an element of a vector.

    Left to itself it walks all lanes in one vector, and gathers what they load: on x86 that takes three times as long.
    """
    if not isinstance(value, types.Integer):
        return None

    def emit(context: Any, builder: ir.IRBuilder, signature: Any, arguments: Any) -> ir.Value:
        kind = ir.FunctionType(_I64, [_I64])
        return builder.call(ir.InlineAsm(kind, "", "=r,0"), arguments)

    return types.int64(types.int64), emit


@helper("int64", "int64*", "float32*", "int64")
def narrow_step_float32(records: Any, x: Any, node: Any) -> Any:
    """The record after `node`: `move` on, and one more where the column of x is at most the bound."""
    column = load(reinterpret(records, uint16), node * 4)
    move = load(reinterpret(records, int16), node * 4 + 1)
    inside = load(x, column) <= load(reinterpret(records, float32), node * 2 + 1)
    return in_register(node + move + int64(inside))


@helper("int64", "int64*", "float32*", "int64")
def step_float32(records: Any, x: Any, node: Any) -> Any:
    column = load(reinterpret(records, int32), node * 4 + 2)
    move = load(reinterpret(records, int32), node * 4 + 3)
    inside = load(x, column) <= load(reinterpret(records, float32), node * 4)
    return in_register(node + move + int64(inside))


@helper("int64", "int64*", "float64*", "int64")
def step_float64(records: Any, x: Any, node: Any) -> Any:
    column = load(reinterpret(records, int32), node * 4 + 2)
    move = load(reinterpret(records, int32), node * 4 + 3)
    inside = load(x, column) <= load(reinterpret(records, float64), node * 2)
    return in_register(node + move + int64(inside))


TREE_STEPS: Mapping[str, Helper] = MappingProxyType(
    {step.name: step for step in (narrow_step_float32, step_float32, step_float64)}
)
