"""Trains two classifiers of handwritten digits, compiles them with onnxsmith, and compares: `make demo`.

The data are scikit-learn's 1,797 images of 8x8 pixels. Each classifier is converted to ONNX by skl2onnx,
compiled (from nothing: the demo uses an empty cache), and run on the images that it was not trained on.
"""

from __future__ import annotations

import functools
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import onnxruntime
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table
from skl2onnx import to_onnx
from skl2onnx.common.data_types import FloatTensorType
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import train_test_split
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler

import onnxsmith

CLASSIFIERS = {
    "logistic regression": LogisticRegression(max_iter=1000),
    "neural network": MLPClassifier((64, 32), max_iter=500, random_state=0),
}
THREADS = 1
TURNS = 9
SECONDS_PER_TURN = 0.05
# onnxruntime's threads spin on after a run and slow whatever comes next.
REST_SECONDS = 0.03


def main() -> int:
    console = Console()
    data, labels = load_digits(return_X_y=True)
    train, test, train_labels, test_labels = train_test_split(
        data.astype(np.float32), labels, test_size=500, random_state=0
    )
    agreed = True
    for name, classifier in CLASSIFIERS.items():
        console.rule(name)
        with console.status(f"training on {len(train)} images"):
            trained = make_pipeline(StandardScaler(), classifier).fit(train, train_labels)
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "model.onnx"
            path.write_bytes(convert(trained))
            ours = compile_model(path, Path(folder) / "cache", console)
            peer = open_onnxruntime(path)
            agreed &= compare(console, trained, ours, peer, test, test_labels)
    if not agreed:
        console.print("[red]onnxsmith's labels differ from onnxruntime's")
    return 0 if agreed else 1


def convert(trained: Pipeline) -> bytes:
    """The ONNX model: "image" float32 [n, 64] to "label" int64 [n] and "probabilities" float32 [n, 10]."""
    image = [("image", FloatTensorType([None, 64]))]
    model = to_onnx(trained, initial_types=image, options={id(trained): {"zipmap": False}}, target_opset=17)
    return bytes(model.SerializeToString())


def compile_model(path: Path, cache: Path, console: Console) -> onnxsmith.InferenceSession:
    """A session, compiled with progress shown."""
    options = onnxsmith.SessionOptions()
    options.intra_op_num_threads = THREADS
    options.add_session_config_entry("onnxsmith.cache_dir", str(cache))
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    start = time.perf_counter()
    with Progress(*columns, console=console) as progress:
        task = progress.add_task("compiling", total=None)

        def show(stage: str, done: int, total: int) -> None:
            progress.update(task, description=stage, completed=done, total=total or None)

        session = onnxsmith.InferenceSession(path, options, on_progress=show)
    console.print(f"compiled from nothing in {time.perf_counter() - start:.1f} s")
    start = time.perf_counter()
    onnxsmith.InferenceSession(path, options)
    console.print(f"opened again from the cache in {1000 * (time.perf_counter() - start):.1f} ms")
    return session


def open_onnxruntime(path: Path) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = THREADS
    return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])


def compare(
    console: Console,
    trained: Pipeline,
    ours: onnxsmith.InferenceSession,
    peer: onnxruntime.InferenceSession,
    images: np.ndarray,
    labels: np.ndarray,
) -> bool:
    """Prints accuracy and speed; whether onnxsmith's labels are onnxruntime's."""
    predictions = {
        "onnxsmith": ours.run(["label"], {"image": images})[0],
        "onnxruntime": peer.run(["label"], {"image": images})[0],
        "scikit-learn": trained.predict(images),
    }
    times = {}
    for rows in (1, len(images)):
        feed = {"image": np.ascontiguousarray(images[:rows])}
        runs: dict[str, Callable[[], Any]] = {
            "onnxsmith": functools.partial(ours.run, None, feed),
            "onnxruntime": functools.partial(peer.run, None, feed),
            "scikit-learn": functools.partial(trained.predict_proba, feed["image"]),
        }
        times[rows] = alternate(runs)

    table = Table("", f"accuracy on {len(images)} new images", "1 image", f"{len(images)} images")
    for name, predicted in predictions.items():
        accuracy = float(np.mean(predicted == labels))
        table.add_row(name, f"{accuracy:.1%}", *(f"{1e6 * times[rows][name]:,.1f} us" for rows in times))
    console.print(table)
    return bool(np.array_equal(predictions["onnxsmith"], predictions["onnxruntime"]))


def alternate(runs: dict[str, Callable[[], Any]]) -> dict[str, float]:
    """Median seconds of each run; they take turns, each after a rest and one run that is not timed."""
    samples: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(TURNS):
        for name, run in runs.items():
            time.sleep(REST_SECONDS)
            run()
            end = time.perf_counter() + SECONDS_PER_TURN
            while (start := time.perf_counter()) < end:
                run()
                samples[name].append(time.perf_counter() - start)
    return {name: median(taken) for name, taken in samples.items()}


if __name__ == "__main__":
    sys.exit(main())
