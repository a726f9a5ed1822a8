"""The benchmark: `python -m bench.run [--models NAME ...] [--threads 1 2] [--repeats 7] [--folder FOLDER]`.

Results of earlier runs are kept for models and numbers of threads that this run does not name.
"""

from __future__ import annotations

import argparse
import compileall
import dataclasses
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx

from bench import report
from bench.catalog import BY_NAME, DEFAULT_FOLDER, MODELS, RELATIVES, Feed, ZooModel, make_feed, select
from bench.machine import describe
from bench.peers import ENGINES, OURS, REFERENCE
from bench.work import multiply_adds
from bench.zoo import ensure

ROOT = Path(__file__).resolve().parent.parent
# Of the stored results: raised when their layout changes.
SCHEMA = 1
TIMEOUT_SECONDS = 1800
QUIET_LOAD = 0.5


def main() -> int:
    options = parse(sys.argv[1:])
    store = options.folder.parent / "bench" / "results.json"
    store.parent.mkdir(parents=True, exist_ok=True)
    results = begin(store, options.threads)
    load = os.getloadavg()[0]
    if load > QUIET_LOAD:
        print(f"the load average is {load:.1f}: other programs run beside the benchmark, times will be unfair")
    for folder in ("runtime", "compiler"):  # as pip leaves what it installs
        compileall.compile_dir(ROOT / folder, quiet=1)
    with tempfile.TemporaryDirectory() as temporary:
        for model in select(options.models):
            row = measure(model, options, Path(temporary))
            earlier = results["models"].get(model.name, {}).get("threads", {})
            results["models"][model.name] = row | {"threads": in_order(earlier | row["threads"])}
            store.write_text(json.dumps(results, indent=1))
            report.write(results, options.output)
    print(f"written to {options.output / 'RESULTS.md'}")
    return 0


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--models", nargs="*", default=[], help="names of bench models (all)")
    parser.add_argument("--threads", nargs="*", type=int, default=[1, 2])
    parser.add_argument("--repeats", type=int, default=7, help="turns that each engine takes")
    parser.add_argument("--folder", type=Path, default=DEFAULT_FOLDER, help="where the models are")
    parser.add_argument("--output", type=Path, default=ROOT / "bench", help="where the report goes")
    return parser.parse_args(arguments)


def in_order(by_threads: dict[str, Any]) -> dict[str, Any]:
    return dict(sorted(by_threads.items(), key=lambda item: int(item[0])))


def begin(store: Path, threads: Sequence[int]) -> dict[str, Any]:
    """Results of earlier runs on this kind of machine, with the machine measured anew."""
    machine = dataclasses.asdict(describe(list(threads)))
    machine["peak"] = {str(count): peak for count, peak in machine["peak"].items()}
    earlier = json.loads(store.read_text()) if store.exists() else None
    models = {}
    if earlier is not None and earlier["schema"] == SCHEMA and earlier["machine"]["cpu"] == machine["cpu"]:
        known = {model.name for model in MODELS}
        models = {name: row for name, row in earlier["models"].items() if name in known}
        machine["peak"] |= {
            count: max(peak, machine["peak"].get(count, 0.0)) for count, peak in earlier["machine"]["peak"].items()
        }
    versions = {engine.name: engine.version() for engine in ENGINES}
    return {"schema": SCHEMA, "machine": machine, "versions": versions, "models": models}


def measure(model: ZooModel, options: argparse.Namespace, temporary: Path) -> dict[str, Any]:
    """All that is measured of one model."""
    path = ensure(model, options.folder)
    feed_path = temporary / "feed.npz"
    feed = write_feed(model, path, feed_path)
    # Compiled anew, whatever the user's own cache holds; later steps find the cache filled.
    cache = temporary / "cache"
    environment = os.environ | {"ONNXSMITH_CACHE_DIR": str(cache)}
    row: dict[str, Any] = {
        "commit": commit(),
        "load": os.getloadavg()[0],
        "multiply_adds": multiply_adds(path, feed),
        "footprint": {},
        "threads": {},
    }
    footprints = row["footprint"]
    start = ["footprint", str(path), str(feed_path), "1"]
    if model.name in RELATIVES:
        shutil.rmtree(cache, ignore_errors=True)
        relative = BY_NAME[RELATIVES[model.name]]
        relative_path, relative_feed = ensure(relative, options.folder), temporary / "relative.npz"
        write_feed(relative, relative_path, relative_feed)
        child(["footprint", str(relative_path), str(relative_feed), "1", OURS.name], environment)
        footprints["relative"] = child([*start, OURS.name], environment)
        say(model, f"seconds to compile after {relative.name}", footprints["relative"], "open_s")
    shutil.rmtree(cache, ignore_errors=True)
    footprints["cold"] = child([*start, OURS.name], environment)
    say(model, "seconds to compile", footprints["cold"], "open_s")
    for engine in ENGINES:
        footprints[engine.name] = child([*start, engine.name], environment)
    if "failure" in footprints[REFERENCE.name]:
        raise RuntimeError(f"{REFERENCE.name} fails on {path}: {footprints[REFERENCE.name]['failure']}")
    for threads in options.threads:
        timing = ["latency", str(path), str(feed_path), str(threads), str(options.repeats)]
        engines = latency(timing, footprints, environment)
        row["threads"][str(threads)] = engines
        for name, cell in engines.items():
            say(model, f"milliseconds, {threads} threads, {name}", cell, "ms")
    return row


def latency(
    arguments: Sequence[str], footprints: Mapping[str, Any], environment: Mapping[str, str]
) -> dict[str, dict[str, Any]]:
    """Milliseconds and errors of the engines that could open the model, failures of the others."""
    cells = {engine.name: footprints[engine.name] for engine in ENGINES}
    working = [name for name, cell in cells.items() if "failure" not in cell and name != REFERENCE.name]
    measured = child([*arguments, *working, REFERENCE.name], environment)
    if "failure" in measured and OURS.name in working:
        cells[OURS.name] = measured
        working.remove(OURS.name)
        measured = child([*arguments, *working, REFERENCE.name], environment)
    if "failure" in measured:
        raise RuntimeError(f"the peers fail to run: {measured['failure']}")
    return cells | measured


def child(arguments: Sequence[str], environment: Mapping[str, str]) -> dict[str, Any]:
    """The JSON that bench.child prints, or {"failure": one line} where it does not get there."""
    command = [sys.executable, "-m", "bench.child", *arguments]
    try:
        done = subprocess.run(
            command, env=environment, cwd=ROOT, capture_output=True, text=True, timeout=TIMEOUT_SECONDS
        )
    except subprocess.TimeoutExpired:
        return {"failure": f"no result after {TIMEOUT_SECONDS} s"}
    if done.returncode == 0:
        result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
        return result
    if done.returncode < 0:
        return {"failure": f"killed by {signal.Signals(-done.returncode).name}"}
    lines = [line for line in done.stderr.splitlines() if line and not line.startswith(" ")]
    return {"failure": lines[-1][:300] if lines else f"exit status {done.returncode}"}


def write_feed(model: ZooModel, path: Path, feed_path: Path) -> Feed:
    """Values for the inputs of the model at `path`, which are written to `feed_path` too."""
    feed = make_feed(model, signature(path))
    np.savez(feed_path, **feed)
    return feed


def signature(path: Path) -> list[tuple[str, list[int | str]]]:
    """Names and declared shapes of the model's inputs."""
    graph = onnx.load(path, load_external_data=False).graph
    weights = {weight.name for weight in graph.initializer}
    return [
        (value.name, [dim.dim_param or dim.dim_value for dim in value.type.tensor_type.shape.dim])
        for value in graph.input
        if value.name not in weights
    ]


def commit() -> str:
    """The short hash of the checkout, with + where the working tree differs."""
    command = ["git", "describe", "--always", "--dirty=+", "--exclude=*"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    return done.stdout.strip() or "unknown"


def say(model: ZooModel, what: str, cell: Mapping[str, Any], key: str) -> None:
    shown = f"{cell[key]:.4g}" if key in cell else cell["failure"][:120]
    print(f"{model.name}: {what}: {shown}", flush=True)


if __name__ == "__main__":
    sys.exit(main())
