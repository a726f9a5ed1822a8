"""Scalar intrinsics: compiled as in plain Python, and that against numpy, onnxruntime and C's rules."""

from __future__ import annotations

import functools
import re
from fractions import Fraction
from typing import Any

import numpy as np
import onnxruntime
import pytest
from elementwise import Elementwise, elementwise_source, same_bits
from kernel_harness import Loaded, assembly, host, kernel
from onnx import helper as onnx_helper

from onnxsmith_compiler.codegen.compile_errors import KernelCompileError
from onnxsmith_compiler.codegen.numba_adapter import compile_kernel
from onnxsmith_compiler.codegen.scalar import SCALAR_INTRINSICS
from onnxsmith_compiler.codegen.target import Target

Array = np.ndarray[Any, Any]
FLOATS = ("float32", "float64")
SIGNED = ("int8", "int16", "int32", "int64")
UNSIGNED = ("uint8", "uint16", "uint32", "uint64")
INTEGERS = SIGNED + UNSIGNED
LEVELS = [Target.generic_x86_64(level) for level in ("v2", "v3", "v4")] + [Target.generic_aarch64()]  # type: ignore[arg-type]

ON_FLOATS = {
    1: ("floor", "ceil", "rint", "trunc", "sqrt", "reciprocal"),
    2: ("copysign",),
    3: ("fma", "muladd"),
}
ON_INTEGERS = {
    1: ("bit_not", "popcount"),
    2: (
        *("int_div", "int_floordiv", "int_mod", "int_rem", "ipow"),
        *("bit_and", "bit_or", "bit_xor", "shift_left", "shift_right"),
    ),
}
ON_NUMBERS = {1: ("abs", "sign"), 2: ("maximum", "minimum", "sum_step", "prod_step")}
PREDICATES = ("isnan", "isinf", "signbit")

SAME_TYPE = [
    (name, arity, dtype)
    for names, dtypes in ((ON_FLOATS, FLOATS), (ON_INTEGERS, INTEGERS), (ON_NUMBERS, FLOATS + INTEGERS))
    for arity, group in names.items()
    for name in group
    for dtype in dtypes
]


def samples(dtype: str, count: int = 400, seed: int = 0) -> Array:
    """Random bit patterns, small numbers and the corners of the type."""
    rng = np.random.default_rng(seed)
    if dtype == "bool":
        return rng.integers(0, 2, count).astype(np.bool_)
    kind = np.dtype(dtype)
    patterns = rng.integers(0, 256, count * kind.itemsize, dtype=np.uint8).view(kind)
    if kind.kind == "f":
        limits = np.finfo(kind)
        corners = [0, limits.smallest_subnormal, limits.tiny, 0.5, 1, 1.5, 2.5, limits.max, np.inf, np.nan]
        corners = [*corners, *(-np.array(corners))]
        small = rng.normal(size=count) * 10
    else:
        low, high = int(np.iinfo(kind).min), int(np.iinfo(kind).max)
        corners = [low, low + 1, 0, 1, 2, 3, 7, 8 * kind.itemsize - 1, 8 * kind.itemsize, high - 1, high]
        corners += [-1, -2, -3] if low else []
        small = rng.integers(max(low, -70), 71, count)
    with np.errstate(all="ignore"):
        return np.concatenate([patterns, small.astype(kind), np.array(corners).astype(kind)])


def pairs(dtype: str, arity: int) -> tuple[Array, ...]:
    """Samples, and every pair of corners, for `arity` arguments."""
    columns = [samples(dtype, seed=seed) for seed in range(arity)]
    corners = columns[0][-14:]
    grid = np.array(np.meshgrid(*[corners] * arity), corners.dtype).reshape(arity, -1)
    return tuple(np.concatenate([column, part]) for column, part in zip(columns, grid, strict=True))


def without_extreme_products(a: Array, b: Array, c: Array) -> tuple[Array, ...]:
    """The arguments of float64 fmas whose partial products neither over- nor underflow."""
    with np.errstate(all="ignore"):
        product = np.abs(a * b)
        sizes = np.maximum(np.maximum(np.abs(a), np.abs(b)), np.abs(c))
        inside = (product > 2.0**-900) & (product < 2.0**990) & (sizes < 2.0**990)
    inside |= ~np.isfinite(sizes) & ((np.minimum(np.abs(a), np.abs(b)) > 0) & (product != np.inf))
    return a[inside], b[inside], c[inside]


def plain(name: str, *arguments: Any) -> Array:
    with np.errstate(all="ignore"):
        return np.asarray(SCALAR_INTRINSICS[name](*arguments))


def expression(name: str, arity: int) -> str:
    return f"{name}({', '.join('abcd'[:arity])})"


def assert_same(actual: Array, expected: Array, *arguments: Array) -> None:
    assert actual.dtype == expected.dtype
    wrong = ~same_bits(actual, expected)
    assert not wrong.any(), ([a[wrong][0] for a in arguments], actual[wrong][0], expected[wrong][0])


@pytest.mark.parametrize(("name", "arity", "dtype"), SAME_TYPE)
def test_compiled_is_as_in_plain_python(name: str, arity: int, dtype: str) -> None:
    if name == "muladd" and not host().fma:
        pytest.skip("rounds twice on this machine")
    arguments = pairs(dtype, arity)
    if name in ("fma", "muladd") and dtype == "float64":
        arguments = without_extreme_products(*arguments)
    compiled = Elementwise(expression(name, arity), (dtype,) * arity, dtype)
    actual, expected = compiled(*arguments), plain(name, *arguments)
    if name in ("maximum", "minimum"):  # of zeros, either
        zero = np.dtype(dtype).type(0)
        actual, expected = np.where(actual == 0, zero, actual), np.where(expected == 0, zero, expected)
    assert_same(actual, expected, *arguments)


@pytest.mark.parametrize(("name", "arity", "dtype"), SAME_TYPE)
def test_plain_python_takes_scalars(name: str, arity: int, dtype: str) -> None:
    arguments = [column[3:6] for column in pairs(dtype, arity)]
    expected = plain(name, *arguments)
    with np.errstate(all="ignore"):
        scalars = [SCALAR_INTRINSICS[name](*elements) for elements in zip(*arguments, strict=True)]
    assert all(type(scalar) is np.dtype(dtype).type for scalar in scalars)
    assert same_bits(np.array(scalars), expected).all()


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("name", PREDICATES)
def test_predicates(name: str, dtype: str) -> None:
    x = samples(dtype)
    compiled = Elementwise(expression(name, 1), (dtype,), "bool")
    assert_same(compiled(x), getattr(np, name)(x), x)
    assert_same(plain(name, x), getattr(np, name)(x), x)


@pytest.mark.parametrize("name", ["bit_and", "bit_or", "bit_xor", "maximum", "minimum"])
def test_booleans(name: str) -> None:
    a, b = np.array([False, False, True, True]), np.array([False, True, False, True])
    numpy_name = name.replace("bit_", "bitwise_")
    expected = getattr(np, numpy_name)(a, b)
    assert_same(Elementwise(expression(name, 2), ("bool", "bool"), "bool")(a, b), expected)
    assert_same(plain(name, a, b), expected)
    assert_same(Elementwise("bit_not(a)", ("bool",), "bool")(a), ~a)
    assert_same(plain("bit_not", a), ~a)


@pytest.mark.parametrize("dtype", [*FLOATS, *INTEGERS, "bool"])
def test_select(dtype: str) -> None:
    a, b = samples(dtype, seed=1), samples(dtype, seed=2)
    condition = samples("bool", len(a))
    compiled = Elementwise("select(a, b, c)", ("bool", dtype, dtype), dtype)
    assert_same(compiled(condition, a, b), np.where(condition, a, b))
    assert_same(plain("select", condition, a, b), np.where(condition, a, b))


@pytest.mark.parametrize("dtype", FLOATS)
def test_extremes_let_nan_through(dtype: str) -> None:
    a = np.array([np.nan, 1, -np.inf, 3, np.nan], dtype)
    b = np.array([1, np.nan, np.inf, 2, np.inf], dtype)
    for name, expected in (("maximum", np.maximum(a, b)), ("minimum", np.minimum(a, b))):
        assert_same(plain(name, a, b), expected)
        assert_same(Elementwise(expression(name, 2), (dtype, dtype), dtype)(a, b), expected)
        assert np.isnan(expected[[0, 1, 4]]).all()


@functools.cache
def onnxruntime_cast(source: str, target: str) -> onnxruntime.InferenceSession:
    code = {name: onnx_helper.np_dtype_to_tensor_dtype(np.dtype(name)) for name in (source, target)}
    graph = onnx_helper.make_graph(
        [onnx_helper.make_node("Cast", ["x"], ["y"], to=code[target])],
        "cast",
        [onnx_helper.make_tensor_value_info("x", code[source], [None])],
        [onnx_helper.make_tensor_value_info("y", code[target], [None])],
    )
    model = onnx_helper.make_model(graph, opset_imports=[onnx_helper.make_opsetid("", 21)], ir_version=10)
    return onnxruntime.InferenceSession(model.SerializeToString())


@pytest.mark.parametrize("target", INTEGERS)
@pytest.mark.parametrize("source", [*FLOATS, *INTEGERS, "bool"])
def test_truncation_is_onnxruntimes_cast(source: str, target: str) -> None:
    x = samples(source, 2000)
    if source in FLOATS:
        edges = np.array([2.0**bits for bits in (7, 8, 15, 16, 31, 32, 63, 64)])
        edges = np.concatenate([edges, -edges]).astype(source)
        near = [np.nextafter(edges, edges.dtype.type(side)) for side in (-np.inf, np.inf)]
        x = np.concatenate([x, edges, *near])
    name = f"trunc_to_{target}"
    compiled = Elementwise(f"{name}(a)", (source,), target)
    assert_same(compiled(x), plain(name, x), x)
    if host().architecture == "x86_64":
        assert_same(plain(name, x), onnxruntime_cast(source, target).run(None, {"x": x})[0], x)


@pytest.mark.parametrize("dtype", [*FLOATS, *INTEGERS, "bool"])
def test_boolean(dtype: str) -> None:
    x = samples(dtype)
    assert_same(Elementwise("boolean(a)", (dtype,), "bool")(x), x != 0, x)
    assert_same(plain("boolean", x), x != 0, x)


def exact_integer(name: str, a: int, b: int, dtype: str) -> int:
    """The operation on unbounded integers, wrapped to the type."""
    bits = 8 * np.dtype(dtype).itemsize
    if name in ("int_div", "int_floordiv", "int_mod", "int_rem"):
        if b == 0:
            return 0
        truncated = abs(a) // abs(b) * (1 if (a < 0) == (b < 0) else -1)
        value = {
            "int_div": truncated,
            "int_floordiv": a // b,
            "int_mod": a % b,
            "int_rem": a - truncated * b,
        }[name]
    elif name == "ipow":
        value = pow(a, b, 1 << bits) if b >= 0 else (a ** (b % 2) if a in (1, -1) else 0)
    else:
        inside = 0 <= b < bits
        value = (a << b if inside else 0) if name == "shift_left" else a >> (b if inside else bits)
    return int(np.array([int(value) % (1 << bits)], f"u{bits // 8}").view(dtype)[0])


@pytest.mark.parametrize("dtype", INTEGERS)
@pytest.mark.parametrize("name", ["int_div", "int_floordiv", "int_mod", "int_rem", "ipow", "shift_left", "shift_right"])
def test_integers_follow_their_rules(name: str, dtype: str) -> None:
    a, b = pairs(dtype, 2)
    expected = [exact_integer(name, int(x), int(y), dtype) for x, y in zip(a, b, strict=True)]
    assert_same(plain(name, a, b), np.array(expected, dtype), a, b)


def rounded(value: Fraction, dtype: str) -> float:
    """The nearest float of the type, ties to even."""
    if dtype == "float64":
        return float(value)
    near = np.float32(float(value))
    candidates = [near, np.nextafter(near, np.float32(-np.inf)), np.nextafter(near, np.float32(np.inf))]
    return min(candidates, key=lambda x: (abs(Fraction(float(x)) - value), int(np.float32(x).view(np.uint32)) & 1))


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("target", [host(), Target.generic_x86_64("v2")], ids=["host", "without FMA"])
def test_fma_rounds_once(target: Target, dtype: str) -> None:
    rng = np.random.default_rng(4)
    a, b = (1 + rng.integers(0, 1 << 12, (2, 3000)) / 4096).astype(dtype)
    c = -(a * b) * rng.choice([0, 1, 1e-7, 1e-9, 2.0**24, 2.0**53, 3e-17], 3000)
    c = c.astype(dtype)
    expected = [
        rounded(Fraction(float(x)) * Fraction(float(y)) + Fraction(float(z)), dtype)
        for x, y, z in zip(a, b, c, strict=True)
    ]
    compiled = Elementwise("fma(a, b, c)", (dtype,) * 3, dtype, target)
    assert_same(compiled(a, b, c), np.array(expected, dtype), a, b, c)
    assert_same(plain("fma", a, b, c), np.array(expected, dtype), a, b, c)


@pytest.mark.parametrize("dtype", FLOATS)
def test_fma_without_the_instruction(dtype: str) -> None:
    arguments = pairs(dtype, 3)
    if dtype == "float64":
        arguments = without_extreme_products(*arguments)
    compiled = Elementwise("fma(a, b, c)", (dtype,) * 3, dtype, Target.generic_x86_64("v2"))
    assert_same(compiled(*arguments), plain("fma", *arguments), *arguments)


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("target", [host(), Target.generic_x86_64("v2")], ids=["host", "v2"])
def test_ldexp(target: Target, dtype: str) -> None:
    bits, limit = (100, 250) if dtype == "float32" else (1000, 2000)
    rng = np.random.default_rng(5)
    x = np.ldexp(rng.normal(size=5000), rng.integers(-bits, bits, 5000)).astype(dtype)
    x = np.concatenate([x, np.array([0.0, -0.0, np.inf, -np.inf, np.nan], dtype)])
    n = rng.integers(-limit, limit, len(x)).astype(np.int32)
    compiled = Elementwise("ldexp(a, b)", (dtype, "int32"), dtype, target)
    with np.errstate(all="ignore"):
        # The two products of a target without the instruction round twice only below the normal range.
        expected = np.ldexp(x, n)
        normal = (np.abs(expected) >= np.finfo(dtype).tiny) | (expected == 0) | np.isnan(expected)
    actual = compiled(x, n)
    assert same_bits(actual[normal], expected[normal]).all()
    np.testing.assert_allclose(actual, expected, rtol=0, atol=float(np.finfo(dtype).smallest_subnormal))


@pytest.mark.parametrize(("float_type", "integer"), [("float32", "int32"), ("float64", "int64")])
def test_bits_of_floats(float_type: str, integer: str) -> None:
    x = samples(float_type)
    assert_same(Elementwise("float_to_bits(a)", (float_type,), integer)(x), x.view(integer))
    assert_same(plain("float_to_bits", x), x.view(integer))
    for kind in (integer, f"u{integer}"):
        bits = samples(kind)
        assert_same(Elementwise("bits_to_float(a)", (kind,), float_type)(bits), bits.view(float_type))
        assert_same(plain("bits_to_float", bits), bits.view(float_type))


@pytest.mark.parametrize("dtype", FLOATS)
def test_polynomial(dtype: str) -> None:
    x = samples(dtype, 3000)
    compiled = Elementwise("polynomial(a, 1.0, 0.1, -0.3)", (dtype,), dtype)(x)
    with np.errstate(all="ignore"):
        wide = x.astype(np.longdouble)
        kind = np.dtype(dtype).type
        exact = kind(1.0) + wide * (kind(0.1) + wide * kind(-0.3))
        where = np.isfinite(exact.astype(dtype))
        error = np.abs(compiled - exact)[where]
        scale = (1 + np.abs(wide) * (0.1 + np.abs(wide) * 0.3))[where]
    assert (error <= 2 * np.finfo(dtype).eps * scale).all()
    if host().fma:
        assert_same(compiled, plain("polynomial", x, 1.0, 0.1, -0.3), x)


def test_reduction_steps_vectorise_and_nothing_else_is_reassociated() -> None:
    v4 = Target.generic_x86_64("v4")
    loop = "total = float32({start})\nfor i in range(n):\n    total = {step}\nstore(y, 0, total)"
    for name, start in (("sum_step", 0.0), ("prod_step", 1.0)):
        body = loop.format(start=start, step=f"{name}(total, load(x, i))")
        text = assembly(kernel(body, "float32* x", "float32* y!", "int64 n"), v4)
        assert re.search(rf"v{'add' if start == 0 else 'mul'}ps\s.*%zmm", text)
    plain_sum = loop.format(start=0.0, step="total + load(x, i)")
    text = assembly(kernel(plain_sum, "float32* x", "float32* y!", "int64 n"), v4)
    assert not re.search(r"vaddps\s.*%zmm", text)


def test_sum_step_leaves_its_operands_alone() -> None:
    """(x + inf) - inf is NaN: folded into x it would be the loop's sum."""
    body = """
total = float32(0.0)
for i in range(n):
    total = sum_step(total, (load(x, i) + load(z, 0)) - load(z, 0))
store(y, 0, total)
"""
    x, y = np.ones(64, np.float32), np.zeros(1, np.float32)
    run = Loaded(kernel(body, "float32* x", "float32* z", "float32* y!", "int64 n"), host())
    run(x, np.array([np.inf], np.float32), y, 64)
    assert np.isnan(y[0])


@pytest.mark.parametrize(
    ("text", "arguments", "message"),
    [
        ("maximum(a, b)", ("float32", "float64"), "one type.*float32, float64.*convert"),
        ("fma(a, a, 1)", ("float32",), "one type"),
        ("floor(a)", ("int32",), "floor takes float32 and float64, got int32"),
        ("bit_and(a, a)", ("float32",), "bit_and takes"),
        ("select(a, b, b)", ("int32", "float32"), "condition takes booleans, got int32"),
        ("ldexp(a, b)", ("float32", "int64"), "int32 exponent, got int64"),
        ("bits_to_float(a)", ("int16",), "bits_to_float takes .*got int16"),
    ],
)
def test_wrong_types_are_refused(text: str, arguments: tuple[str, ...], message: str) -> None:
    with pytest.raises(KernelCompileError, match=message):
        compile_kernel(elementwise_source(text, arguments, arguments[-1]), "refused", host())


def every_call() -> dict[tuple[tuple[str, ...], str], list[str]]:
    """All calls, by the types of their arguments and of their result."""
    calls = [(expression(name, arity), (dtype,) * arity, dtype) for name, arity, dtype in SAME_TYPE]
    calls += [(f"trunc_to_{to}(a)", (of,), to) for to in INTEGERS for of in FLOATS]
    calls += [(f"{name}(a)", (dtype,), "bool") for name in (*PREDICATES, "boolean") for dtype in FLOATS]
    calls += [("ldexp(a, b)", (dtype, "int32"), dtype) for dtype in FLOATS]
    groups: dict[tuple[tuple[str, ...], str], list[str]] = {}
    for text, arguments, result in calls:
        groups.setdefault((arguments, result), []).append(text)
    return groups


@pytest.mark.parametrize("target", LEVELS, ids=lambda target: target.cpu + target.architecture)
def test_no_library_is_called(target: Target) -> None:
    for (arguments, result), calls in every_call().items():
        loads = "\n".join(f"    {name} = load({name}_, i)" for name in "abc"[: len(arguments)])
        stores = "\n".join(f"    store(y, {len(calls)} * i + {k}, {text})" for k, text in enumerate(calls))
        pointers = [f"{kind}* {name}_" for kind, name in zip(arguments, "abc", strict=False)]
        source = kernel(f"for i in range(n):\n{loads}\n{stores}", *pointers, f"{result}* y!", "int64 n")
        called = re.findall(r"^\s+(?:callq?|bl|jmp|b)\s+([A-Za-z_]\w*)", assembly(source, target), re.MULTILINE)
        assert not called, calls


@pytest.mark.parametrize("dtype", ["float32", "int32"])
@pytest.mark.parametrize("name", ["maximum", "minimum", "abs", "sign", "floor", "rint", "muladd", "shift_left"])
def test_vectorises(name: str, dtype: str) -> None:
    call = next((c for c in SAME_TYPE if c[0] == name and c[2] == dtype), None)
    if call is None:
        pytest.skip(f"{name} does not take {dtype}")
    source = elementwise_source(expression(name, call[1]), (dtype,) * call[1], dtype)
    text = assembly(source, Target.generic_x86_64("v4"))
    assert len(re.findall(r"%zmm", text)) >= 4
