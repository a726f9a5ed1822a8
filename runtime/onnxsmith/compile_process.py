"""The compile process: started when first needed, shared by all sessions, one request at a time.

It is a Python interpreter of its own (`python -m onnxsmith_compiler.worker`), so that this one never imports
numba, llvmlite or onnx, and survives a crash in LLVM. It leaves when it has nothing to do for a while.
"""

from __future__ import annotations

import atexit
import contextlib
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from onnxsmith import protocol, scratch, source
from onnxsmith.errors import EngineError, Fail, NotImplemented, error, named_error
from onnxsmith.forks import UNDIVIDED

_STDERR_TAIL = 2000
# A process that nobody can write to any more leaves at once, unless the disk has yet to take a program.
_EXIT_SECONDS = 60.0


def call(
    request: protocol.Message,
    data: bytes,
    task: str,
    seconds: float | None,
    on_progress: Callable[[str, int, int], None] | None,
) -> tuple[protocol.Message, bytes]:
    """The answer of the compile process to `request`, which comes with the block of bytes `data`.

    `task` is what messages call it ("compiling the model 'm.onnx'"), `seconds` a time limit or None. Raises the
    class of onnxsmith.errors that the process names; NotImplemented where no compiler is installed; EngineError
    where the process died; Fail where the limit was reached.
    """
    return _SERVICE.call(_Call(request, data, task, seconds, on_progress))


def prepare() -> None:
    """Start the compile process, if there is a compiler, for who is about to find out that it is needed."""
    if source.compiler_folder() is not None:
        _SERVICE.prepare()


@dataclass(frozen=True)
class _Call:
    request: protocol.Message
    data: bytes
    task: str
    seconds: float | None
    on_progress: Callable[[str, int, int], None] | None


class _Process:
    """One compile process and the pipes to it."""

    def __init__(self) -> None:
        self._stderr = scratch.memory_file()
        self._process = subprocess.Popen(
            [_interpreter(), "-P", "-m", "onnxsmith_compiler.worker"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._stderr,
            bufsize=0,  # a buffer has a lock, which a forked child could find held by a thread that it does not have
            env=_environment(),
            start_new_session=os.name == "posix",  # Ctrl-C at a terminal is for this process to act on
        )
        self.answered = False

    def send(self, message: protocol.Message, data: bytes) -> None:
        """Send one request. BrokenPipeError where the process is gone."""
        assert self._process.stdin is not None
        self.answered = False
        protocol.send(self._process.stdin, message, data)

    def receive(self) -> tuple[protocol.Message, bytes]:
        """The next message. EOFError where the process is gone."""
        assert self._process.stdout is not None
        received = protocol.receive(self._process.stdout)
        if received is None:
            raise EOFError
        self.answered = True
        return received

    @property
    def left_when_idle(self) -> bool:
        """Whether the process had ended of itself, before it took up the last request."""
        return not self.answered and self._process.wait() == 0

    def obituary(self) -> str:
        """How the process ended and the last that it wrote to its standard error."""
        status = self._process.wait()
        self._stderr.seek(0)
        text = self._stderr.read().decode(errors="replace").strip()
        ended = f"was killed by signal {-status}" if status < 0 else f"ended with status {status}"
        return f"{ended}: {text[-_STDERR_TAIL:]}" if text else ended

    def kill(self) -> None:
        """End the process now. May be called from any thread."""
        self._process.kill()

    def abandon(self) -> None:
        """Let go of the process, which is a parent's, without a word to it: it must see when that one is gone."""
        self._process.returncode = 0  # not to be waited for
        for stream in (self._process.stdin, self._process.stdout, self._stderr):
            if stream is not None:
                with contextlib.suppress(OSError):
                    stream.close()

    def close(self) -> None:
        """Let the process end, which it does once nobody can write to it; kill it if it does not."""
        for stream in (self._process.stdin, self._process.stdout):
            if stream is not None:
                with contextlib.suppress(OSError):
                    stream.close()
        try:
            self._process.wait(_EXIT_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._stderr.close()


class _Service:
    """The compile process that all sessions of this process share, one request at a time."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._process: _Process | None = None

    def call(self, call: _Call) -> tuple[protocol.Message, bytes]:
        with self._lock:
            for _ in range(2):
                process = self._started()
                try:
                    with _time_limit(process, call.seconds) as limit:
                        return _converse(process, call)
                except (BrokenPipeError, EOFError, ConnectionResetError):
                    self._process = None
                    if process.left_when_idle:
                        process.close()
                        continue
                    raise _died(process, call, limit) from None
                except _Refused as refusal:
                    raise refusal.error from None
                except BaseException:  # an interrupt or a bad message: this conversation cannot go on
                    self._process = None
                    process.kill()
                    process.close()
                    raise
            raise error(EngineError, "The compile process ends as soon as it is started.")

    def prepare(self) -> None:
        """Start the process and have it load what compiling takes, unless it is there or busy."""
        if self._process is None and self._lock.acquire(blocking=False):
            try:
                with contextlib.suppress(OSError):
                    self._started().send({"kind": "prepare"}, b"")
            finally:
                self._lock.release()

    def close(self) -> None:
        """End the process, if there is one."""
        if self._process is not None:
            self._process.close()
            self._process = None

    def forget(self) -> None:
        """Leave the process, which is another's (after a fork), alone."""
        if self._process is not None:
            self._process.abandon()
        self._lock = threading.Lock()
        self._process = None

    def _started(self) -> _Process:
        if self._process is None:
            with UNDIVIDED:  # its pipes are inherited by no child that does not know of them
                self._process = _Process()
        return self._process


class _Refused(Exception):
    """Carries the error that the compiler answered past the handlers for a broken conversation."""

    def __init__(self, error: Exception) -> None:
        self.error = error


def _converse(process: _Process, call: _Call) -> tuple[protocol.Message, bytes]:
    process.send(call.request, call.data)
    while True:
        message, block = process.receive()
        match message["kind"]:
            case "done":
                return message, block
            case "error":
                raise _Refused(named_error(message["code"], message["message"]))
            case "progress" if call.on_progress is not None:
                call.on_progress(message["stage"], message["done"], message["total"])


@dataclass
class _Limit:
    exceeded: bool = False


@contextlib.contextmanager
def _time_limit(process: _Process, seconds: float | None) -> Iterator[_Limit]:
    """Kill `process` if the block takes longer than `seconds`."""
    limit = _Limit()
    if seconds is None:
        yield limit
        return

    def stop() -> None:
        limit.exceeded = True
        process.kill()

    timer = threading.Timer(seconds, stop)
    timer.start()
    try:
        yield limit
    finally:
        timer.cancel()


def _died(process: _Process, call: _Call, limit: _Limit) -> Exception:
    obituary = process.obituary()
    process.close()
    if limit.exceeded:
        return error(
            Fail,
            f"{call.task[0].upper()}{call.task[1:]} took longer than the {call.seconds:g} seconds that "
            "'onnxsmith.compile_seconds' allows.",
        )
    return error(EngineError, f"While {call.task} the compile process {obituary}")


def _interpreter() -> str:
    if sys.executable:
        return sys.executable
    raise error(EngineError, "No Python interpreter is known (sys.executable is empty) to compile models with.")


def _environment() -> dict[str, str]:
    """This process's environment, in which the compiler is found where this process finds it."""
    compiler = source.compiler_folder()
    if compiler is None:
        raise error(
            NotImplemented,
            "This model is not compiled yet, and the compiler (package onnxsmith_compiler) is not installed: "
            "pip install onnxsmith",
        )
    folders = [
        os.environ.get("PYTHONPATH", ""),
        str(compiler.parent),
        str(Path(__file__).resolve().parent.parent),
    ]
    return os.environ | {"PYTHONPATH": os.pathsep.join(folder for folder in folders if folder)}


_SERVICE = _Service()
atexit.register(_SERVICE.close)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_SERVICE.forget)
