"""What a contraction kernel does around its tiles: how an element is read, and what becomes of a result.

Templates (matmul, convolution, attention) print the loops; their caller supplies the lines inside. A name
that these lines define or take as a parameter is letters followed by digits ("x0", "v12"); no name of a
template ends in a digit, so the two never meet.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from onnxsmith_compiler.codegen.scalar_text import literal
from onnxsmith_compiler.codegen.source import Parameter
from onnxsmith_compiler.ir.dtype import DType


@dataclass(frozen=True)
class Epilogue:
    """Consumes every element of a contraction's result.

    `lines(acc, m, n, batch)` gives the Python lines for one element, the `store` of it included: `acc` is the
    variable of the compute type that holds it; `m` (row, or output pixel counted through the images),
    `n` (column, or output channel) and `batch` (index of the product, or 0) are int64 variables. The lines
    stand in a loop over n that should vectorise: no `return`, no loop.

    `destination(m, n, batch)` is an int64 expression: the address that the element is stored at. It is given
    only where rows are dense and follow each other in memory; kernels prefetch by it what they will write.
    """

    parameters: tuple[Parameter, ...]
    lines: Callable[[str, str, str, str], Sequence[str]]
    destination: Callable[[str, str, str], str] | None = None


@dataclass(frozen=True)
class Prologue:
    """Produces every element of a contraction's left operand.

    `lines(m, k, batch)` gives (Python lines for one element, the expression of the compute type that is its
    value). They stand in a loop over k that should vectorise.
    """

    parameters: tuple[Parameter, ...]
    lines: Callable[[str, str, str], tuple[Sequence[str], str]]


@dataclass(frozen=True)
class Score:
    """Turns a product of a query and a key into the argument of softmax: scale, mask, and what else stands
    between.

    `lines(acc, batch, head, query, key)` gives (Python lines, the expression of the compute type that is
    the score). `acc` holds the product, the others are int64 variables. The lines stand in a loop over keys
    that should vectorise.
    """

    parameters: tuple[Parameter, ...]
    lines: Callable[[str, str, str, str, str], tuple[Sequence[str], str]]


def scaled_score(dtype: DType, scale: float, mask: str | None = None, softcap: float | None = None) -> Score:
    """scale * product, squeezed into (-softcap, softcap) where that is given, plus an additive mask.

    `mask` is the name of the mask's DType. Parameters with a mask, in order: x0 (its elements), n1 (the
    first one that is used), n2 to n5 (its strides over batch, head, query and key).
    """
    parameters: tuple[Parameter, ...] = ()
    if mask is not None:
        parameters = (Parameter("x0", f"{mask}*"), *(Parameter(f"n{i}", "int64") for i in range(1, 6)))
    tanh = f"tanh_f{dtype.bits}"

    def lines(acc: str, batch: str, head: str, query: str, key: str) -> tuple[Sequence[str], str]:
        text = [f"v0 = {acc} * {literal(scale, dtype)}"]
        if softcap is not None:
            limit = literal(softcap, dtype)
            text.append(f"v0 = {limit} * {tanh}(v0 / {limit})")
        if mask is not None:
            place = f"n1 + {batch} * n2 + {head} * n3 + {query} * n4 + {key} * n5"
            text.append(f"v0 = v0 + {dtype}(load(x0, {place}))")
        return text, "v0"

    return Score(parameters, lines)


def store_epilogue(dtype: DType, *, dense: bool = False) -> Epilogue:
    """Stores the result to a tensor of `dtype`; parameters: (y0, its row stride, its batch stride).

    `dense`: the row stride is the number of columns.
    """
    parameters = (
        Parameter("y0", f"{dtype}*", noalias=True),
        Parameter("y1", "int64"),
        Parameter("y2", "int64"),
    )

    def place(m: str, n: str, batch: str) -> str:
        return f"{batch} * y2 + {m} * y1 + {n}"

    def lines(acc: str, m: str, n: str, batch: str) -> Sequence[str]:
        return [f"store(y0, {place(m, n, batch)}, {acc})"]

    def destination(m: str, n: str, batch: str) -> str:
        return f"address(y0) + ({place(m, n, batch)}) * {dtype.itemsize}"

    return Epilogue(parameters, lines, destination if dense else None)
