"""From printed text to machine code: the kernel ABI, aliasing, vectors, helpers, errors; numba itself."""

from __future__ import annotations

import ctypes
import re

import numba
import numpy as np
import pytest
from kernel_harness import Loaded, assembly, host, kernel, load, run_reference

from onnxsmith_compiler.codegen.compile_errors import KernelCompileError, UndefinedSymbolError
from onnxsmith_compiler.codegen.elf_linker import link_shared_library
from onnxsmith_compiler.codegen.kernel_function import helper, intrinsic
from onnxsmith_compiler.codegen.namespace import KERNEL_NAMESPACE, define_kernel
from onnxsmith_compiler.codegen.numba_adapter import (
    Compiler,
    NativeFunction,
    compile_functions,
    compile_kernel,
    compiler_for,
)
from onnxsmith_compiler.codegen.source import KernelSource
from onnxsmith_compiler.codegen.target import Target

V4 = Target.generic_x86_64("v4")
LEVELS = [Target.generic_x86_64("v2"), Target.generic_x86_64("v3"), V4, Target.generic_aarch64()]
ADD = kernel(
    """
for i in range(begin * 4096, min(n, (begin + 1) * 4096)):
    store(y, i, load(x, i) + load(z, i))
""",
    *("float32* x", "float32* z", "float32* y!", "int64 n"),
)


def row_sum(step: str) -> KernelSource:
    body = f"""
for r in range(begin, end):
    total = float32(0.0)
    for i in range(n):
        total = {step}
    store(y, r, total)
"""
    return kernel(body, "float32* x", "float32* y!", "int64 n")


ROW_SUM = row_sum("sum_step(total, load(x, r * n + i))")


def test_numba_is_the_version_whose_internals_the_adapter_knows() -> None:
    """Canary: on a new minor version go through numba_frontend, then change this."""
    assert numba.__version__.startswith("0.68.")


def test_kernel_reads_its_arguments_from_the_table() -> None:
    x, z = np.random.default_rng(0).normal(size=(2, 10000)).astype(np.float32)
    y = np.zeros_like(x)
    add = Loaded(ADD, host())
    assert add(x, z, y, len(x), begin=1, end=2) == 0
    np.testing.assert_array_equal(y[4096:8192], (x + z)[4096:8192])
    assert not y[:4096].any() and not y[8192:].any()


def test_kernel_returns_its_status_and_reports_through_ctx() -> None:
    checked = Loaded(kernel("if n > 5:\n    store(ctx, 3, n)\n    store(ctx, 4, 5)\n    return 1", "int64 n"), host())
    assert checked(5) == 0
    assert checked(6) == 1
    assert list(checked.context[3:5]) == [6, 5]


def test_pointwise_loop_uses_the_widest_vectors() -> None:
    text = assembly(ADD, V4)
    assert re.search(r"vaddps\s.*%zmm", text)
    assert "zmm" not in assembly(ADD, Target.generic_x86_64("v3"))
    assert re.search(r"vaddps\s.*%ymm", assembly(ADD, Target.generic_x86_64("v3")))


def test_sum_step_alone_is_reassociated() -> None:
    assert re.search(r"vaddps\s.*%zmm", assembly(ROW_SUM, V4))
    plain = row_sum("total + load(x, r * n + i)")
    text = assembly(plain, V4)
    assert "vaddss" in text and not re.search(r"vaddps\s", text)


def test_sum_step_sums() -> None:
    x = np.random.default_rng(0).normal(size=(3, 1001)).astype(np.float32)
    y = np.zeros(3, np.float32)
    Loaded(ROW_SUM, host())(x, y, 1001, end=3)
    np.testing.assert_allclose(y, x.sum(1, dtype=np.float64), rtol=1e-5)


def test_products_and_sums_contract_and_nothing_else() -> None:
    fused = kernel("store(y, 0, load(x, 0) * load(x, 1) + load(x, 2))", "float32* x", "float32* y!")
    assert "vfmadd" in assembly(fused, V4)
    x, y = np.array([np.inf, 1.0], np.float32), np.zeros(1, np.float32)
    Loaded(kernel("store(y, 0, (load(x, 0) + load(x, 1)) - load(x, 0))", "float32* x", "float32* y!"), host())(x, y)
    assert np.isnan(y[0])


def test_noalias_lets_loads_move_and_its_absence_does_not() -> None:
    """The second load of x may be skipped only where the store to y cannot have changed it."""
    body = """
a = load(x, 0)
store(y, 0, a + float32(1.0))
store(y, 1, load(x, 0))
"""
    x = np.array([1.0, 0.0, 0.0], np.float32)
    Loaded(kernel(body, "float32* x", "float32* y"), host())(x, x)
    assert x[1] == 2.0
    loads = [
        len(re.findall(r"vmovss\s+\S*\(%r\w+\), %xmm|vaddss\s+\(%r", assembly(kernel(body, "float32* x", y), V4)))
        for y in ("float32* y", "float32* y!")
    ]
    assert loads[1] < loads[0]


def test_loop_over_noalias_pointers_has_no_overlap_check() -> None:
    body = "for i in range(n):\n    store(y, i, load(x, i) * float32(3.0))"
    checked = assembly(kernel(body, "float32* x", "float32* y", "int64 n"), V4)
    free = assembly(kernel(body, "float32* x", "float32* y!", "int64 n"), V4)
    assert len(free.splitlines()) < len(checked.splitlines())


@pytest.mark.parametrize("target", LEVELS, ids=lambda target: target.cpu)
def test_fills_and_copies_need_no_library(target: Target) -> None:
    source = kernel(
        """
for i in range(n):
    store(x, i, float32(0.0))
for i in range(n):
    store(y, i, load(x, i))
for i in range(n):
    store(b, i, uint8(7))
""",
        *("float32* x!", "float32* y!", "uint8* b!", "int64 n"),
    )
    compiled = compile_kernel(source, "fill", target)
    assert b"memset" not in compiled and b"memcpy" not in compiled
    link_shared_library({"fill": compiled}, ["fill"], "fill.so")


@pytest.mark.parametrize("target", LEVELS, ids=lambda target: target.cpu)
def test_every_narrow_type_needs_no_library(target: Target) -> None:
    for name in ("float16", "bfloat16", "float8e4m3fn", "float8e8m0", "float4e2m1", "int4"):
        source = kernel("for i in range(n):\n    store(y, i, load(x, i))", f"{name}* x", f"{name}* y!", "int64 n")
        link_shared_library({name: compile_kernel(source, "copy", target)}, ["copy"], "copy.so")


def test_text_sees_no_builtins() -> None:
    with pytest.raises(NameError):
        define_kernel("def kernel(ctx, begin, end):\n    return open('/etc/passwd')\n")(None, 0, 1)
    with pytest.raises(ValueError, match="kernel"):
        define_kernel("def other():\n    return 0\n")
    assert "open" not in KERNEL_NAMESPACE


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("def kernel(ctx, begin, end):\n    return missing(3)\n", "missing"),
        ("def kernel(ctx, begin, end):\n    return maximum(begin)\n", "maximum"),
        ("def kernel(ctx, begin, end):\n    return select(True, begin, end, 3)\n", "select"),
        ("def kernel(ctx, begin, end):\n    return load(ctx, 'a')\n", "load"),
        ("def kernel(ctx, begin, end):\n    for i in range(0, 9, begin):\n        return i\n    return 0\n", "range"),
        ("def kernel(ctx, begin, end):\n    v = begin\n    if v > 2:\n        v = float32(v)\n    return 0\n", "v is"),
    ],
)
def test_errors_name_the_kernel_and_the_cause(text: str, why: str) -> None:
    with pytest.raises(KernelCompileError, match=f"kernel my kernel: (?s:.*){why}"):
        compile_kernel(KernelSource("my kernel", text, ()), "k", host())


def test_loops_and_variables_are_those_of_python() -> None:
    source = kernel(
        """
at = 0
last = -1
for i in range(begin, end):
    if i == 2:
        continue
    for j in range(i):
        store(y, at, j)
        at += 1
    for j in range(i, 2 * i, 2):
        store(y, at, 100 + j)
        at = at + 1
        if j > 5:
            break
    for j in range(i, 0, -1):
        later = at + 1
        store(y, at, 200 + j)
        at = later
    last = i
for j in range(5, 3):
    last = 1000
store(y, at, last)
""",
        "int64* y!",
    )
    expected, got = np.zeros((2, 100), np.int64)
    run_reference(source, expected, begin=1, end=6)
    assert Loaded(source, host())(got, begin=1, end=6) == 0
    np.testing.assert_array_equal(got, expected)
    assert np.count_nonzero(expected) > 20


def _call_outside(context: object, builder: object, signature: object, arguments: object) -> object:
    from llvmlite import ir

    module = builder.module  # type: ignore[attr-defined]
    kind = ir.FunctionType(ir.VoidType(), [])
    builder.call(module.globals.get("outside") or ir.Function(module, kind, "outside"), [])  # type: ignore[attr-defined]
    return context.get_dummy_value()  # type: ignore[attr-defined]


@intrinsic(lambda: None)
def call_outside(context: object) -> object:
    return numba.types.void(), _call_outside


def test_undefined_symbols_are_named() -> None:
    def function(n: int) -> int:
        call_outside()
        return n

    with pytest.raises(UndefinedSymbolError, match=r"native function.*outside"):
        compile_functions([NativeFunction("f", function, "int64", ("int64",))], host())


@helper("float32", "float32", "float32")
def weighted(x, w):  # type: ignore[no-untyped-def]
    return x * w + np.float32(1.0)


@helper("float32", "float32")
def twice_weighted(x):  # type: ignore[no-untyped-def]
    return weighted(weighted(x, np.float32(2.0)), np.float32(3.0))


@helper("void", "float32*", "int64")
def fill(pointer, count):  # type: ignore[no-untyped-def]
    for i in range(count):
        KERNEL_STORE(pointer, i, twice_weighted(np.float32(i)))


@helper("float32*", "float32*", "int64")
def advance(pointer, count):  # type: ignore[no-untyped-def]
    return KERNEL_OFFSET(pointer, count)


KERNEL_STORE, KERNEL_OFFSET = KERNEL_NAMESPACE["store"], KERNEL_NAMESPACE["offset"]


def fill_from(pointer, start, count):  # type: ignore[no-untyped-def]
    fill(advance(pointer, start), count)


def add_one(n):  # type: ignore[no-untyped-def]
    return n + 1


def test_native_functions_have_c_signatures_and_inline_their_helpers() -> None:
    functions = [
        NativeFunction("fill_from", fill_from, "void", ("float32*", "int64", "int64"), noalias=(0,)),
        NativeFunction("add_one", add_one, "int64", ("int64",)),
    ]
    compiled = compile_functions(functions, host())
    library = load(link_shared_library({"native": compiled}, ["fill_from", "add_one"], "n.so"))
    library.fill_from.argtypes = [ctypes.c_void_p, ctypes.c_int64, ctypes.c_int64]
    y = np.zeros(8, np.float32)
    library.fill_from(y.ctypes.data, 2, 5)
    np.testing.assert_array_equal(y, [0, 0, *[(2 * i + 1) * 3 + 1 for i in range(5)], 0])
    library.add_one.argtypes, library.add_one.restype = [ctypes.c_int64], ctypes.c_int64
    assert library.add_one(2**40) == 2**40 + 1
    assert twice_weighted(np.float32(1.0)) == 10.0
    assert b"onnxsmith.helper" not in compiled


def test_object_depends_on_source_and_target_alone() -> None:
    """Neither on what was compiled before in the process, nor on a counter in a name."""
    first = Compiler(V4).compile_kernel(ROW_SUM, "k")
    warm = compiler_for(V4)
    warm.compile_kernel(ADD, "other")
    assert warm.compile_kernel(ROW_SUM, "k") == first == Compiler(V4).compile_kernel(ROW_SUM, "k")
