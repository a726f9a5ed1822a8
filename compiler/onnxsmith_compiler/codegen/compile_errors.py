"""What goes wrong between a kernel's text and its machine code."""

from __future__ import annotations

from onnxsmith_compiler.errors import CompileError


class KernelCompileError(CompileError):
    """A kernel or native function that does not compile; the message names it and says why."""


class MissingLinker(CompileError):
    """Objects that can be linked only with a program that is not installed."""

    code = "NotImplemented"


class UndefinedSymbolError(KernelCompileError):
    """Compiled code that calls a function which nothing defines."""


class WorkerCrash(KernelCompileError):
    """A compile worker that died, ran out of time or of memory while it compiled a kernel."""


class LinkError(ValueError):
    """Objects that are not linked; the message names the one that is at fault and says why."""
