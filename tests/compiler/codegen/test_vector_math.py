"""Errors of the elementary functions, against float64 for float32 and long double for float64."""

from __future__ import annotations

import functools
import re
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from elementwise import Elementwise, elementwise_source, same_bits, ulp_errors
from kernel_harness import assembly, host
from scipy import special

from onnxsmith_compiler.codegen.target import Target
from onnxsmith_compiler.codegen.vector_math import PARTIAL_MATH, VECTOR_MATH

Array = np.ndarray[Any, Any]
FUNCTIONS = {**VECTOR_MATH, **PARTIAL_MATH}
PATTERNS = 1 << 32
CHUNK = 1 << 18
STRIDE = 2099  # 2 million bit patterns
WITHOUT_FMA = Target.generic_x86_64("v2")
TARGETS = [Target.generic_x86_64(level) for level in ("v2", "v3", "v4")] + [Target.generic_aarch64()]  # type: ignore[arg-type]
REMAINDERS = ("fmod", "float_mod")
needs_long_double = pytest.mark.skipif(
    np.finfo(np.longdouble).nmant < 63, reason="long double is no wider than float64 here"
)


def sigmoid(x: Array) -> Array:
    e = np.exp(-np.abs(x))
    return np.where(x < 0, e, 1) / (1 + e)


def softplus(x: Array) -> Array:
    return np.maximum(x, 0) + np.log1p(np.exp(-np.abs(x)))


EXACT: dict[str, Callable[[Array], Array]] = {
    "exp": np.exp,
    "exp2": np.exp2,
    "expm1": np.expm1,
    "log": np.log,
    "log1p": np.log1p,
    "log2": np.log2,
    "log10": np.log10,
    "rsqrt": lambda x: 1 / np.sqrt(x),
    "sigmoid": sigmoid,
    "softplus": softplus,
    "erf": special.erf,
    "sinh": np.sinh,
    "cosh": np.cosh,
    "tanh": np.tanh,
    "asinh": np.arcsinh,
    "acosh": np.arccosh,
    "atanh": np.arctanh,
    "asin": np.arcsin,
    "acos": np.arccos,
    "atan": np.arctan,
    "sin": np.sin,
    "cos": np.cos,
    "tan": np.tan,
}
ANGLES = ("sin", "cos", "tan")


def stated_bound(name: str) -> float:
    """The error in ulp that the function's docstring promises."""
    found = re.search(r"within ([\d.]+) ulp", FUNCTIONS[name].function.__doc__ or "")
    assert found is not None, f"{name} states no bound"
    return float(found[1])


@functools.cache
def compiled(name: str, target: Target) -> Elementwise:
    function = FUNCTIONS[name]
    call = f"{name}({', '.join('abcd'[: len(function.arguments)])})"
    return Elementwise(call, function.arguments, function.result, target)


def assert_within_bound(name: str, target: Target, exact: Array, *arguments: Array) -> None:
    actual = compiled(name, target)(*arguments)
    error = ulp_errors(actual, exact)
    worst = int(np.argmax(error))
    at = [argument[worst] for argument in arguments]
    assert error[worst] <= stated_bound(name), f"{name}{at} is {actual[worst]}, not {exact[worst]}"


def assert_float32_patterns(name: str, target: Target, patterns: Array) -> None:
    x = np.concatenate([patterns.astype(np.uint32).view(np.float32), special_values(np.float32)])
    with np.errstate(all="ignore"):
        exact = EXACT[name](x.astype(np.float64))
    assert_within_bound(f"{name}_f32", target, exact, x)


def test_every_function_is_in_the_table_of_exact_ones() -> None:
    functions = {name.rpartition("_")[0] for name in VECTOR_MATH}
    assert functions == {*EXACT, "pow", *REMAINDERS}
    assert len(VECTOR_MATH) == 2 * len(functions)


@pytest.mark.parametrize("target", [host(), WITHOUT_FMA], ids=["host", "without FMA"])
@pytest.mark.parametrize("name", EXACT)
def test_float32_over_its_whole_range(name: str, target: Target) -> None:
    stride = STRIDE if target == host() else 16 * STRIDE
    assert_float32_patterns(name, target, np.arange(0, PATTERNS, stride))


@pytest.mark.parametrize("target", [host(), WITHOUT_FMA], ids=["host", "without FMA"])
def test_exponential_of_negative_numbers(target: Target) -> None:
    rng = np.random.default_rng(1)
    x = np.concatenate([-rng.uniform(0, 87, 1 << 18), -np.logspace(-45, 1, 1 << 16), [-87.0]]).astype(np.float32)
    assert_within_bound("exp_negative_f32", target, np.exp(x.astype(np.float64)), x)
    far = np.array([0, -0.0, -87.1, -1e30, -np.inf, np.nan], np.float32)
    np.testing.assert_array_equal(compiled("exp_negative_f32", target)(far), [1, 1, 0, 0, 0, np.nan])


@pytest.mark.slow
@pytest.mark.parametrize("name", EXACT)
def test_every_float32(name: str) -> None:
    for start in range(0, PATTERNS, CHUNK):
        assert_float32_patterns(name, host(), np.arange(start, start + CHUNK))


def special_values(dtype: Any) -> Array:
    limits = np.finfo(dtype)
    magnitudes = [
        0,
        limits.smallest_subnormal,
        limits.tiny,
        limits.eps,
        0.5,
        1,
        2,
        3,
        1e30,
        limits.max,
        np.inf,
    ]
    return np.array([*magnitudes, *(-np.array(magnitudes, dtype)), np.nan], dtype)


def float64_samples(count: int) -> Array:
    rng = np.random.default_rng(0)
    parts = [
        rng.integers(0, 1 << 64, count, dtype=np.uint64).view(np.float64),
        rng.uniform(-750, 750, count),
        rng.uniform(-1, 1, count),
        rng.normal(size=count),
        1 + 10.0 ** rng.uniform(-16, 3, count),
        -(10.0 ** rng.uniform(-12, 3, count)),
        # The float64s nearest to multiples of pi/2.
        np.rint(rng.uniform(0, 1e6, count)) * (np.pi / 2),
        np.array([6381956970095103.0 * 2.0**797, 5.319372648326541e255]),
    ]
    return np.concatenate([*parts, special_values(np.float64)])


@needs_long_double
@pytest.mark.parametrize("target", [host(), WITHOUT_FMA], ids=["host", "without FMA"])
@pytest.mark.parametrize("name", [name for name in EXACT if name != "erf"])
def test_float64(name: str, target: Target) -> None:
    x = float64_samples(20000 if target == host() else 2000)
    with np.errstate(all="ignore"):
        exact = EXACT[name](x.astype(np.longdouble))
    assert_within_bound(f"{name}_f64", target, exact, x)


def erf_series(x: Array) -> Array:
    """erf in long double: 2 x exp(-x^2) / sqrt(pi) times the sum of (2 x^2)^k / (1 3 5 ... (2 k + 1))."""
    wide = x.astype(np.longdouble)
    term = total = 2 * wide * np.exp(-wide * wide) / np.sqrt(4 * np.arctan(np.longdouble(1)))
    for k in range(1, 200):
        term = term * (2 * wide * wide) / (2 * k + 1)
        total = total + term
    return total


@needs_long_double
def test_erf_f64() -> None:
    rng = np.random.default_rng(1)
    x = np.concatenate([rng.uniform(-6.5, 6.5, 20000), rng.normal(size=5000) * 1e-5, np.array([0.0, -0.0])])
    assert_within_bound("erf_f64", host(), erf_series(x), x)
    assert_within_bound("erf_f64", WITHOUT_FMA, erf_series(x), x)
    far = np.array([7, -7, 1e300, np.inf, -np.inf, np.nan, 5e-324])
    np.testing.assert_array_equal(compiled("erf_f64", host())(far), [1, -1, 1, 1, -1, np.nan, 5e-324])


@pytest.mark.parametrize("name", ANGLES)
def test_float32s_nearest_to_quarter_turns(name: str) -> None:
    """Where cancellation in the reduction of the argument is worst, at every exponent."""
    rng = np.random.default_rng(2)
    bits = rng.integers(0x3F000000, 0x7F800000, 200000, dtype=np.uint32)
    with np.errstate(all="ignore"):
        near = np.abs(np.cos(bits.view(np.float32).astype(np.float64)))
        near = np.minimum(near, np.sqrt(1 - near * near))
    assert_float32_patterns(name, host(), bits[np.argsort(near)[:2000]])


def pow_samples(dtype: Any, count: int) -> tuple[Array, Array]:
    rng = np.random.default_rng(3)
    unsigned = np.dtype(f"u{np.dtype(dtype).itemsize}")
    patterns = rng.integers(0, np.iinfo(unsigned).max, (2, count), dtype=unsigned).view(dtype)
    base = np.exp(rng.uniform(-30, 30, count))
    overflow = np.log(float(np.finfo(dtype).max))
    x = [patterns[0], base, base, 1 + rng.normal(size=count) * 1e-4, -np.abs(rng.normal(size=count) * 9)]
    y = [
        patterns[1],
        rng.uniform(-1.1, 1.1, count) * overflow / np.log(base),
        rng.normal(size=count) * 2,
        rng.normal(size=count) * 1e5,
        rng.integers(-30, 30, count),
    ]
    corners = np.append(special_values(dtype), np.array([1.5, -1.5, 2**24 + 1, -5], dtype))
    pairs = np.array(np.meshgrid(corners, corners)).reshape(2, -1)
    with np.errstate(all="ignore"):
        return np.concatenate([*x, pairs[0]]).astype(dtype), np.concatenate([*y, pairs[1]]).astype(dtype)


@needs_long_double
@pytest.mark.parametrize("target", [host(), WITHOUT_FMA], ids=["host", "without FMA"])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_pow(dtype: Any, target: Target) -> None:
    x, y = pow_samples(dtype, 40000)
    with np.errstate(all="ignore"):
        exact = np.power(x.astype(np.longdouble), y.astype(np.longdouble))
    assert_within_bound("pow_f32" if dtype == np.float32 else "pow_f64", target, exact, x, y)


@pytest.mark.parametrize(("name", "exact"), [("fmod", np.fmod), ("float_mod", np.mod)])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_remainders_are_exact(name: str, exact: Any, dtype: Any) -> None:
    x, y = pow_samples(dtype, 20000)
    with np.errstate(all="ignore"):
        expected = exact(x, y)
    suffix = "f32" if dtype == np.float32 else "f64"
    actual = compiled(f"{name}_{suffix}", host())(x, y)
    wrong = ~same_bits(actual, expected)
    assert not wrong.any(), (x[wrong][0], y[wrong][0], actual[wrong][0], expected[wrong][0])
    few = slice(-(len(special_values(dtype)) ** 2), None, 3)
    plain = [VECTOR_MATH[f"{name}_{suffix}"](a, b) for a, b in zip(x[few], y[few], strict=True)]
    assert same_bits(np.array(plain, dtype), expected[few]).all()


@pytest.mark.skipif(not host().fma, reason="plain Python computes as targets with FMA do")
@pytest.mark.parametrize("name", [name for name in VECTOR_MATH if not name.startswith(REMAINDERS)])
def test_plain_python_gives_the_same_bits(name: str) -> None:
    kind = np.float32 if name.endswith("f32") else np.float64
    x, y = pow_samples(kind, 500)
    arguments = (x, y)[: len(VECTOR_MATH[name].arguments)]
    with np.errstate(all="ignore"):
        plain = np.asarray(VECTOR_MATH[name](*arguments))
    actual = compiled(name, host())(*arguments)
    wrong = ~same_bits(actual, plain)
    assert not wrong.any(), (x[wrong][0], actual[wrong][0], plain[wrong][0])
    with np.errstate(all="ignore"):
        scalar = VECTOR_MATH[name](*(argument[5] for argument in arguments))
    assert type(scalar) is kind
    assert same_bits(np.array([scalar]), plain[5:6]).all()


@pytest.mark.parametrize("target", TARGETS, ids=lambda target: target.cpu + target.architecture)
@pytest.mark.parametrize("name", VECTOR_MATH)
def test_no_library_is_called(name: str, target: Target) -> None:
    function = VECTOR_MATH[name]
    call = f"{name}({', '.join('abcd'[: len(function.arguments)])})"
    text = assembly(elementwise_source(call, function.arguments, function.result), target)
    calls = re.findall(r"^\s+(?:callq?|bl|jmp|b)\s+([A-Za-z_]\w*)", text, re.MULTILINE)
    assert not calls


@pytest.mark.parametrize("name", [name for name in VECTOR_MATH if not name.startswith(REMAINDERS)])
def test_vectorises(name: str) -> None:
    """512-bit arithmetic where the target has it."""
    function = VECTOR_MATH[name]
    call = f"{name}({', '.join('abcd'[: len(function.arguments)])})"
    source = elementwise_source(call, function.arguments, function.result)
    text = assembly(source, Target.generic_x86_64("v4"))
    assert len(re.findall(r"^\s+v\w+p[sd]\s.*%zmm", text, re.MULTILINE)) >= 2
