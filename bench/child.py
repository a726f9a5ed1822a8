"""What the benchmark runs in a process of its own, so that a crash or a peak of memory stays there.

`python -m bench.child latency MODEL FEED THREADS REPEATS ENGINE...` times engines in turns, and compares
their outputs with the last engine's. `python -m bench.child footprint MODEL FEED THREADS ENGINE` opens
and runs one engine. Both print one line of JSON as the last of stdout.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from bench.catalog import Array, Feed
from bench.peers import BY_NAME, Run

# onnxruntime's threads spin on after a run and slow whatever comes next on the same cores.
REST_SECONDS = 0.03
# One engine's turn lasts about this long, and has at least MIN_RUNS runs.
TURN_SECONDS = 0.2
MIN_RUNS = 3
MAX_RUNS = 500
# Bounds the benchmark's time on large models; the peers' figures differ by far more than their noise.
MAX_SECONDS_PER_ENGINE = 6.0


def latency(path: Path, feed: Feed, threads: int, repeats: int, names: Sequence[str]) -> dict[str, Any]:
    """Median milliseconds of each engine, and its outputs' errors against the last engine's."""
    runs = {name: BY_NAME[name].open(path, threads) for name in names}
    outputs = {name: [np.array(output) for output in run(feed)] for name, run in runs.items()}
    expected = outputs[names[-1]]
    times = alternate(list(runs.values()), feed, repeats)
    return {
        name: {
            "ms": 1000 * median(taken),
            "runs": len(taken),
            "errors": [error(*pair) for pair in zip(outputs[name], expected, strict=True)],
        }
        for name, taken in zip(names, times, strict=True)
    }


def alternate(runs: Sequence[Run], feed: Feed, repeats: int) -> list[list[float]]:
    """Seconds of every timed run: engines take turns, each after a rest and one run that is not timed."""
    times: list[list[float]] = [[] for _ in runs]
    for _ in range(repeats):
        for run, taken in zip(runs, times, strict=True):
            if sum(taken) > MAX_SECONDS_PER_ENGINE:
                continue
            time.sleep(REST_SECONDS)
            count = _runs_in_a_turn(_timed(run, feed))
            taken.extend(_timed(run, feed) for _ in range(count))
    return times


def _timed(run: Run, feed: Feed) -> float:
    start = time.perf_counter()
    run(feed)
    return time.perf_counter() - start


def _runs_in_a_turn(seconds: float) -> int:
    return max(MIN_RUNS, min(MAX_RUNS, int(TURN_SECONDS / seconds)))


def error(actual: Array, expected: Array) -> float:
    """Largest difference over the largest finite magnitude expected; of integers, the share that differs.

    Infinite where the shapes differ, or where one has a NaN or an infinity that the other has not.
    """
    if actual.shape != expected.shape:
        return float("inf")
    if not np.issubdtype(expected.dtype, np.floating):
        return float(np.mean(actual != expected)) if expected.size else 0.0
    if not np.array_equal(np.isnan(actual), np.isnan(expected)):
        return float("inf")
    differs = (actual != expected) & ~np.isnan(expected)
    difference = np.abs(actual[differs].astype(np.float64) - expected[differs]).max(initial=0.0)
    scale = np.abs(expected[np.isfinite(expected)]).max(initial=0.0)
    return float(difference / scale) if scale else float(difference)


def footprint(path: Path, feed: Feed, threads: int, name: str) -> dict[str, Any]:
    """Seconds to a ready session (import not counted) and of the first run, and the process's peak in MiB."""
    engine = BY_NAME[name]
    engine.version()
    start = time.perf_counter()
    run = engine.open(path, threads)
    opened = time.perf_counter()
    run(feed)
    first = time.perf_counter()
    for _ in range(3):
        run(feed)
    return {"open_s": opened - start, "first_run_s": first - opened, "peak_mib": peak_mib()}


def peak_mib() -> float:
    """VmHWM. Not ru_maxrss, which a child begins with its parent's."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) / 1024
    raise OSError("/proc/self/status has no VmHWM: peak memory is measured on Linux only")


def main(arguments: Sequence[str]) -> None:
    mode, path, feed_path, threads, *rest = arguments
    with np.load(feed_path) as stored:
        feed = dict(stored)
    if mode == "latency":
        repeats, *names = rest
        result = latency(Path(path), feed, int(threads), int(repeats), names)
    else:
        result = footprint(Path(path), feed, int(threads), rest[0])
    print(json.dumps(result))


if __name__ == "__main__":
    main(sys.argv[1:])
