"""What a contraction kernel does with the results of its tiles.

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

    `sums` are the names of the parameters that point to the results, which are then dense, and to sums of neighbouring
    rows of them, which the kernel makes (`pixel_sums`); None where nothing reads such sums.
    """

    parameters: tuple[Parameter, ...]
    lines: Callable[[str, str, str, str], Sequence[str]]
    destination: Callable[[str, str, str], str] | None = None
    sums: tuple[str, str] | None = None


@dataclass(frozen=True)
class Mask:
    """An additive mask: the name of its DType, and its stride along keys where it is baked in (None: a parameter)."""

    dtype: str
    key_stride: int | None = None


@dataclass(frozen=True)
class Score:
    """Turns a scaled product of a query and a key into the argument of softmax: soft cap and masks.

    `origin(outer)` gives the lines that stand before the loops of a product, whose indices over the outer axes are
    the int64 variables `outer`. `lines(acc, query, key, exists)` gives (Python lines, the expression of the compute
    type that is the score). `acc` holds the product, `query` and `key` are int64 variables; where the expression
    `exists` is false there is no such key, and the score is of no matter. The lines stand in a loop over keys that
    should vectorise.
    """

    parameters: tuple[Parameter, ...]
    origin: Callable[[Sequence[str]], Sequence[str]]
    lines: Callable[[str, str, str, str], tuple[Sequence[str], str]]


def masked_score(dtype: DType, outer: int, masks: Sequence[Mask] = (), softcap: float | None = None) -> Score:
    """A product squeezed into (-softcap, softcap) where that is given, plus masks.

    Parameters of each mask, in order: its elements, the first one that is used, its strides over the `outer` axes,
    queries and, unless that is baked in, keys.
    """
    parameters: list[Parameter] = []
    names: list[list[str]] = []
    for number, mask in enumerate(masks):
        count = 1 + outer + 1 + (mask.key_stride is None)
        own = [f"n{len(parameters) + i}" for i in range(count)]
        parameters += [Parameter(f"x{number}", f"{mask.dtype}*"), *(Parameter(name, "int64") for name in own)]
        names.append(own)
    tanh = f"tanh_f{dtype.bits}"

    def origin(indices: Sequence[str]) -> Sequence[str]:
        return [
            f"p{number} = " + " + ".join([own[0], *(f"{i} * {n}" for i, n in zip(indices, own[1:], strict=False))])
            for number, own in enumerate(names)
        ]

    def lines(acc: str, query: str, key: str, exists: str) -> tuple[Sequence[str], str]:
        text = [f"v0 = {acc}"]
        if softcap is not None:
            limit = literal(softcap, dtype)
            text.append(f"v0 = {limit} * {tanh}(v0 / {limit})")
        for number, (mask, own) in enumerate(zip(masks, names, strict=True)):
            key_stride = own[outer + 2] if mask.key_stride is None else mask.key_stride
            place = f"p{number} + {query} * {own[outer + 1]} + {key} * {key_stride}"
            text.append(f"v0 = v0 + ({dtype}(load(x{number}, {place})) if {exists} else {dtype}(0.0))")
        return text, "v0"

    return Score(tuple(parameters), origin, lines)


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
