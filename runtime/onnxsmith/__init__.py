"""onnxsmith runs ONNX models, compiled to native code, behind onnxruntime's Python API.

import onnxsmith as onnxruntime

session = onnxruntime.InferenceSession("model.onnx")
outputs = session.run(None, {"x": x})
"""

from onnxsmith.ahead import compile, load
from onnxsmith.information import get_build_info, get_version_string, print_debug_info
from onnxsmith.io_binding import IOBinding
from onnxsmith.logs import set_default_logger_severity, set_default_logger_verbosity
from onnxsmith.options import (
    ExecutionMode,
    ExecutionOrder,
    GraphOptimizationLevel,
    RunOptions,
    SessionOptions,
)
from onnxsmith.ort_value import OrtValue
from onnxsmith.providers import get_all_providers, get_available_providers, get_device
from onnxsmith.seeds import set_seed
from onnxsmith.session import InferenceSession
from onnxsmith.values import ModelMetadata, NodeArg
from onnxsmith.version import __version__

__all__ = [
    "ExecutionMode",
    "ExecutionOrder",
    "GraphOptimizationLevel",
    "IOBinding",
    "InferenceSession",
    "ModelMetadata",
    "NodeArg",
    "OrtValue",
    "RunOptions",
    "SessionOptions",
    "__version__",
    "compile",
    "get_all_providers",
    "get_available_providers",
    "get_build_info",
    "get_device",
    "get_version_string",
    "load",
    "print_debug_info",
    "set_default_logger_severity",
    "set_default_logger_verbosity",
    "set_seed",
]
