"""`onnxsmith profile`: how long each kernel takes, and how near it comes to what the machine can do."""

from __future__ import annotations

import statistics
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

from onnxsmith.commands import common
from onnxsmith.commands.profile_page import profile_page
from onnxsmith.commands.run import read_inputs
from onnxsmith.feeds import Array
from onnxsmith.kernel_times import KernelTime, by_label, step_times, together
from onnxsmith.profiling import Profile
from onnxsmith.roofline import Roofline, measure
from onnxsmith.segment_runner import TimedRun
from onnxsmith.session import InferenceSession

_WARM_UP = 3


@dataclass(frozen=True)
class Measurement:
    """Runs in one native call (`seconds` each), runs step by step, and these as a chrome trace."""

    seconds: Sequence[float]
    runs: Sequence[TimedRun]
    trace: Profile


def profile(
    model: common.ModelArgument,
    inputs: common.InputsArgument = None,
    by_kernel: Annotated[
        bool, typer.Option("--by-kernel", help="Show the steps of each kind of kernel together.")
    ] = False,
    repeats: Annotated[int, typer.Option("--repeats", min=1, help="Timed runs; times are their medians.")] = 20,
    trace: Annotated[
        Path | None, typer.Option("--trace", help="Write a chrome trace of the runs to this file.", dir_okay=False)
    ] = None,
    html: Annotated[
        Path | None, typer.Option("--html", help="Write a page with a roofline plot to this file.", dir_okay=False)
    ] = None,
    seed: common.SeedOption = 0,
    dim: common.DimensionOption = None,
    threads: common.ThreadsOption = 0,
    level: common.LevelOption = 99,
    option: common.CompilerOption = None,
    format: common.FormatOption = common.Format.table,
) -> None:
    """Time every kernel of MODEL beside its operations, its memory traffic and the machine's roofline.

    Operations are float32, two for a multiply-add. Bytes count every tensor once that a kernel reads or writes. The
    roofline is measured: multiply-adds a second, and the rate at which a large buffer is read. A kernel whose data
    an earlier one left in cache can exceed it.
    """
    session = common.open_session(model, common.session_options(level, threads, option))
    feed = common.random_feed(session.get_inputs(), common.dimensions(dim), seed)
    feed |= read_inputs(inputs, [argument.name for argument in session.get_inputs()])
    measured = measure_runs(session, feed, repeats)
    roofline = measure(measured.runs[0].threads)
    steps = step_times(measured.runs, roofline)
    run_seconds = statistics.median(measured.seconds)
    if trace is not None:
        measured.trace.write(str(trace))
    if html is not None:
        html.write_text(profile_page(model.name, steps, run_seconds, roofline), encoding="utf-8")
    rows = sorted(by_label(steps) if by_kernel else steps, key=lambda row: -row.seconds)
    total = sum(row.seconds for row in rows)
    if format is common.Format.json:
        what = "kernels" if by_kernel else "steps"
        common.print_json(summary(steps, run_seconds, roofline) | {what: [full_row(row, total) for row in rows]})
        return
    common.show(format, title(model.name, steps, run_seconds, roofline), [short_row(row, total) for row in rows])


def measure_runs(session: InferenceSession, feed: dict[str, Array], repeats: int) -> Measurement:
    """`repeats` runs of either way in turns, after some that are not timed."""
    trace = Profile("", session.get_providers()[0])
    seconds, runs = [], []
    for number in range(_WARM_UP + repeats):
        start = time.perf_counter_ns()
        session.run(None, feed)
        middle = time.perf_counter_ns()
        run = session.run_timed(feed)
        if number >= _WARM_UP:
            seconds.append((middle - start) / 1e9)
            trace.add_run(run, middle)
            run.outputs.clear()
            runs.append(run)
    return Measurement(seconds, runs, trace)


def summary(steps: Sequence[KernelTime], run_seconds: float, roofline: Roofline) -> dict[str, Any]:
    """The figures of a whole run, and the machine's."""
    whole = together("", steps)
    return {
        "threads": roofline.threads,
        "run ms": run_seconds * 1e3,
        "step by step ms": whole.seconds * 1e3,
        "flops": whole.flops,
        "bytes": whole.traffic,
        "GFLOP/s": whole.flops / run_seconds / 1e9,
        "roofline %": 100 * whole.least / run_seconds,
        "machine": {
            "cpu": roofline.cpu,
            "vector bits": roofline.vector_bits,
            "peak GFLOP/s": roofline.peak / 1e9,
            "bandwidth GB/s": roofline.stream.rate / 1e9,
            "streams": [asdict(stream) for stream in roofline.streams],
        },
    }


def title(model: str, steps: Sequence[KernelTime], run_seconds: float, roofline: Roofline) -> str:
    """The lines above the table."""
    whole = together("", steps)
    stream = roofline.stream
    return (
        f"{model}: {run_seconds * 1e3:.3f} ms a run, {whole.seconds * 1e3:.3f} ms step by step; "
        f"{whole.flops / run_seconds / 1e9:.1f} GFLOP/s, {whole.least / run_seconds:.0%} of the roofline\n"
        f"{roofline.cpu}, threads: {roofline.threads}, peak {roofline.peak / 1e9:.1f} GFLOP/s, "
        f"{stream.rate / 1e9:.1f} GB/s from {stream.size >> 20} MiB"
    )


def full_row(row: KernelTime, total: float) -> dict[str, Any]:
    """All about a row, for programs."""
    return short_row(row, total) | {
        "seconds": row.seconds,
        "flops": row.flops,
        "bytes": row.traffic,
        "kernels": list(row.kernels),
        "nodes": list(row.nodes),
    }


def short_row(row: KernelTime, total: float) -> dict[str, Any]:
    """A row of the table on a terminal. Percentages are of all kernels' time, and of what the machine can do."""
    return {
        **({"steps": row.count} if row.step is None else {"step": row.step}),
        "kernel": row.label,
        "us": _rounded(row.seconds * 1e6),
        "% of time": _rounded(100 * row.seconds / total if total else 0.0),
        "GFLOP/s": _rounded(row.flop_rate / 1e9),
        "GB/s": _rounded(row.byte_rate / 1e9),
        "% of roofline": _rounded(100 * row.roofline_share),
        "nodes": node_names(row.nodes),
    }


def node_names(nodes: Sequence[str]) -> str:
    """The first node's name, and how many there are besides."""
    if len(nodes) <= 1:
        return "".join(nodes)
    return f"{nodes[0]} +{len(nodes) - 1}"


def _rounded(value: float) -> float | int:
    return round(value) if value >= 100 else round(value, 1 if value >= 1 else 3)
