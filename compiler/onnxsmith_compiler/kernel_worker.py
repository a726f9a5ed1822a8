"""One compile worker: `python -m onnxsmith_compiler.kernel_worker`, driven over its standard streams.

Messages are those of `onnxsmith.protocol`. The first one is "start", with "target" (fields of Target: what most
requests will be for) and "memory_bytes" (a limit of this process's address space, or 0); its answer is "ready".
Then, one after another:

| "kind"        | members                          | answer                                             |
|---------------|----------------------------------|----------------------------------------------------|
| "kernel"      | "target", "source", "symbol"     | "object", whose block is the object file           |
| "routine"     | "target", "name"                 | the same, of one of `namespace.ROUTINES`           |
| "native_core" | "target"                         | the same, of `codegen.native_core`                 |
| "c_functions" | "target"                         | the same, of `codegen.c_library`'s common part     |

An answer may also be "error", with "message". The process leaves when its input ends.
"""

from __future__ import annotations

import gc
import os
import signal
from collections.abc import Callable
from typing import IO, Any

from onnxsmith import protocol
from onnxsmith.protocol import Message
from onnxsmith_compiler.codegen.compile_errors import KernelCompileError
from onnxsmith_compiler.codegen.source import KernelSource, Parameter
from onnxsmith_compiler.codegen.target import Target
from onnxsmith_compiler.parent import leave_with_parent

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
        leave_with_parent(incoming.fileno())
        serve(incoming, outgoing)


def serve(incoming: IO[bytes], outgoing: IO[bytes]) -> None:
    """Answer requests from `incoming` on `outgoing` until the former ends."""
    received = protocol.receive(incoming)
    if received is None:
        return
    start, _ = received
    _limit_memory(start["memory_bytes"])
    _warm_up(Target(**start["target"]))
    protocol.send(outgoing, {"kind": "ready"})
    while (received := protocol.receive(incoming)) is not None:
        message, _ = received
        try:
            data = _VERBS[message["kind"]](Target(**message["target"]), message)
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


def _warm_up(target: Target) -> None:
    """Compile a first kernel: numba loads most of itself on first use."""
    from onnxsmith_compiler.codegen.numba_adapter import compile_kernel

    compile_kernel(_WARM_UP, "warm_up", target)
    gc.collect()
    gc.freeze()
    gc.set_threshold(_GARBAGE_THRESHOLD)


def _compile_kernel(target: Target, message: Message) -> bytes:
    from onnxsmith_compiler.codegen.numba_adapter import compiler_for

    return compiler_for(target).compile_kernel(_source(message["source"]), message["symbol"], routines=False)


def _compile_routine(target: Target, message: Message) -> bytes:
    from onnxsmith_compiler.codegen.numba_adapter import compiler_for

    return compiler_for(target).compile_routine(message["name"])


def _compile_native_core(target: Target, message: Message) -> bytes:
    from onnxsmith_compiler.codegen.native_core import compile_core

    return compile_core(target)


def _compile_c_functions(target: Target, message: Message) -> bytes:
    from onnxsmith_compiler.codegen.c_library import compile_common

    return compile_common(target)


_VERBS: dict[str, Callable[[Target, Message], bytes]] = {
    "kernel": _compile_kernel,
    "routine": _compile_routine,
    "native_core": _compile_native_core,
    "c_functions": _compile_c_functions,
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
