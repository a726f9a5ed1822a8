"""Exceptions of the runtime: onnxruntime's classes, codes and message prefix.

As in onnxruntime the classes derive from Exception directly and share no base. They are importable
at `onnxsmith.capi.onnxruntime_pybind11_state` too.
"""

from __future__ import annotations

from typing import ClassVar, TypeVar


class Fail(Exception):
    """Anything that no other class describes."""

    code: ClassVar[int] = 1
    status: ClassVar[str] = "FAIL"


class InvalidArgument(Exception):
    """An argument, feed or option that the model or the session does not accept."""

    code: ClassVar[int] = 2
    status: ClassVar[str] = "INVALID_ARGUMENT"


class NoSuchFile(Exception):
    """The model, or a file it refers to, does not exist."""

    code: ClassVar[int] = 3
    status: ClassVar[str] = "NO_SUCHFILE"


class NoModel(Exception):
    """A session is used before it has a model."""

    code: ClassVar[int] = 4
    status: ClassVar[str] = "NO_MODEL"


class EngineError(Exception):
    """A process or library that onnxsmith relies on failed."""

    code: ClassVar[int] = 5
    status: ClassVar[str] = "ENGINE_ERROR"


class RuntimeException(Exception):
    """A node failed on the data of this run."""

    code: ClassVar[int] = 6
    status: ClassVar[str] = "RUNTIME_EXCEPTION"


class InvalidProtobuf(Exception):
    """The bytes are no ONNX model."""

    code: ClassVar[int] = 7
    status: ClassVar[str] = "INVALID_PROTOBUF"


class ModelLoaded(Exception):
    """The session has a model already."""

    code: ClassVar[int] = 8
    status: ClassVar[str] = "MODEL_LOADED"


class NotImplemented(Exception):
    """The model or an option needs something that onnxsmith does not have."""

    code: ClassVar[int] = 9
    status: ClassVar[str] = "NOT_IMPLEMENTED"


class InvalidGraph(Exception):
    """The model breaks a rule of ONNX."""

    code: ClassVar[int] = 10
    status: ClassVar[str] = "INVALID_GRAPH"


class EPFail(Exception):
    """An execution provider (a device) that was asked for cannot be used."""

    code: ClassVar[int] = 11
    status: ClassVar[str] = "EP_FAIL"


class ModelLoadCanceled(Exception):
    """Loading was cancelled by the user."""

    code: ClassVar[int] = 12
    status: ClassVar[str] = "MODEL_LOAD_CANCELED"


class ModelRequiresCompilation(Exception):
    """The model is not compiled and may not be compiled now."""

    code: ClassVar[int] = 13
    status: ClassVar[str] = "MODEL_REQUIRES_COMPILATION"


class NotFound(Exception):
    """A named thing (an entry, a function) does not exist."""

    code: ClassVar[int] = 14
    status: ClassVar[str] = "NOT_FOUND"


_Error = TypeVar("_Error", bound=Exception)

CLASSES: dict[str, type[Exception]] = {
    kind.__name__: kind
    for kind in (
        Fail, InvalidArgument, NoSuchFile, NoModel, EngineError, RuntimeException, InvalidProtobuf,
        ModelLoaded, NotImplemented, InvalidGraph, EPFail, ModelLoadCanceled, ModelRequiresCompilation,
        NotFound,
    )
}  # fmt: skip

ERRORS: tuple[type[Exception], ...] = tuple(CLASSES.values())
"""For `except` clauses."""


def error(kind: type[_Error], sentence: str) -> _Error:
    """An exception of class `kind` whose message is onnxruntime's prefix and `sentence`."""
    return kind(f"[ONNXRuntimeError] : {kind.code} : {kind.status} : {sentence}")  # type: ignore[attr-defined]


def named_error(name: str, sentence: str) -> Exception:
    """The exception of the class called `name` (a key of CLASSES; any other name gives Fail)."""
    return error(CLASSES.get(name, Fail), sentence)


def sentence_of(problem: Exception) -> str:
    """The message of an exception that `error` made, without the prefix."""
    return str(problem).split(" : ", 3)[-1]
