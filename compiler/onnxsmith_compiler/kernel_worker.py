"""One compile worker: `python -m onnxsmith_compiler.kernel_worker`, driven over its standard streams.

Messages are those of `onnxsmith.protocol`. The first one is "start", with "target" (fields of Target) and
"memory_bytes" (a limit of this process's address space, or 0); its answer is "ready". Then, one after
another:

| "kind"        | members                          | answer                                             |
|---------------|----------------------------------|----------------------------------------------------|
| "kernel"      | "source", "symbol"               | "object", whose block is the object file           |
| "routine"     | "name"                           | the same, of one of `namespace.ROUTINES`           |
| "native_core" |                                  | the same, of `codegen.native_core`                 |


An answer may also be "error", with "message". The process leaves when its input ends.
"""

from __future__ import annotations

import gc
import os
import signal
from collections.abc import Callable
from typing import IO, TYPE_CHECKING, Any

from onnxsmith import protocol
from onnxsmith.protocol import Message
from onnxsmith_compiler.codegen.compile_errors import KernelCompileError
from onnxsmith_compiler.codegen.source import KernelSource, Parameter
from onnxsmith_compiler.codegen.target import Target

if TYPE_CHECKING:
    from onnxsmith_compiler.codegen.numba_adapter import Compiler

_GARBAGE_THRESHOLD = 200_000
_WARM_UP = KernelSource(
    "warm-up",
    """
def kernel(ctx, x, n, begin, end):
    for i in range(begin, min(n, end)):
        store(x, i, load(x, i) + float32(1.0))
    return 0
""",
    (Parameter("x", "float32*"), Parameter("n", "int64")),
)


def main() -> None:
    """Serve requests until the parent is gone."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent decides what an interrupt ends
    with os.fdopen(os.dup(0), "rb") as incoming, os.fdopen(os.dup(1), "wb") as outgoing:
        os.dup2(2, 1)  # whatever a library prints must not end up between two messages
        serve(incoming, outgoing)


def serve(incoming: IO[bytes], outgoing: IO[bytes]) -> None:
    """Answer requests from `incoming` on `outgoing` until the former ends."""
    received = protocol.receive(incoming)
    if received is None:
        return
    start, _ = received
    _limit_memory(start["memory_bytes"])
    compiler = _warm_compiler(Target(**start["target"]))
    protocol.send(outgoing, {"kind": "ready"})
    while (received := protocol.receive(incoming)) is not None:
        message, _ = received
        try:
            data = _VERBS[message["kind"]](compiler, message)
        except KernelCompileError as error:
            protocol.send(outgoing, {"kind": "error", "type": type(error).__name__, "message": error.message})
        else:
            protocol.send(outgoing, {"kind": "object"}, data)


def source_message(source: KernelSource) -> dict[str, Any]:
    """`source` as JSON."""
    parameters = [[parameter.name, parameter.type, parameter.noalias] for parameter in source.parameters]
    return {"label": source.label, "text": source.text, "parameters": parameters, "unroll": source.unroll}


def _source(message: dict[str, Any]) -> KernelSource:
    parameters = tuple(Parameter(name, kind, noalias) for name, kind, noalias in message["parameters"])
    return KernelSource(message["label"], message["text"], parameters, message["unroll"])


def _warm_compiler(target: Target) -> Compiler:
    """A Compiler whose first kernel is behind it: numba loads most of itself on first use."""
    from onnxsmith_compiler.codegen.numba_adapter import compiler_for

    compiler = compiler_for(target)
    compiler.compile_kernel(_WARM_UP, "warm_up")
    gc.collect()
    gc.freeze()
    gc.set_threshold(_GARBAGE_THRESHOLD)
    return compiler


def _compile_kernel(compiler: Compiler, message: Message) -> bytes:
    return compiler.compile_kernel(_source(message["source"]), message["symbol"], routines=False)


def _compile_routine(compiler: Compiler, message: Message) -> bytes:
    return compiler.compile_routine(message["name"])


def _compile_native_core(compiler: Compiler, message: Message) -> bytes:
    from onnxsmith_compiler.codegen.native_core import compile_core

    return compile_core(compiler.target)


_VERBS: dict[str, Callable[[Compiler, Message], bytes]] = {
    "kernel": _compile_kernel,
    "routine": _compile_routine,
    "native_core": _compile_native_core,
}


def _limit_memory(limit: int) -> None:
    if not limit:
        return
    try:
        import resource
    except ImportError:  # not on Windows
        return
    _, hard = resource.getrlimit(resource.RLIMIT_AS)
    if hard != resource.RLIM_INFINITY:
        limit = min(limit, hard)
    resource.setrlimit(resource.RLIMIT_AS, (limit, hard))


if __name__ == "__main__":
    main()
