"""What the commands share: options, feeds, progress and printing."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer

from onnxsmith.compile_client import Progress
from onnxsmith.feeds import Array
from onnxsmith.options import GraphOptimizationLevel, SessionOptions
from onnxsmith.session import InferenceSession
from onnxsmith.values import NodeArg, numpy_dtype_of


class Format(StrEnum):
    """How results are printed."""

    table = "table"
    json = "json"


ModelArgument = Annotated[Path, typer.Argument(help="The ONNX model.", show_default=False)]
InputsArgument = Annotated[
    list[str] | None, typer.Argument(help="Inputs as for `onnxsmith run`; random for those not given.")
]
FormatOption = Annotated[Format, typer.Option("--format", help="How results are printed.")]
DimensionOption = Annotated[
    list[str] | None, typer.Option("--dim", metavar="NAME=SIZE", help="Size of a symbol; may be repeated.")
]
ThreadsOption = Annotated[int, typer.Option("--threads", help="Threads of a run; 0: one a core.")]
LevelOption = Annotated[
    int, typer.Option("--level", help="Graph optimisation level as in onnxruntime: 0, 1, 2, 3 or 99.")
]
CompilerOption = Annotated[
    list[str] | None,
    typer.Option("--option", metavar="NAME=VALUE", help="An option of the compiler; may be repeated."),
]
TuneOption = Annotated[
    bool, typer.Option("--tune", help="Measure how work is cut fastest; takes half a minute, and changes no result.")
]
SeedOption = Annotated[int, typer.Option("--seed", help="Seed of random inputs.")]


def assignments(texts: Sequence[str] | None, flag: str) -> dict[str, str]:
    """{"a": "1"} of ["a=1"]. A usage error where there is no name or no '='."""
    result = {}
    for text in texts or ():
        name, separator, value = text.partition("=")
        if not name or not separator:
            raise typer.BadParameter(f"'{text}' must have the form NAME=VALUE", param_hint=flag)
        result[name] = value
    return result


def dimensions(texts: Sequence[str] | None) -> dict[str, int]:
    """{"N": 3} of ["N=3"]. A usage error for anything but sizes."""
    result = {}
    for name, value in assignments(texts, "--dim").items():
        if not value.isdecimal():
            raise typer.BadParameter(f"'{value}' is no size for '{name}'", param_hint="--dim")
        result[name] = int(value)
    return result


def session_options(
    level: int, threads: int = 0, compiler: Sequence[str] | None = None, tune: bool = False
) -> SessionOptions:
    """Options for a session, from the flags that all commands share."""
    options = SessionOptions()
    try:
        options.graph_optimization_level = GraphOptimizationLevel(level)
    except ValueError as problem:
        raise typer.BadParameter(str(problem), param_hint="--level") from None
    options.intra_op_num_threads = threads
    for name, value in assignments(compiler, "--option").items():
        options.add_session_config_entry(f"onnxsmith.compile.{name}", value)
    if tune:
        options.add_session_config_entry("onnxsmith.compile.tune", "true")
    return options


def random_feed(inputs: Sequence[NodeArg], sizes: Mapping[str, int], seed: int) -> dict[str, Array]:
    """Seeded random arrays for `inputs`: N(0, 1) floats, 0 or 1 for integers and booleans, short strings.

    An unnamed dimension, and a symbol that `sizes` does not name, has size 1.
    """
    known = {dimension for argument in inputs for dimension in argument.shape if isinstance(dimension, str)}
    unknown = sorted(set(sizes) - known)
    if unknown:
        names = ", ".join(sorted(known)) or "none"
        raise typer.BadParameter(f"no symbol '{unknown[0]}'; the model has: {names}", param_hint="--dim")
    generator = np.random.default_rng(seed)
    return {argument.name: _random_array(argument, sizes, generator) for argument in inputs}


def _random_array(argument: NodeArg, sizes: Mapping[str, int], generator: np.random.Generator) -> Array:
    shape = [
        size if isinstance(size, int) else sizes.get(size, 1) if size is not None else 1 for size in argument.shape
    ]
    dtype = numpy_dtype_of(argument.type)
    if dtype.kind == "O":
        return generator.integers(0, 10, shape).astype(str).astype(object)
    if dtype.kind in "iub":
        return generator.integers(0, 2, shape).astype(dtype)
    return generator.standard_normal(shape).astype(dtype)


@contextmanager
def progress_bar(title: str) -> Iterator[Progress | None]:
    """A progress bar on standard error while the block runs; None where that is no terminal."""
    if not sys.stderr.isatty():
        yield None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn
    from rich.progress import Progress as Bar

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Bar(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(title, total=None)

        def show(stage: str, done: int, total: int) -> None:
            bar.update(task, description=f"{title}: {stage}", completed=done, total=total or None)

        yield show


def usage_error(sentence: str) -> Exception:
    """An error that ends the program with status 2 and says how it should be called."""
    return typer.BadParameter(sentence)


def open_session(model: Path, options: SessionOptions) -> InferenceSession:
    """A session for `model`, with a progress bar while it is compiled."""
    with progress_bar(f"Compiling {model}") as progress:
        return InferenceSession(model, options, on_progress=progress)


def show(format: Format, title: str, rows: Sequence[Mapping[str, Any]]) -> None:
    """Print rows, which all have the same columns, on standard output."""
    if format is Format.json:
        print_json(rows)
    else:
        _print_table(title, rows)


def print_json(value: Any) -> None:
    """Print `value` as JSON on standard output."""
    typer.echo(json.dumps(value, indent=2))


def _print_table(title: str, rows: Sequence[Mapping[str, Any]]) -> None:
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    table = Table(title=escape(title), title_justify="left")
    for column in rows[0] if rows else ():
        numeric = all(isinstance(row[column], int | float) for row in rows)
        table.add_column(escape(column), justify="right" if numeric else "left")
    for row in rows:
        table.add_row(*(escape(_cell(value)) for value in row.values()))
    Console(width=None if sys.stdout.isatty() else 200).print(table)


def _cell(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
