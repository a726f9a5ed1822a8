"""Runtimes that `onnxsmith bench` times, each as a function of a feed; each is imported when asked for.

Run as a script this file times the start of one of them. So it imports nothing of onnxsmith itself.
"""

from __future__ import annotations

import importlib.util
import itertools
import json
import sys
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

if TYPE_CHECKING:
    from onnxsmith.options import SessionOptions

Run: TypeAlias = Callable[[dict[str, Any]], Sequence[Any]]


def _onnxsmith(model: str, threads: int, options: SessionOptions | None) -> Run:
    import onnxsmith

    chosen = options if options is not None else onnxsmith.SessionOptions()
    chosen.intra_op_num_threads = threads
    session = onnxsmith.InferenceSession(model, chosen)
    return lambda feed: session.run(None, feed)


def _onnxruntime(model: str, threads: int, options: SessionOptions | None) -> Run:
    import onnxruntime  # noqa: TID251

    chosen = onnxruntime.SessionOptions()
    chosen.intra_op_num_threads = threads
    session = onnxruntime.InferenceSession(model, chosen, providers=["CPUExecutionProvider"])
    return lambda feed: list(session.run(None, feed))


def _openvino(model: str, threads: int, options: SessionOptions | None) -> Run:
    import openvino

    config: dict[str, Any] = {"INFERENCE_PRECISION_HINT": "f32", "PERFORMANCE_HINT": "LATENCY"}
    if threads:
        config["INFERENCE_NUM_THREADS"] = threads
    request = openvino.Core().compile_model(model, "CPU", config).create_infer_request()

    def run(feed: dict[str, Any]) -> Sequence[Any]:
        results = request.infer(feed, share_inputs=True)
        return list(results.values())

    return run


ENGINES: dict[str, Callable[[str, int, SessionOptions | None], Run]] = {
    "onnxsmith": _onnxsmith,
    "onnxruntime": _onnxruntime,
    "openvino": _openvino,
}


def installed() -> list[str]:
    """The engines that can be imported here."""
    return [name for name in ENGINES if importlib.util.find_spec(name) is not None]


def cold_start(engine: str, model: str, threads: int, inputs: str) -> dict[str, float]:
    """Seconds that this new process takes for the engine's import, for a session and for the first run."""
    feed = dict(np.load(inputs))
    times = [time.perf_counter()]
    importlib.import_module(engine)
    times.append(time.perf_counter())
    run = ENGINES[engine](model, threads, None)
    times.append(time.perf_counter())
    run(feed)
    times.append(time.perf_counter())
    spans = [later - earlier for earlier, later in itertools.pairwise(times)]
    return dict(zip(("import", "session", "first run"), spans, strict=True))


if __name__ == "__main__":
    print(json.dumps(cold_start(sys.argv[1], sys.argv[2], int(sys.argv[3]), sys.argv[4])))
