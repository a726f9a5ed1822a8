"""`onnxsmith bench`: how long a model's runs take, beside other runtimes."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer

from onnxsmith.commands import common, engines
from onnxsmith.feeds import Array

_REST_SECONDS = 0.03  # onnxruntime's threads spin on after a run, and slow down whatever comes next
_TURN_SECONDS = 0.1
_PERCENTILES = (50, 90, 99)


def bench(
    model: common.ModelArgument,
    engine: Annotated[
        list[str] | None,
        typer.Option("--engine", help="onnxsmith, onnxruntime or openvino; by default all that are installed."),
    ] = None,
    seconds: Annotated[float, typer.Option("--seconds", min=0.0, help="Time spent on each runtime.")] = 2.0,
    cold: Annotated[bool, typer.Option("--cold", help="Also time the start of a new process.")] = False,
    seed: common.SeedOption = 0,
    dim: common.DimensionOption = None,
    threads: common.ThreadsOption = 0,
    level: common.LevelOption = 99,
    option: common.CompilerOption = None,
    tune: common.TuneOption = False,
    format: common.FormatOption = common.Format.table,
) -> None:
    """Time runs of MODEL on random inputs, in turns with other runtimes; milliseconds, lower is better."""
    chosen = _chosen(engine)
    options = common.session_options(level, threads, option, tune)
    session = common.open_session(model, options)
    sizes = common.dimensions(dim)
    feed = common.random_feed(session.get_inputs(), sizes, seed)
    runners = {name: engines.ENGINES[name](str(model), threads, options) for name in chosen}
    calls = {name: (lambda run=run: run(feed)) for name, run in runners.items()}
    samples = measure(calls, seconds)
    rows = summarize(samples)
    if cold:
        for row in rows:
            row |= _cold_start(row["runtime"], model, threads, feed)
    common.show(format, f"{model}, milliseconds", rows)


def measure(calls: Mapping[str, Callable[[], Any]], seconds: float) -> dict[str, list[float]]:
    """Seconds of single calls, at least one each.

    The calls take turns, and each turn begins with a rest and a call that is not timed.
    """
    samples: dict[str, list[float]] = {name: [] for name in calls}
    spent = dict.fromkeys(calls, 0.0)
    while min(spent.values()) < seconds or not all(samples.values()):
        for name, call in calls.items():
            time.sleep(_REST_SECONDS)
            call()
            turn = time.perf_counter()
            while True:
                start = time.perf_counter()
                call()
                end = time.perf_counter()
                samples[name].append(end - start)
                if end - turn >= _TURN_SECONDS:
                    break
            spent[name] += end - turn
    return samples


def summarize(samples: Mapping[str, Sequence[float]]) -> list[dict[str, Any]]:
    """A row for each runtime: percentiles in milliseconds, its median as a multiple of the first one's."""
    rows = []
    first = float(np.median(next(iter(samples.values()))))
    for name, values in samples.items():
        row: dict[str, Any] = {"runtime": name, "runs": len(values), "min": min(values) * 1e3}
        for percentile in _PERCENTILES:
            row[f"p{percentile}"] = float(np.percentile(values, percentile)) * 1e3
        row["times the first"] = float(np.median(values)) / first
        rows.append(row)
    return rows


def _chosen(names: Sequence[str] | None) -> list[str]:
    installed = engines.installed()
    for name in names or ():
        if name not in engines.ENGINES:
            raise common.usage_error(f"no runtime '{name}'; known are {', '.join(engines.ENGINES)}")
        if name not in installed:
            raise common.usage_error(f"{name} is not installed")
    return list(dict.fromkeys(names)) if names else installed


def _cold_start(engine: str, model: Path, threads: int, feed: Mapping[str, Array]) -> dict[str, float]:
    """Milliseconds that a new process takes for the runtime's import, for a session and for the first run."""
    with tempfile.TemporaryDirectory() as folder:
        inputs = Path(folder) / "inputs.npz"
        np.savez(inputs, allow_pickle=False, **feed)
        command = [sys.executable, "-P", engines.__file__, engine, str(model), str(threads), str(inputs)]
        finished = subprocess.run(command, capture_output=True, text=True)
    if finished.returncode != 0:
        raise RuntimeError(f"{engine} failed in a new process: {finished.stderr.strip()}")
    times = json.loads(finished.stdout.splitlines()[-1])
    return {f"cold {name}": seconds * 1e3 for name, seconds in times.items()}
