"""Compile workers, forked from one process that has loaded numba: to load it takes as long as several kernels do.

`kernel_worker` says what the processes answer.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable
from typing import IO

from onnxsmith import protocol, scratch
from onnxsmith.protocol import Message
from onnxsmith_compiler import kernel_worker
from onnxsmith_compiler.codegen import compile_errors
from onnxsmith_compiler.codegen.compile_errors import WorkerCrash
from onnxsmith_compiler.codegen.target import Target

_LAST_WORDS = 2000
_SECONDS_TO_DIE = 10.0


@dataclasses.dataclass(frozen=True)
class Limits:
    """What one worker may use: seconds for one kernel, and to start; bytes of address space (0: no limit)."""

    seconds: float = 120.0
    start_seconds: float = 120.0
    memory_bytes: int = 8 << 30


class Nursery:
    """The process that workers are forked from. It starts at once, and is waited for by the first `fork`."""

    def __init__(self, target: Target, limits: Limits) -> None:
        self.limits = limits
        self._errors = scratch.memory_file()
        self._lock = threading.Lock()
        self._socket, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            self._process: subprocess.Popen[bytes] = subprocess.Popen(
                [sys.executable, "-P", "-m", kernel_worker.__name__],
                stdin=theirs.fileno(),
                stdout=subprocess.DEVNULL,
                stderr=self._errors,
                env=_environment(),
            )
        with contextlib.suppress(BrokenPipeError):  # the first request says that it is dead
            self._send({"target": dataclasses.asdict(target), "memory_bytes": limits.memory_bytes})

    def fork(self, label: str) -> Worker:
        """A new worker. WorkerCrash, which names `label`, where the process is dead or does not answer."""
        errors = scratch.memory_file()
        ours, theirs = socket.socketpair()
        with theirs:
            try:
                answer = self._ask({"kind": "fork"}, [theirs.fileno(), errors.fileno()])
            except OSError as problem:
                ours.close()
                raise WorkerCrash(f"{label}: at the start of a compile worker: {self._why(problem)}") from None
        return Worker(self, answer["pid"], ours, errors)

    def end(self, pid: int, patience: float) -> int | None:
        """Wait so many seconds for the end of a worker, and kill it then; how it ended by itself, as Popen says it."""
        try:
            status = self._ask({"kind": "end", "pid": pid, "patience": patience}, [])["status"]
        except OSError:
            return None  # the nursery is gone; a worker leaves when nobody can write to it
        return None if status is None else int(status)

    @property
    def is_alive(self) -> bool:
        return self._process.poll() is None

    @property
    def pid(self) -> int:
        return self._process.pid

    def close(self) -> None:
        """End the process. Its workers have been ended before."""
        self._process.kill()
        self._process.wait()
        self._socket.close()
        self._errors.close()

    def _ask(self, message: Message, descriptors: list[int]) -> Message:
        """The answer to a message. OSError where there is none in time."""
        with self._lock:
            self._socket.settimeout(self.limits.start_seconds)
            self._send(message, descriptors)
            answer = self._socket.recv(kernel_worker.LONGEST)
        if not answer:
            raise BrokenPipeError
        decoded: Message = json.loads(answer)
        return decoded

    def _send(self, message: Message, descriptors: list[int] | None = None) -> None:
        socket.send_fds(self._socket, [json.dumps(message).encode()], descriptors or [])

    def _why(self, problem: OSError) -> str:
        if isinstance(problem, TimeoutError):
            self._process.kill()
            return f"took longer than {self.limits.start_seconds:g} s"
        try:
            return _obituary(self._process.wait(_SECONDS_TO_DIE), self._errors)
        except subprocess.TimeoutExpired:
            self._process.kill()
            return "the compile worker sent nonsense"


def living(nursery: Nursery | None, start: Callable[[], Nursery]) -> Nursery:
    """`nursery`, if there is one and its process lives; else what `start` gives, a dead one being closed."""
    if nursery is not None and nursery.is_alive:
        return nursery
    if nursery is not None:
        nursery.close()
    return start()


class Worker:
    """One process that compiles. Not for two threads at once."""

    def __init__(self, nursery: Nursery, pid: int, connection: socket.socket, errors: IO[bytes]) -> None:
        self.pid = pid
        self._nursery = nursery
        self._seconds = nursery.limits.seconds
        self._errors = errors
        self._incoming, self._outgoing = connection.makefile("rb"), connection.makefile("wb")
        self._socket = connection
        self._ending = threading.Lock()
        self._ended = False

    def compile(self, request: Message, label: str) -> bytes:
        """The object that `request` asks for (see kernel_worker); `label` says what it is.

        KernelCompileError where it does not compile, WorkerCrash where the process died or took too long.
        """
        with contextlib.suppress(BrokenPipeError):
            protocol.send(self._outgoing, request)
        answer, data = self._receive(label)
        if answer["kind"] == "error":
            raise getattr(compile_errors, answer["type"])(answer["message"])
        return data

    def close(self) -> None:
        """End the process."""
        self._end(patience=0.0)
        for stream in (self._outgoing, self._incoming, self._socket, self._errors):
            with contextlib.suppress(OSError):
                stream.close()

    def _end(self, patience: float) -> int | None:
        with self._ending:
            if self._ended:
                return None
            self._ended = True
            return self._nursery.end(self.pid, patience)

    def _receive(self, label: str) -> tuple[Message, bytes]:
        """The next message; WorkerCrash, and a dead process, where none comes in time."""
        expired = threading.Event()
        timer = threading.Timer(self._seconds, self._expire, (expired,))
        timer.daemon = True
        timer.start()
        try:
            received = protocol.receive(self._incoming)
        except (OSError, EOFError, ValueError):
            received = None
        finally:
            timer.cancel()
        if received is None:
            late = f"took longer than {self._seconds:g} s"
            raise WorkerCrash(f"{label}: {late if expired.is_set() else self._cause_of_death()}")
        return received

    def _expire(self, expired: threading.Event) -> None:
        expired.set()
        self._end(patience=0.0)

    def _cause_of_death(self) -> str:
        status = self._end(_SECONDS_TO_DIE)
        return "the compile worker sent nonsense" if status is None else _obituary(status, self._errors)


def _obituary(status: int, errors: IO[bytes]) -> str:
    """How a process ended and the last that it wrote to its standard error."""
    errors.seek(max(0, errors.seek(0, os.SEEK_END) - _LAST_WORDS))
    words = errors.read().decode(errors="replace").strip()
    how = f"of {signal.Signals(-status).name}" if status < 0 else f"with status {status}"
    return f"the compile worker died {how}" + (f": {words}" if words else "")


def _environment() -> dict[str, str]:
    """This process's environment, with its module path and without settings of numba's.

    numpy's library of linear algebra, which numba loads, has no use of threads there.
    """
    kept = {name: value for name, value in os.environ.items() if not name.startswith("NUMBA_")}
    paths = os.pathsep.join(path for path in sys.path if path)
    return kept | {"PYTHONPATH": paths, "OPENBLAS_NUM_THREADS": "1"}
