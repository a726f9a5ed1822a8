"""The kinds of function that printed kernels call, each of which also runs as plain Python."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, eq=False)
class Intrinsic:
    """A function whose LLVM instructions are emitted at the call.

    `definition(context, *argument_types)` follows `numba.extending.intrinsic`: it returns
    (signature, emit), or None where it does not take those types; `emit(context, builder, signature,
    arguments)` returns the LLVM value. The types are numba's; literal types are widened first
    (`Literal[int](3)` to int64) unless `literals` is true. Arguments are converted to the signature's types.
    `context.kernel_target` is the Target that `emit` works for.

    `reference` does the same in plain Python, on numpy scalars and on flat numpy arrays in place of pointers.
    `routine` is what the instructions call, for one that only calls a routine.
    """

    name: str
    definition: Callable[..., Any]
    reference: Callable[..., Any]
    literals: bool = False
    routine: Routine | None = None

    def __call__(self, *arguments: Any) -> Any:
        return self.reference(*arguments)


@dataclass(frozen=True, eq=False)
class Helper:
    """A function written in the kernels' own language, compiled once a process and inlined at each call.

    Its globals are Intrinsics, other Helpers, numpy scalar types and numbers. `result` and `arguments`
    are type names as in `source.Parameter`: "float32", "int64", "float32*".
    """

    name: str
    function: Callable[..., Any]
    result: str
    arguments: tuple[str, ...]

    def __call__(self, *arguments: Any) -> Any:
        return self.function(*arguments)


@dataclass(frozen=True, eq=False)
class Routine:
    """A function that returns nothing and is compiled by itself; kernels call it by `symbol`.

    `arguments` are type names as in `source.Parameter`. `build(function, target)` writes the body of an empty LLVM
    function; it may add others to its module, which begin with the function's name. Without it, `text` defines the
    function as `kernel`, in the kernels' language.
    """

    name: str
    arguments: tuple[str, ...]
    build: Callable[..., None] | None = None
    text: str = ""

    @property
    def symbol(self) -> str:
        return f"onnxsmith.{self.name}"


def intrinsic(reference: Callable[..., Any], *, literals: bool = False) -> Callable[[Callable[..., Any]], Intrinsic]:
    """Decorate a definition, making it an Intrinsic of the same name."""

    def decorate(definition: Callable[..., Any]) -> Intrinsic:
        return Intrinsic(definition.__name__, definition, reference, literals)

    return decorate


def helper(result: str, *arguments: str) -> Callable[[Callable[..., Any]], Helper]:
    """Decorate a function of the kernels' language, making it a Helper of the same name."""

    def decorate(function: Callable[..., Any]) -> Helper:
        return Helper(function.__name__, function, result, arguments)

    return decorate
