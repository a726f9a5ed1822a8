"""Errors of the compiler: one type a cause, each with the name of onnxruntime's exception for it.

They cross a process boundary as `(code, message)`, so they hold nothing else.
"""

from __future__ import annotations

from typing import ClassVar


class CompileError(Exception):
    """A model that cannot be compiled. `code` names the runtime exception raised for it."""

    code: ClassVar[str] = "Fail"

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message


class ModelFileMissing(CompileError):
    """No file at the path that was given."""

    code = "NoSuchFile"


class ModelUnreadable(CompileError):
    """A path that is there, and that is no readable regular file."""

    code = "Fail"


class MalformedModel(CompileError):
    """Bytes that are no ONNX protobuf message: junk, truncated or damaged."""

    code = "InvalidProtobuf"


class EmptyModel(CompileError):
    """A well-formed message without a graph."""

    code = "InvalidArgument"


class UnsupportedVersion(CompileError):
    """An IR version or operator set that this compiler does not know."""

    code = "Fail"


class InvalidGraph(CompileError):
    """A graph that breaks ONNX's rules: names, order, arity, attributes, shapes."""

    code = "InvalidGraph"


class InvalidTensor(InvalidGraph):
    """A tensor whose data disagrees with its type or its dimensions."""


class UnsupportedFeature(CompileError):
    """Valid ONNX that this compiler has no implementation for."""

    code = "NotImplemented"


class LimitExceeded(CompileError):
    """A model that is larger or more deeply nested than the limits allow."""

    code = "Fail"


class ExternalDataError(CompileError):
    """External tensor data that may not or cannot be read: an unsafe path, a bad offset, a short file."""

    code = "InvalidGraph"


class ExternalDataMissing(ExternalDataError):
    """An external data file that is not in the model's folder."""

    code = "NoSuchFile"
