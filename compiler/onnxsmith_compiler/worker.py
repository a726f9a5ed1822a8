"""The compile process: `python -m onnxsmith_compiler.worker`, driven over its standard input and output.

Messages are those of `onnxsmith.protocol`. Requests:

- "compile": members "path" (None: the block is the model), "options", "cache" ({"directory", "bytes"}) or None, and
  perhaps "own", what the session read of the file: the fields of its stamp, and its digest. The answer has
  "directory", "kernels" (how many were compiled), and "key", or None for that where the program is in no cache but
  in a temporary folder, which the session removes; then "warning" says why, if there is a cache.
- "dump": members "path", "options" and "what". The answer's block is text in UTF-8.
- "prepare": has no answer. What a "compile" needs is loaded while the session finds out whether it asks for one.
- "measure": members "threads" and "buffers", bytes each. The answer has "cpu" (LLVM's name), "vector_bits",
  "multiply_adds" of float32 a second, and "bandwidths", bytes a second read of each of the buffers.

The first two have "initializers" too: entries {"name", "type", "shape"} for replaced ones, whose data the block begins
with. "options" are fields of CompileOptions by name, as JSON values or as text. The process serves one request
after another and leaves when its input ends, or when it has been idle for a minute.
"""

from __future__ import annotations

import contextlib
import gc
import math
import os
import signal
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import astuple, dataclass, field, fields
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import numpy as np

from onnxsmith import protocol, source
from onnxsmith.cache import Cache
from onnxsmith.protocol import Message
from onnxsmith.source import FileStamp
from onnxsmith.values import numpy_dtype_from_code
from onnxsmith_compiler.aside import Asides
from onnxsmith_compiler.errors import CompileError, InvalidOption
from onnxsmith_compiler.parent import leave_with_parent

if TYPE_CHECKING:
    from onnxsmith_compiler.nursery import Nursery
    from onnxsmith_compiler.options import CompileOptions
    from onnxsmith_compiler.pipeline import CompiledModel
    from onnxsmith_compiler.workers import CompilePool

_IDLE_SECONDS = 60.0
_ATTEMPTS = 2
_GARBAGE_THRESHOLD = 200_000


class Kept:
    """What a compile process keeps between requests: programs that no cache has, and what workers are forked from."""

    def __init__(self) -> None:
        self.asides = Asides()
        self.sealing = threading.Lock()
        self._nursery: Nursery | None = None

    def nursery(self) -> Nursery:
        """The process that workers for this machine are forked from, started where there is none."""
        from onnxsmith_compiler.codegen.target import Target
        from onnxsmith_compiler.nursery import Limits, Nursery, living

        self._nursery = living(self._nursery, lambda: Nursery(Target.host(), Limits()))
        return self._nursery

    def leave(self) -> None:
        """Make ready for the end of the process: a program that was answered with goes to the disk first."""
        with self.sealing:
            self.asides.clear()


@dataclass(frozen=True)
class Request:
    """One request: its members, its block of bytes, the pipe that progress goes to, and what requests share."""

    message: Message
    data: bytes
    pipe: IO[bytes]
    kept: Kept = field(default_factory=Kept)

    @property
    def model(self) -> Path | bytes:
        """The model, before initializers are replaced."""
        path = self.message["path"]
        return self.data[self._replacement_bytes() :] if path is None else Path(path)

    def source(self) -> Any:
        """What is to be compiled, for the compiler's loader."""
        entries = self.message["initializers"]
        if not entries:
            return self.model
        from onnxsmith_compiler.onnx.replace import replace_initializers

        arrays = {}
        start = 0
        for entry in entries:
            dtype = numpy_dtype_from_code(entry["type"])
            count = math.prod(entry["shape"])
            array = np.frombuffer(self.data, dtype, count, start)
            arrays[entry["name"]] = array.reshape(entry["shape"])
            start += array.nbytes
        return replace_initializers(self.model, arrays)

    def own_digest(self, file: FileStamp) -> str:
        """The digest of the model's file: what the session read of it, if that was this very file."""
        *read, sha256 = self.message.get("own") or [None]
        return str(sha256) if read == list(astuple(file)) else source.file_digest(file.path)

    def key(self, digest: str) -> str:
        """The program's key, where `digest` is the model's."""
        replaced = source.replacement_digests(self.message["initializers"], self.data)
        return source.program_key(source.combined_digest(digest, replaced), self.message["options"])

    def _replacement_bytes(self) -> int:
        return sum(map(source.replacement_bytes, self.message["initializers"]))

    def progress(self, stage: str, done: int = 0, total: int = 0) -> None:
        """Tell the session how far this request is."""
        protocol.send(self.pipe, {"kind": "progress", "stage": stage, "done": done, "total": total})


class ModelChanged(CompileError):
    """A model file that was written to while it was being compiled."""


def main() -> None:
    """Serve requests until the session is gone."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the session decides what an interrupt ends
    gc.set_threshold(_GARBAGE_THRESHOLD)  # a model makes many objects, few of which are garbage
    with os.fdopen(os.dup(0), "rb") as incoming, os.fdopen(os.dup(1), "wb") as outgoing:
        os.dup2(2, 1)  # whatever a library prints must not end up between two messages
        serve(incoming, outgoing)


def serve(incoming: IO[bytes], outgoing: IO[bytes], idle_seconds: float = _IDLE_SECONDS) -> None:
    """Answer requests from `incoming` on `outgoing` until the former ends."""
    kept = Kept()
    leave_with_parent(incoming.fileno(), kept.leave)
    while True:
        with _leave_when_idle(idle_seconds, kept.leave):
            received = protocol.receive(incoming)
        if received is None:
            return
        message, data = received
        if message["kind"] == "prepare":
            _prepare(kept)
            continue
        answer, block = answer_to(Request(message, data, outgoing, kept))
        with kept.sealing:
            protocol.send(outgoing, answer, block)
            if answer["kind"] == "done" and message.get("cache"):
                cache, key = _cache(message), answer["key"]
                if key is not None:
                    cache.programs.seal(key)
                cache.prune(keep=(key,))  # the session has yet to open it


def _prepare(kept: Kept) -> None:
    """Load the compiler, here and in the process that kernels are compiled by. What goes wrong shows in the request."""
    with contextlib.suppress(Exception):
        kept.nursery()
        import onnxsmith_compiler.pipeline  # noqa: F401 (to have it loaded)


def answer_to(request: Request) -> tuple[Message, bytes]:
    """What the request's verb answers, or an "error" that says why there is no answer."""
    verb = VERBS.get(request.message["kind"])
    try:
        if verb is None:
            raise CompileError(f"The compile process knows no request '{request.message['kind']}'.")
        return verb(request)
    except CompileError as refusal:
        return {"kind": "error", "code": refusal.code, "message": refusal.message}, b""
    except BrokenPipeError:
        raise
    except OSError as problem:
        return _failure(f"The compiler was stopped by the operating system: {problem}")
    except MemoryError:
        return _failure("The compiler ran out of memory.")
    except Exception:
        return _failure(f"The compiler failed; this is a fault of onnxsmith.\n{traceback.format_exc()}")


def compile_request(request: Request) -> tuple[Message, bytes]:
    """Compile into the cache, unless the program is there already, or into a temporary folder."""
    if request.message["cache"] is None:
        with _pool(request, None) as pool:
            directory = request.kept.asides.write(_compile(request, pool, None).write)
        return {"kind": "done", "directory": str(directory), "key": None, "kernels": pool.compiled}, b""
    cache = _cache(request.message)
    with _pool(request, cache) as pool:
        for _ in range(_ATTEMPTS):
            with contextlib.suppress(_ChangedMeanwhile):
                return {"kind": "done", **_compile_into(cache, request, pool), "kernels": pool.compiled}, b""
    raise ModelChanged(f"The model file '{request.message['path']}' changes while it is being compiled.")


def dump_request(request: Request) -> tuple[Message, bytes]:
    """Describe how a model is compiled."""
    from onnxsmith_compiler.inspection import inspect_model

    text = inspect_model(request.source(), _options(request), request.message["what"])
    return {"kind": "done"}, text.encode()


def measure_request(request: Request) -> tuple[Message, bytes]:
    """Measure what the machine can do at most."""
    from onnxsmith_compiler.codegen import machine_speed
    from onnxsmith_compiler.codegen.target import Target

    threads, target = request.message["threads"], Target.host()
    answer = {
        "kind": "done",
        "cpu": target.cpu,
        "vector_bits": target.vector_bits,
        "multiply_adds": machine_speed.multiply_add_peak(threads),
        "bandwidths": [machine_speed.read_bandwidth(threads, size) for size in request.message["buffers"]],
    }
    return answer, b""


VERBS: dict[str, Callable[[Request], tuple[Message, bytes]]] = {
    "compile": compile_request,
    "dump": dump_request,
    "measure": measure_request,
}


class _ChangedMeanwhile(Exception):
    """The model's file is not the one that was begun with."""


def _compile_into(cache: Cache, request: Request, pool: CompilePool) -> Message:
    """The answer's members: where the program is, in the cache wherever that can be."""
    model = request.model
    before = source.stamp(str(model)) if isinstance(model, Path) and model.is_file() else None
    if isinstance(model, bytes):
        own = source.bytes_digest(model)
    else:
        own = request.own_digest(before) if before is not None else ""
    since = time.time_ns()
    with _locked(cache, own, request):
        # With initializers replaced, the model file stands alone: no external data is read.
        files = None if request.message["initializers"] else before
        digest = own if files is None else _known_digest(files.path, own, cache)
        if digest is not None:
            key = request.key(digest)
            found = cache.programs.find(key)
            if found is not None:
                return {"directory": str(found), "key": key}
        compiled = _compile(request, pool, cache)
        _check_unchanged(before)
        if files is not None:
            external = [source.FileStamp(*astuple(file)) for file in compiled.external_files]
            digest = source.remember(files, own, external, cache, since)
        key = request.key(digest or own)

        def write(directory: Path) -> None:
            compiled.write(directory)
            _check_unchanged(before)

        try:
            return {"directory": str(cache.programs.put(key, write)), "key": key}
        except OSError as refusal:
            return {
                "directory": str(request.kept.asides.write(write)),
                "key": None,
                "warning": _not_kept(cache, refusal),
            }


def _check_unchanged(before: source.FileStamp | None) -> None:
    if before is not None and source.stamp(before.path) != before:
        raise _ChangedMeanwhile


def _not_kept(cache: Cache, refusal: OSError) -> str:
    return (
        f"The compiled model is not kept, and each process will compile it anew: the cache folder '{cache.directory}' "
        f"cannot be written to ({refusal.strerror or refusal}). Make room there, or set ONNXSMITH_CACHE_DIR to "
        "another folder."
    )


def _known_digest(path: str, own: str, cache: Cache) -> str | None:
    try:
        return source.known_digest(path, cache, own)
    except OSError:
        return None  # the loader says which file of external data is missing


@contextmanager
def _locked(cache: Cache, key: str, request: Request) -> Iterator[None]:
    """Hold the cache's lock for `key`, so that of many processes one compiles and the others wait for it."""
    claim = cache.claim(key)
    if not claim.take(wait=False):
        request.progress("waiting for another process that compiles this model")
        claim.take(wait=True)
    try:
        yield
    finally:
        claim.release()


@contextmanager
def _pool(request: Request, cache: Cache | None) -> Iterator[CompilePool]:
    """Processes that compile kernels; numba is loaded there while this one reads the model and loads the compiler."""
    from onnxsmith_compiler.codegen.target import Target
    from onnxsmith_compiler.options import NATIVE
    from onnxsmith_compiler.workers import CompilePool

    options, host = _options(request), Target.host()
    target = host if options.target == NATIVE else Target.named(options.target)[0]
    store = None if cache is None else cache.kernels
    with CompilePool(options.workers or host.cores, target, store, nursery=request.kept.nursery()) as pool:
        yield pool


def _compile(request: Request, pool: CompilePool, cache: Cache | None) -> CompiledModel:
    from onnxsmith_compiler.codegen.target import Target
    from onnxsmith_compiler.options import NATIVE
    from onnxsmith_compiler.pipeline import compile_model  # numba loads only where there is work for it

    options = _options(request)
    tilings = None if cache is None else cache.tilings
    lesser = () if options.target == NATIVE else Target.named(options.target)[1:]
    return compile_model(request.source(), options, pool, request.progress, tilings, lesser)


def _options(request: Request) -> CompileOptions:
    """The request's options, text converted to the type of the field's default.

    CompileError for an option that does not exist or a value that does not fit.
    """
    from onnxsmith_compiler.options import CompileOptions

    known = {field.name: field.default for field in fields(CompileOptions)}
    values: dict[str, Any] = {}
    for name, value in request.message["options"].items():
        if name not in known:
            raise InvalidOption(f"The compiler has no option '{name}'. It has: {', '.join(sorted(known))}.")
        values[name] = _converted(name, value, known[name])
    return CompileOptions(**values)


def _converted(name: str, value: Any, default: object) -> Any:
    if not isinstance(value, str) or isinstance(default, str):
        return tuple(value) if isinstance(value, list) else value
    try:
        if isinstance(default, bool):
            return {"0": False, "1": True, "false": False, "true": True}[value.lower()]
        if isinstance(default, int | float):
            return type(default)(value)
        if isinstance(default, tuple):
            return tuple(value.split(","))
    except (KeyError, ValueError):
        pass
    raise InvalidOption(f"The compiler's option '{name}' cannot be '{value}': its default is {default!r}.")


def _cache(message: Message) -> Cache:
    return Cache(Path(message["cache"]["directory"]), message["cache"]["bytes"])


def _failure(sentence: str) -> tuple[Message, bytes]:
    return {"kind": "error", "code": "Fail", "message": sentence}, b""


@contextmanager
def _leave_when_idle(seconds: float, farewell: Callable[[], None]) -> Iterator[None]:
    """End this process, after `farewell`, if the block takes longer than `seconds`."""

    def leave() -> None:
        farewell()
        os._exit(0)

    timer = threading.Timer(seconds, leave)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


if __name__ == "__main__":
    main()
