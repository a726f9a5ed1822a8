"""Errors of the compiler: one type a cause, each with the name of onnxruntime's exception for it.

They cross a process boundary as `(code, message)`, so they hold nothing else.
"""

from __future__ import annotations

from typing import ClassVar

_SHOWN = 120


def quoted(name: str) -> str:
    """A name out of a model as it may appear in a message: printable, and cut where it is very long."""
    return repr(name if len(name) <= _SHOWN else name[:_SHOWN] + "...")


class CompileError(Exception):
    """A model that cannot be compiled. `code` names the runtime exception raised for it."""

    code: ClassVar[str] = "Fail"

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message


class ModelFileMissing(CompileError):
    """No file at the path that was given."""

    code = "NoSuchFile"


class MalformedModel(CompileError):
    """Something that holds no ONNX protobuf message: a folder, junk, a truncated or damaged file."""

    code = "InvalidProtobuf"


class EmptyModel(CompileError):
    """A well-formed message without a graph."""

    code = "InvalidArgument"


class UnsupportedVersion(CompileError):
    """An IR version or operator set that this compiler does not know."""

    code = "Fail"


class InvalidGraph(CompileError):
    """A node or a function that breaks the rules of its operator: name, arity, attributes."""

    code = "InvalidGraph"


class UndefinedName(CompileError):
    """A node that reads a name that nothing defines."""

    code = "InvalidArgument"


class UndefinedOutput(CompileError):
    """A graph or function that returns a name that nothing defines."""

    code = "Fail"


class DuplicateName(CompileError):
    """A value that is defined twice."""

    code = "Fail"


class CyclicGraph(CompileError):
    """Nodes that wait for one another."""

    code = "Fail"


class InvalidType(CompileError):
    """A declared type that is missing or makes no sense."""

    code = "Fail"


class InvalidTensor(CompileError):
    """A tensor whose data disagrees with its type or its dimensions."""

    code = "Fail"


class UnsupportedFeature(CompileError):
    """Valid ONNX that this compiler has no implementation for."""

    code = "NotImplemented"


class LimitExceeded(CompileError):
    """A model that is larger or more deeply nested than the limits allow."""

    code = "Fail"


class NoRoom(CompileError):
    """A compiled model that no disk has room for."""

    code = "Fail"


class ExternalDataError(CompileError):
    """External tensor data that may not or cannot be read: an unsafe path, a bad offset, a short file."""

    code = "Fail"


class InvalidOption(CompileError):
    """An option that the compiler does not have, or a value that it cannot take."""

    code = "InvalidArgument"
