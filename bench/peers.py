"""The engines that are compared, behind one call each: open a model, get a function that runs it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from bench.catalog import Array, Feed

Run = Callable[[Feed], list[Array]]


@dataclass(frozen=True)
class Engine:
    """`open(path, threads)` gives the function that runs the model; it imports the engine."""

    name: str
    open: Callable[[Path, int], Run]
    version: Callable[[], str]


def open_onnxsmith(path: Path, threads: int) -> Run:
    import onnxsmith

    options = onnxsmith.SessionOptions()
    options.intra_op_num_threads = threads
    session = onnxsmith.InferenceSession(path, options)
    return lambda feed: session.run(None, feed)


def open_onnxruntime(path: Path, threads: int) -> Run:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = threads
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    return lambda feed: session.run(None, feed)


def open_openvino(path: Path, threads: int) -> Run:
    """One stream, in float32: left to itself OpenVINO computes in bfloat16 where the CPU can."""
    import openvino

    settings = {
        "INFERENCE_PRECISION_HINT": "f32",
        "INFERENCE_NUM_THREADS": threads,
        "PERFORMANCE_HINT": "LATENCY",
        "NUM_STREAMS": 1,
    }
    compiled = openvino.Core().compile_model(str(path), "CPU", settings)
    request = compiled.create_infer_request()

    def run(feed: Feed) -> list[Array]:
        # Shared outputs are views of the request's memory: no copy is charged to OpenVINO.
        results = request.infer(feed, share_inputs=True, share_outputs=True)
        return [results[output] for output in compiled.outputs]

    return run


def onnxsmith_version() -> str:
    import onnxsmith

    return onnxsmith.__version__


def onnxruntime_version() -> str:
    import onnxruntime

    return str(onnxruntime.__version__)


def openvino_version() -> str:
    import openvino

    return str(openvino.__version__).split("-")[0]


OURS = Engine("onnxsmith", open_onnxsmith, onnxsmith_version)
REFERENCE = Engine("onnxruntime", open_onnxruntime, onnxruntime_version)
ENGINES = (OURS, REFERENCE, Engine("OpenVINO", open_openvino, openvino_version))
BY_NAME = {engine.name: engine for engine in ENGINES}
