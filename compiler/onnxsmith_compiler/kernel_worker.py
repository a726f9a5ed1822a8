"""The processes that compile: `python -m onnxsmith_compiler.kernel_worker`, which loads numba, and forks of it.

The first one, the nursery, is driven over its standard input, a socket of packets: JSON, and descriptors with it. The
first packet has "target" (fields of Target: what most requests will be for) and "memory_bytes" (a limit of the address
space of each of these processes, or 0). Then, one after another:

| "kind" | with                                       | answer                                                        |
|--------|--------------------------------------------|---------------------------------------------------------------|
| "fork" | a socket, and a file for what goes wrong   | "pid" of a new worker, which serves the socket                |
| "end"  | "pid", "patience"                          | "status", as Popen's; null for one that did not end by itself |

A worker gets messages of `onnxsmith.protocol`, one after another:

| "kind"        | members                          | answer                                             |
|---------------|----------------------------------|----------------------------------------------------|
| "kernel"      | "target", "source", "symbol"     | "object", whose block is the object file           |
| "routine"     | "target", "name"                 | the same, of one of `namespace.ROUTINES`           |
| "native_core" | "target", "name"                 | the same, of a part of `codegen.native_core`       |
| "c_functions" | "target"                         | the same, of `codegen.c_library`'s common part     |

An answer may also be "error", with "message". All leave when their input ends.
"""

from __future__ import annotations

import gc
import json
import os
import signal
import socket
import sys
import time
import traceback
from collections.abc import Callable
from typing import IO, Any, NoReturn

from onnxsmith import protocol
from onnxsmith.protocol import Message
from onnxsmith_compiler.codegen.compile_errors import KernelCompileError
from onnxsmith_compiler.codegen.source import KernelSource, Parameter
from onnxsmith_compiler.codegen.target import Target
from onnxsmith_compiler.parent import leave_with_parent

LONGEST = 1 << 16
"""Bytes of the longest packet."""
_POLL_SECONDS = 0.01
_NICENESS = 5
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
    """Fork workers until the parent is gone."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent decides what an interrupt ends
    with socket.socket(fileno=os.dup(0)) as parent:
        start = parent.recv(LONGEST)
        if start:
            message = json.loads(start)
            _limit_memory(message["memory_bytes"])
            _warm_up(Target(**message["target"]))
            _raise_workers(parent)


def _raise_workers(parent: socket.socket) -> None:
    """Answer the pool's packets. It has one thread, so that a fork finds nothing half done."""
    while True:
        packet, descriptors, _, _ = socket.recv_fds(parent, LONGEST, 2)
        if not packet:
            return
        message = json.loads(packet)
        if message["kind"] == "fork":
            pid = os.fork()
            if pid == 0:
                parent.close()
                _be_worker(*descriptors)
            for descriptor in descriptors:
                os.close(descriptor)
            answer: Message = {"pid": pid}
        else:
            answer = {"status": _end(message["pid"], message["patience"])}
        parent.send(json.dumps(answer).encode())


def _be_worker(connection: int, errors: int) -> NoReturn:
    """Serve `connection` until the pool is gone; what is printed goes to `errors`."""
    code = 1
    try:
        os.nice(_NICENESS)  # the compile process goes first: who writes the weights alone at the end leaves cores idle
        os.dup2(errors, 1)
        os.dup2(errors, 2)
        os.dup2(connection, 0)  # the nursery's socket, which it keeps open for the parent alone
        leave_with_parent(connection)
        with os.fdopen(os.dup(connection), "rb") as incoming, os.fdopen(os.dup(connection), "wb") as outgoing:
            serve(incoming, outgoing)
        code = 0
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(code)


def _end(pid: int, patience: float) -> int | None:
    """How the worker ended, if it does within `patience` seconds; it is killed else."""
    deadline = time.monotonic() + patience
    while True:
        found, status = os.waitpid(pid, os.WNOHANG)
        if found:
            return os.waitstatus_to_exitcode(status)
        if time.monotonic() >= deadline:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
            return None
        time.sleep(_POLL_SECONDS)


def serve(incoming: IO[bytes], outgoing: IO[bytes]) -> None:
    """Answer requests from `incoming` on `outgoing` until the former ends."""
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
    from onnxsmith_compiler.codegen.native_core import PARTS, compile_core

    return compile_core(target, PARTS[message["name"]])


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
