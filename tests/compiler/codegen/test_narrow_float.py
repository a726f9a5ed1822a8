"""Narrow floats against ml_dtypes: every code, and float32 values around every rounding boundary."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from kernel_harness import Loaded, host, kernel

from onnxsmith_compiler.codegen.conversions import CONVERSIONS
from onnxsmith_compiler.codegen.target import Target
from onnxsmith_compiler.ir import dtype as dtypes
from onnxsmith_compiler.ir.dtype import DType
from onnxsmith_compiler.ops.rounding import float32_to_odd

NARROW = [dtype for dtype in dtypes.ALL if dtype.is_float and dtype.bits < 32]
COPY = """
for i in range(n):
    store(y, i, load(x, i))
"""


def without_native_half() -> Target:
    """The host, told to convert float16 by integer code."""
    features = host().features.replace("+f16c", "-f16c")
    return dataclasses.replace(host(), features=features)


def float32_samples(dtype: DType) -> np.ndarray:
    """All values of the type, the float32 numbers around the middles between neighbours, and extremes."""
    codes = np.arange(1 << dtype.bits, dtype=np.uint16 if dtype.bits == 16 else np.uint8)
    values = codes.view(dtype.storage).astype(np.float64)
    values = np.unique(values[np.isfinite(values)])
    middles = ((values[1:] + values[:-1]) / 2).astype(np.float32)
    last = np.float32(values[-1] + (values[-1] - values[-2]) / 2)
    exact = np.concatenate([values.astype(np.float32), middles, [last, -last]])
    near = [np.nextafter(exact, np.float32(side)) for side in (-np.inf, np.inf)]
    extremes = np.array([0.0, -0.0, np.nan, np.inf, -np.inf, 3.4e38, -3.4e38, 1e-45, -1e-45, 1e-38], np.float32)
    bits = np.random.default_rng(1).integers(0, 1 << 32, 20000, dtype=np.uint32).view(np.float32)
    return np.concatenate([exact, *near, extremes, bits]).astype(np.float32)


def stored_by_numpy(x: np.ndarray, dtype: DType) -> np.ndarray:
    with np.errstate(over="ignore", invalid="ignore"):
        return x.astype(dtype.storage)


@pytest.mark.parametrize("dtype", NARROW, ids=str)
@pytest.mark.parametrize("native", [True, False], ids=["native", "integer"])
def test_store_rounds_as_ml_dtypes(dtype: DType, native: bool) -> None:
    if dtype is not dtypes.FLOAT16 and not native:
        pytest.skip("only float16 has native conversions")
    x = float32_samples(dtype)
    y = np.zeros(len(x), dtype.storage)
    target = host() if native else without_native_half()
    Loaded(kernel(COPY, "float32* x", f"{dtype}* y!", "int64 n"), target)(x, y, len(x))
    expected = stored_by_numpy(x, dtype)
    nan = np.isnan(expected.astype(np.float32))
    np.testing.assert_array_equal(np.isnan(y.astype(np.float32)), nan)
    different = (y.view(np.uint8).reshape(len(x), -1) != expected.view(np.uint8).reshape(len(x), -1)).any(1) & ~nan
    assert not different.any(), (x[different][:5], y[different][:5], expected[different][:5])


def test_float16_loads_without_native_instructions() -> None:
    x = np.arange(1 << 16, dtype=np.uint16).view(np.float16)
    y = np.zeros(len(x), np.float32)
    Loaded(kernel(COPY, "float16* x", "float32* y!", "int64 n"), without_native_half())(x, y, len(x))
    np.testing.assert_array_equal(y, x.astype(np.float32))


@pytest.mark.parametrize("native", [True, False], ids=["native", "integer"])
@pytest.mark.parametrize("dtype", NARROW, ids=str)
def test_float64_is_rounded_once(dtype: DType, native: bool) -> None:
    """Beside the middle between two neighbours, nearer than float32 can tell, the nearer one is chosen."""
    codes = np.arange(1 << dtype.bits, dtype=np.uint16 if dtype.bits == 16 else np.uint8)
    with np.errstate(invalid="ignore"):
        values = codes.view(dtype.storage).astype(np.float64)
    values = np.unique(np.abs(values[np.isfinite(values)]))
    middles = (values[1:] + values[:-1]) / 2
    x = np.concatenate([np.nextafter(middles, 0), np.nextafter(middles, np.inf)])
    y = np.zeros(len(x), dtype.storage)
    rounding = f"round_to_{dtype}{'_nearest' if dtype.name == 'float8e8m0' else ''}"
    body = f"for i in range(n):\n    store(y, i, {rounding}(float32_to_odd(load(x, i))))"
    source = kernel(body, "float64* x", f"{dtype}* y!", "int64 n")
    Loaded(source, host() if native else without_native_half())(x, y, len(x))
    smallest = 1 if dtype.name == "float8e8m0" else 0  # whose subnormal is rounded by its bits, as ONNX has it
    expected = np.concatenate([values[:-1], values[1:]])
    keep = np.minimum(x, expected) >= values[smallest]
    np.testing.assert_array_equal(y.astype(np.float64)[keep], expected[keep])


@pytest.mark.parametrize("kind", ["float64", "int32", "uint32", "int64", "uint64"])
def test_rounding_to_odd_equals_its_reference(kind: str) -> None:
    rng = np.random.default_rng(2)
    bits = rng.integers(0, 1 << 64, 20000, dtype=np.uint64) >> rng.integers(0, 64, 20000).astype(np.uint64)
    x = bits.astype(kind) if kind != "float64" else np.concatenate([bits.view(np.float64), [1e300, -1e300, 1e-300]])
    x = np.append(x, [0, np.iinfo(kind).min, np.iinfo(kind).max] if kind != "float64" else [np.nan, np.inf, -0.0])
    x = x.astype(kind)
    y = np.zeros(len(x), np.float32)
    body = "for i in range(n):\n    store(y, i, float32_to_odd(load(x, i)))"
    Loaded(kernel(body, f"{kind}* x", "float32* y!", "int64 n"), host())(x, y, len(x))
    np.testing.assert_array_equal(y, float32_to_odd(x))


ROUNDINGS = [name for name in CONVERSIONS if name.startswith("round_to_")]


@pytest.mark.parametrize("name", ROUNDINGS)
def test_rounding_equals_its_reference(name: str) -> None:
    dtype = dtypes.BY_NAME[name.removeprefix("round_to_").split("_")[0]]
    x = np.ascontiguousarray(float32_samples(dtype)[:: 16 if dtype.bits == 16 else 1])
    y = np.zeros_like(x)
    source = kernel(f"for i in range(n):\n    store(y, i, {name}(load(x, i)))", "float32* x", "float32* y!", "int64 n")
    Loaded(source, host())(x, y, len(x))
    expected = np.array([CONVERSIONS[name](value) for value in x], np.float32)
    np.testing.assert_array_equal(y, expected)


@pytest.mark.parametrize("name", ["float8e4m3fn", "float8e4m3fnuz", "float8e5m2", "float8e5m2fnuz"])
def test_saturation_of_float8(name: str) -> None:
    largest = np.float32({"e4m3fn": 448, "e4m3fnuz": 240}.get(name[6:], 57344))
    saturating, wrapping = CONVERSIONS[f"round_to_{name}"], CONVERSIONS[f"round_to_{name}_wrap"]
    for x in (np.float32(1e30), np.float32(np.inf)):
        assert saturating(x) == largest and saturating(-x) == -largest
        assert wrapping(x) == np.inf if name == "float8e5m2" else np.isnan(wrapping(x))
    assert np.isnan(saturating(np.float32(np.nan)))


def test_e8m0_follows_onnx() -> None:
    from onnx.numpy_helper import to_float8e8m0

    x = float32_samples(dtypes.FLOAT8E8M0)
    for saturate in (True, False):
        for mode in ("up", "down", "nearest"):
            name = f"round_to_float8e8m0{'' if saturate else '_wrap'}_{mode}"
            expected = to_float8e8m0(x, saturate, mode).astype(np.float32)
            np.testing.assert_array_equal([CONVERSIONS[name](value) for value in x], expected)


def test_narrow_conversions_vectorise() -> None:
    """No element of a long row is converted alone: the loop works on vectors."""
    from kernel_harness import assembly

    for dtype in NARROW:
        text = assembly(kernel(COPY, "float32* x", f"{dtype}* y!", "int64 n"), Target.generic_x86_64("v4"))
        assert "zmm" in text, dtype
