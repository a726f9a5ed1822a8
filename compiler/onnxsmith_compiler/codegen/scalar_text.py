"""How each scalar function of the loop IR is written in a printed kernel."""

from __future__ import annotations

from onnxsmith_compiler.ir import dtype as dtypes
from onnxsmith_compiler.ir.dtype import DType

_OPERATORS = {
    "add": "+",
    "sub": "-",
    "mul": "*",
    "eq": "==",
    "ne": "!=",
    "lt": "<",
    "le": "<=",
    "gt": ">",
    "ge": ">=",
}
_INTRINSICS = {
    "min": "minimum", "max": "maximum", "select": "select", "floor": "floor", "ceil": "ceil", "round": "rint",
    "trunc": "trunc", "sqrt": "sqrt", "reciprocal": "reciprocal", "abs": "abs", "sign": "sign", "isnan": "isnan",
    "isinf": "isinf", "and": "bit_and", "or": "bit_or", "xor": "bit_xor", "not": "bit_not", "bitand": "bit_and",
    "bitor": "bit_or", "bitxor": "bit_xor", "bitnot": "bit_not", "shl": "shift_left", "shr": "shift_right",
}  # fmt: skip
_ELEMENTARY = frozenset(
    [
        "exp",
        "expm1",
        "log",
        "log1p",
        "sin",
        "cos",
        "tan",
        "asin",
        "acos",
        "atan",
        "sinh",
        "cosh",
        "tanh",
        "asinh",
        "acosh",
        "atanh",
        "erf",
        "sigmoid",
        "softplus",
        "pow",
    ]
)
_INTEGER = {"div": "int_div", "mod": "int_mod", "fmod": "int_rem", "pow": "ipow"}


def scalar_text(function: str, dtype: DType, operand: DType, arguments: list[str]) -> str:
    """An expression for `function` of arguments (of type `operand`) with a result of type `dtype`."""
    joined = ", ".join(arguments)
    if function == "cast":
        # numpy's integer types leave floats out of their range undefined once compiled.
        truncates = operand.is_float and dtype.is_integer and dtype.bits >= 8
        return f"trunc_to_{dtype}({joined})" if truncates else f"{dtype}({joined})"
    if function == "cast_to_odd":
        return f"float32_to_odd({joined})"
    if function.startswith(("round_to_", "wrap_")):
        return f"{function}({joined})"
    if function == "neg":
        return f"-{arguments[0]}" if operand.is_float else f"{dtype}(-{arguments[0]})"
    if function in _OPERATORS:
        text = f"({arguments[0]} {_OPERATORS[function]} {arguments[1]})"
        wraps = operand.is_integer and dtype is not dtypes.BOOL and dtype not in (dtypes.INT64, dtypes.UINT64)
        return f"{dtype}{text}" if wraps else text
    if function in _INTEGER and operand.is_integer:
        return f"{_INTEGER[function]}({joined})"
    if function == "div":
        return f"({arguments[0]} / {arguments[1]})"
    if function in ("mod", "fmod"):
        return (
            f"float_{function}_{_suffix(operand)}({joined})"
            if function == "mod"
            else f"fmod_{_suffix(operand)}({joined})"
        )
    if function in _ELEMENTARY:
        return f"{function}_{_suffix(operand)}({joined})"
    if function in _INTRINSICS:
        return f"{_INTRINSICS[function]}({joined})"
    raise KeyError(f"no printed form for scalar function '{function}'")


def _suffix(dtype: DType) -> str:
    return "f64" if dtype is dtypes.FLOAT64 else "f32"


def literal(value: bool | int | float, dtype: DType) -> str:
    """A constant of compute type `dtype`, exactly typed."""
    if dtype is dtypes.BOOL:
        return "True" if value else "False"
    if dtype.is_float:
        value = float(value)
        if value != value:
            return f"{dtype}(nan)"
        if value in (float("inf"), float("-inf")):
            return f"{dtype}({'-' if value < 0 else ''}inf)"
        return f"{dtype}({value!r})"
    return f"{dtype}({int(value)})"


def lowest(dtype: DType) -> str:
    """The least value of the type: what a maximum over nothing is."""
    return literal(_extreme_value(dtype, lowest=True), dtype)


def greatest(dtype: DType) -> str:
    return literal(_extreme_value(dtype, lowest=False), dtype)


def _extreme_value(dtype: DType, lowest: bool) -> bool | int | float:
    if dtype.is_float:
        return float("-inf") if lowest else float("inf")
    if dtype is dtypes.BOOL:
        return not lowest
    if dtype.kind == "uint":
        return 0 if lowest else (1 << dtype.bits) - 1
    return -(1 << (dtype.bits - 1)) if lowest else (1 << (dtype.bits - 1)) - 1
