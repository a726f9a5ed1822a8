"""Routines: their names, and what a kernel's object holds of them."""

from __future__ import annotations

from kernel_harness import host

from onnxsmith_compiler.codegen.namespace import KERNEL_NAMESPACE, ROUTINES
from onnxsmith_compiler.codegen.numba_adapter import compiler_for
from onnxsmith_compiler.codegen.routine_names import called_routines
from onnxsmith_compiler.codegen.source import KernelSource, Parameter

NAME = "winograd_output_2_f32x4"
SOURCE = KernelSource(
    "one",
    f"def kernel(ctx, x, y, begin, end):\n    {NAME}(x, 8, 8, y)\n    return 0\n",
    (Parameter("x", "float32*"), Parameter("y", "float32*")),
)


def test_names_tell_routines_from_all_else_that_kernels_call() -> None:
    called = {name: called_routines(f"    x = {name}(offset(table, 1), rows)") for name in KERNEL_NAMESPACE}
    assert {name: (name,) for name in ROUTINES} == {name: found for name, found in called.items() if found}
    assert called_routines("a = row_2_f32x4(1)\nb = depthwise_6x2_f32x4(a) + row_2_f32x4(2)") == (
        "depthwise_6x2_f32x4",
        "row_2_f32x4",
    )
    assert called_routines("row_group = int_div(tile, row_groups)") == ()


def test_a_kernel_holds_its_routines_or_calls_those_beside_it() -> None:
    compiler = compiler_for(host())
    whole = compiler.compile_kernel(SOURCE, "k")
    apart = compiler.compile_kernel(SOURCE, "k", routines=False)
    assert len(apart) < len(whole)
    assert f"onnxsmith.{NAME}".encode() in apart
    assert len(compiler.compile_routine(NAME)) > len(apart)


def test_routines_have_names_of_their_own() -> None:
    assert len({routine.symbol for routine in ROUTINES.values()}) == len(ROUTINES)
    assert all(name == routine.name for name, routine in ROUTINES.items())
