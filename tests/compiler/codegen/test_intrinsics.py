"""Element access and memory of a kernel's own, compiled and as plain Python."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import pytest
from kernel_harness import Loaded, ReferenceContext, host, kernel, run_reference

from onnxsmith_compiler.codegen.compile_errors import KernelCompileError
from onnxsmith_compiler.codegen.numba_adapter import compile_kernel
from onnxsmith_compiler.ir import dtype as dtypes
from onnxsmith_compiler.ir.dtype import DType

COPY = """
for i in range(n):
    store(y, i, load(x, i))
"""
ADDRESSABLE = [dtype for dtype in dtypes.ALL if dtype.kind in ("float", "int", "uint", "bool")]


def every_pattern(dtype: DType) -> np.ndarray:
    """Stored elements of `dtype`: all of them where they are few, else random ones."""
    if dtype.kind == "bool":
        return np.array([False, True])
    if dtype.bits <= 8:
        return np.arange(1 << dtype.bits, dtype=np.uint8).view(dtype.storage)
    if dtype.bits == 16:
        return np.arange(1 << 16, dtype=np.uint16).view(dtype.storage)
    raw = np.random.default_rng(0).integers(0, 256, 4096 * dtype.itemsize, dtype=np.uint8)
    return raw.view(dtype.storage)


def assert_same_elements(actual: np.ndarray, expected: np.ndarray) -> None:
    """The same bits, but for NaN, which must only stay NaN."""
    if expected.dtype.kind in "fV" or expected.dtype.name.startswith(("bfloat", "float")):
        nan = expected != expected
        np.testing.assert_array_equal(actual != actual, nan)
        actual, expected = actual[~nan], expected[~nan]
    np.testing.assert_array_equal(actual.view(np.uint8), expected.view(np.uint8))


@pytest.mark.parametrize("dtype", ADDRESSABLE, ids=str)
def test_copy_keeps_every_element(dtype: DType) -> None:
    source = kernel(COPY, f"{dtype}* x", f"{dtype}* y!", "int64 n")
    x = every_pattern(dtype)
    y, z = np.zeros_like(x), np.zeros_like(x[:512])
    assert Loaded(source, host())(x, y, len(x)) == 0
    assert_same_elements(y, x)
    run_reference(source, x[:512], z, len(z))
    assert_same_elements(z, x[:512])


@pytest.mark.parametrize("dtype", [d for d in ADDRESSABLE if d.is_float and d.bits < 32], ids=str)
def test_narrow_floats_load_as_float32(dtype: DType) -> None:
    x = every_pattern(dtype)
    y = np.zeros(len(x), np.float32)
    Loaded(kernel(COPY, f"{dtype}* x", "float32* y!", "int64 n"), host())(x, y, len(x))
    np.testing.assert_array_equal(y, x.astype(np.float32))


@pytest.mark.parametrize("dtype", [dtypes.INT4, dtypes.UINT4, dtypes.INT2, dtypes.UINT2], ids=str)
def test_small_integers_wrap(dtype: DType) -> None:
    x = np.arange(-128, 128).astype(np.int32)
    source = kernel(COPY, "int32* x", f"{dtype}* y!", "int64 n")
    y, z = (np.zeros(len(x), dtype.storage) for _ in range(2))
    Loaded(source, host())(x, y, len(x))
    run_reference(source, x, z, len(x))
    low = x & ((1 << dtype.bits) - 1)
    expected = np.where(low >> (dtype.bits - 1), low - (1 << dtype.bits), low) if dtype.kind == "int" else low
    np.testing.assert_array_equal(y.astype(np.int32), expected)
    np.testing.assert_array_equal(z.view(np.uint8), y.view(np.uint8))


def test_offset_stack_scratch_and_reinterpret() -> None:
    source = kernel(
        """
local = stack(float32, 8)
words = scratch(ctx, uint32, 64)
later = offset(x, 4)
for i in range(8):
    store(local, i, load(later, i - 4) * float32(2.0))
for i in range(8):
    store(words, i, load(reinterpret(local, uint32), i))
for i in range(8):
    store(offset(y, i), 0, load(reinterpret(words, float32), i) + load(scratch(ctx, float32, 64), i))
""",
        "float32* x",
        "float32* y!",
    )
    x = np.arange(8, dtype=np.float32)
    y, z = np.zeros(8, np.float32), np.zeros(8, np.float32)
    assert Loaded(source, host())(x, y) == 0
    np.testing.assert_array_equal(y, 4 * x)
    run_reference(source, x, z, context=ReferenceContext(scratch=np.zeros(1024, np.uint8)))
    np.testing.assert_array_equal(z, 4 * x)


def test_address_is_the_pointer() -> None:
    source = kernel("store(y, 0, address(offset(x, 3)))", "float64* x", "int64* y!")
    x, y = np.zeros(8), np.zeros(1, np.int64)
    Loaded(source, host())(x, y)
    assert y[0] == x.ctypes.data + 24
    run_reference(source, x, y)
    assert y[0] == x.ctypes.data + 24


def test_min_and_max_of_sizes() -> None:
    source = kernel("store(y, 0, min(a, b, 7))\nstore(y, 1, max(a, b))", "int64* y!", "int64 a", "int64 b")
    y = np.zeros(2, np.int64)
    Loaded(source, host())(y, -3, 9)
    np.testing.assert_array_equal(y, [-3, 9])


@pytest.mark.parametrize(
    ("body", "names"),
    [
        ("store(y, 0, 0.5)", "store.*float64"),
        ("store(y, 0, 1)", "store"),
        ("store(y, float32(0.0), float32(0.0))", "store"),
        ("store(y, 0, load(n, 0))", "load"),
        ("p = stack(float32, n)", "stack"),
        ("p = offset(n, 1)", "offset"),
    ],
)
def test_wrong_types_are_refused(body: str, names: str) -> None:
    with pytest.raises(KernelCompileError, match=f"kernel wrong: (?s:.*){names}"):
        compile_kernel(kernel(body, "float32* y!", "int64 n", label="wrong"), "k", host())


def test_reference_refuses_elements_before_the_array() -> None:
    with pytest.raises(IndexError):
        run_reference(kernel("store(y, 0, load(x, -1))", "float32* x", "float32* y"), *np.zeros((2, 4), np.float32))


def test_float16_rounds_to_even() -> None:
    source = kernel(COPY, "float32* x", "float16* y!", "int64 n")
    x = np.array([1 + 2**-11, 1 + 3 * 2**-11, 65519.0, 65520.0, 2**-25, 3 * 2**-25], np.float32)
    y = np.zeros(len(x), np.float16)
    Loaded(source, host())(x, y, len(x))
    np.testing.assert_array_equal(y, np.array([1, 1 + 2**-9, 65504, np.inf, 0, 2**-23], np.float16))


def test_bfloat16_rounds_to_even() -> None:
    source = kernel(COPY, "float32* x", "bfloat16* y!", "int64 n")
    x = np.array([1 + 2**-8, 1 + 3 * 2**-8, np.nan, -np.inf, 1e-40, 3.4e38], np.float32)
    y = np.zeros(len(x), ml_dtypes.bfloat16)
    Loaded(source, host())(x, y, len(x))
    assert_same_elements(y, x.astype(ml_dtypes.bfloat16))
