"""`onnxsmith verify`: compare a model's outputs with those of another runtime."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer

from onnxsmith.commands import common
from onnxsmith.commands.run import read_inputs
from onnxsmith.feeds import Array

Runner = Callable[[dict[str, Array]], Sequence[Any]]


class Reference(StrEnum):
    """What the outputs are compared with."""

    onnxruntime = "onnxruntime"
    onnx = "onnx"


def verify(
    model: common.ModelArgument,
    inputs: common.InputsArgument = None,
    against: Annotated[
        Reference, typer.Option("--against", help="onnxruntime, or onnx's reference evaluator.")
    ] = Reference.onnxruntime,
    rtol: Annotated[float, typer.Option("--rtol", help="Tolerance relative to the reference.")] = 1e-3,
    atol: Annotated[
        float, typer.Option("--atol", help="Tolerance as a fraction of the output's largest value.")
    ] = 1e-5,
    seed: common.SeedOption = 0,
    dim: common.DimensionOption = None,
    threads: common.ThreadsOption = 0,
    level: common.LevelOption = 99,
    option: common.CompilerOption = None,
    format: common.FormatOption = common.Format.table,
) -> None:
    """Run MODEL here and elsewhere on equal inputs; status 1 where an output differs by more than allowed.

    An element may differ by atol * (largest magnitude in the reference's output) + rtol * (its magnitude).
    """
    session = common.open_session(model, common.session_options(level, threads, option))
    feed = common.random_feed(session.get_inputs(), common.dimensions(dim), seed)
    feed |= read_inputs(inputs, [argument.name for argument in session.get_inputs()])
    results = session.run(None, feed)
    expected = REFERENCES[against](model)(feed)
    names = [argument.name for argument in session.get_outputs()]
    rows = [
        compare(name, result, reference, rtol, atol)
        for name, result, reference in zip(names, results, expected, strict=True)
    ]
    common.show(format, f"{model} against {against.value}", rows)
    if not all(row["agrees"] for row in rows):
        raise typer.Exit(1)


def compare(name: str, result: Any, reference: Any, rtol: float, atol: float) -> dict[str, Any]:
    """A row about one output: its largest errors and whether it agrees. Infinities and NaN must be equal."""
    row: dict[str, Any] = {"output": name, "max error": None, "relative to largest": None, "agrees": False}
    result, reference = np.asarray(result), np.asarray(reference)
    if result.shape != reference.shape or result.dtype != reference.dtype:
        row["why"] = f"{result.dtype}{list(result.shape)} instead of {reference.dtype}{list(reference.shape)}"
        return row
    if result.dtype.kind in "OSUb":
        row["agrees"] = bool(np.array_equal(result, reference))
        return row | {"why": "" if row["agrees"] else f"{np.sum(result != reference)} elements differ"}
    kind = np.complex128 if result.dtype.kind == "c" else np.float64
    ours, theirs = result.astype(kind), reference.astype(kind)
    finite = np.isfinite(theirs)
    if not np.array_equal(ours[~finite], theirs[~finite], equal_nan=True):
        return row | {"why": "infinities or NaN differ"}
    error = np.abs(ours[finite] - theirs[finite])
    scale = float(np.max(np.abs(theirs[finite]), initial=0.0))
    worst = float(np.max(error, initial=0.0))
    allowed = atol * scale + rtol * np.abs(theirs[finite])
    row |= {"max error": worst, "relative to largest": worst / scale if scale else worst}
    row["agrees"] = bool(np.all(error <= allowed))
    return row | {"why": "" if row["agrees"] else f"{np.sum(~(error <= allowed))} elements differ by more"}


def _onnxruntime(model: Path) -> Runner:
    try:
        import onnxruntime
    except ImportError:
        raise common.usage_error("onnxruntime is not installed; --against onnx needs only onnx") from None
    session = onnxruntime.InferenceSession(str(model), providers=["CPUExecutionProvider"])
    return lambda feed: list(session.run(None, feed))


def _onnx(model: Path) -> Runner:
    from onnx.reference import ReferenceEvaluator

    evaluator = ReferenceEvaluator(str(model))
    return lambda feed: list(evaluator.run(None, feed))


REFERENCES: dict[Reference, Callable[[Path], Runner]] = {
    Reference.onnxruntime: _onnxruntime,
    Reference.onnx: _onnx,
}
