"""`onnxsmith run`: run a model once on inputs from files, or on random ones."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer

from onnxsmith.commands import common
from onnxsmith.feeds import Array


def run(
    model: common.ModelArgument,
    inputs: Annotated[
        list[str] | None,
        typer.Argument(help="NAME=FILE.npy, FILE.npz with inputs by name, or FILE.npy for a single input."),
    ] = None,
    random: Annotated[bool, typer.Option("--random", help="Random arrays for inputs not given.")] = False,
    seed: common.SeedOption = 0,
    dim: common.DimensionOption = None,
    output: Annotated[Path | None, typer.Option("--output", "-o", help="Write the outputs to this .npz file.")] = None,
    threads: common.ThreadsOption = 0,
    level: common.LevelOption = 99,
    option: common.CompilerOption = None,
    format: common.FormatOption = common.Format.table,
) -> None:
    """Run MODEL and print a summary of its outputs."""
    session = common.open_session(model, common.session_options(level, threads, option))
    feed = read_inputs(inputs, [argument.name for argument in session.get_inputs()])
    if random:
        feed = common.random_feed(session.get_inputs(), common.dimensions(dim), seed) | feed
    start = time.perf_counter()
    results = session.run(None, feed)
    seconds = time.perf_counter() - start
    names = [argument.name for argument in session.get_outputs()]
    if output is not None:
        np.savez(output, allow_pickle=False, **dict(zip(names, results, strict=True)))
    rows = [_summary(name, result) for name, result in zip(names, results, strict=True)]
    common.show(format, f"{model}: {seconds * 1e3:.3f} ms", rows)


def read_inputs(arguments: Sequence[str] | None, names: Sequence[str]) -> dict[str, Array]:
    """The arrays that the command line names, by input. A usage error for files that are no such arrays."""
    feed: dict[str, Array] = {}
    for argument in arguments or ():
        name, separator, file = argument.partition("=")
        if separator:
            feed[name] = _load(file, np.ndarray)
        elif argument.endswith(".npz"):
            feed |= dict(_load(argument, np.lib.npyio.NpzFile))
        elif len(names) == 1:
            feed[names[0]] = _load(argument, np.ndarray)
        else:
            raise common.usage_error(f"the model has {len(names)} inputs: write NAME={argument}")
    return feed


def _load(file: str, kind: type) -> Any:
    try:
        content = np.load(file, allow_pickle=False)
    except (OSError, ValueError, EOFError) as problem:
        raise common.usage_error(f"'{file}' cannot be read as a numpy file: {problem}") from None
    if not isinstance(content, kind):
        raise common.usage_error(f"'{file}' is not a numpy file of the kind that its place asks for")
    return content


def _summary(name: str, result: Any) -> dict[str, Any]:
    row: dict[str, Any] = {"output": name, "type": type(result).__name__, "shape": "", "min": "", "mean": "", "max": ""}
    if not isinstance(result, np.ndarray):
        return row
    row |= {"type": str(result.dtype), "shape": str(list(result.shape))}
    if result.size and result.dtype.kind not in "OSUc":
        values = result.astype(np.float64)
        row |= {"min": float(values.min()), "mean": float(values.mean()), "max": float(values.max())}
    return row
