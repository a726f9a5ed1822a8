"""What a contraction kernel does around its tiles: how an element is read, and what becomes of a result.

Templates (matmul, convolution, attention) print the loops; their caller supplies the lines inside. A name
that these lines define or take as a parameter is letters followed by digits ("x0", "v12"); no name of a
template ends in a digit, so the two never meet.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from onnxsmith_compiler.codegen.source import Parameter


@dataclass(frozen=True)
class Epilogue:
    """Consumes every element of a contraction's result.

    `lines(acc, m, n, batch)` gives the Python lines for one element, the `store` of it included: `acc` is the
    variable of the compute type that holds it; `m` (row, or output pixel counted through the images),
    `n` (column, or output channel) and `batch` (index of the product, or 0) are int64 variables. The lines
    stand in a loop over n that should vectorise: no `return`, no loop.
    """

    parameters: tuple[Parameter, ...]
    lines: Callable[[str, str, str, str], Sequence[str]]


@dataclass(frozen=True)
class Prologue:
    """Produces every element of a contraction's left operand.

    `lines(m, k, batch)` gives (Python lines for one element, the expression of the compute type that is its
    value). They stand in a loop over k that should vectorise.
    """

    parameters: tuple[Parameter, ...]
    lines: Callable[[str, str, str], tuple[Sequence[str], str]]


def store_epilogue(dtype: str) -> Epilogue:
    """Stores the result to a tensor of `dtype`; parameters: (y0, its row stride, its batch stride)."""
    parameters = (
        Parameter("y0", f"{dtype}*", noalias=True),
        Parameter("y1", "int64"),
        Parameter("y2", "int64"),
    )
    return Epilogue(parameters, lambda acc, m, n, batch: [f"store(y0, {batch} * y2 + {m} * y1 + {n}, {acc})"])
