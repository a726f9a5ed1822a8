"""Finds a model's program in the cache, or has the compile process make it."""

from __future__ import annotations

import os
import time
import weakref
from collections.abc import Callable, Mapping
from dataclasses import astuple, dataclass, field
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

from onnxsmith import source
from onnxsmith.cache import Cache, open_cache
from onnxsmith.errors import NoSuchFile, error
from onnxsmith.forks import UNDIVIDED
from onnxsmith.options import Settings
from onnxsmith.values import Array, onnx_code

# To read a model of so many bytes takes about as long as to start the compile process.
_LONG_READ_BYTES = 1 << 26

Progress: TypeAlias = Callable[[str, int, int], None]
"""Called with a stage's name, how much of it is done, and how much there is (0 where unknown)."""


@dataclass(frozen=True)
class Model:
    """A model as the user gave it: the path of a file (absolute), or its bytes. One of the two is None.

    `initializers` are arrays that stand in for those of the model.
    """

    path: str | None
    data: bytes | None
    initializers: Mapping[str, Array] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """What messages call it."""
        return f"'{self.path}'" if self.path is not None else "given as bytes"

    def replacements(self) -> list[dict[str, Any]]:
        """The replaced initializers for the compile process, in order of their names, without their data."""
        return [
            {"name": name, "type": onnx_code(array.dtype), "shape": array.shape}
            for name, array in sorted(self.initializers.items())
        ]

    def block(self) -> bytes:
        """The bytes that go to the compile process: the replaced initializers' data, then the model's."""
        data = [array.tobytes() for _, array in sorted(self.initializers.items())]
        return b"".join([*data, self.data or b""])


@dataclass(frozen=True)
class ProgramFolder:
    """Where a compiled program lies. `key` is its key in the cache, None for one in a folder of this session's."""

    path: Path
    key: str | None


def find_program(
    model: Model, options: Mapping[str, Any], settings: Settings, on_progress: Progress | None = None
) -> ProgramFolder:
    """The program of `model` compiled with `options`: from the cache, or compiled now.

    What no cache keeps is in a temporary folder, which `remove_temporary` removes; where a cache should have
    kept it, the log says why it did not.

    Raises the class of onnxsmith.errors that the compiler names for a model that it refuses; NoSuchFile
    for a missing file; NotImplemented where no compiler is installed; EngineError where the compile process
    died; Fail where it took longer than settings.compile_seconds.
    """
    if model.path is not None and not os.path.exists(model.path):
        raise error(NoSuchFile, f"The model file '{model.path}' does not exist.")
    cache = open_cache(settings.cache_dir, settings.cache_bytes)
    request = _request("compile", model, options)
    if cache is not None:
        digest, own = _identify(model, cache)
        found = None if digest is None else _in_cache(model, options, cache, digest)
        if found is not None:
            return found
        request["own"] = None if own is None else [*astuple(own.file), own.sha256]
    request["cache"] = None if cache is None else {"directory": str(cache.directory), "bytes": cache.bound}
    answer, _ = _ask(request, model, settings, on_progress)
    if "warning" in answer:
        from onnxsmith import logs

        logs.logger().warning(answer["warning"])
    return ProgramFolder(Path(answer["directory"]), answer["key"])


def forget_program(folder: ProgramFolder, settings: Settings) -> None:
    """Remove a program that turned out to be damaged."""
    if folder.key is None:
        _remove_own(str(folder.path.parent), os.getpid())
        return
    cache = open_cache(settings.cache_dir, settings.cache_bytes)
    if cache is not None:
        cache.programs.remove(folder.key)


def remove_temporary(folder: ProgramFolder, user: object) -> None:
    """Remove a temporary folder, once `user`, which has its files open, allows it.

    Most systems let go of the names of open files at once; elsewhere it is done when `user` is gone.
    """
    if folder.key is not None:
        return
    if os.name == "posix":
        _remove_own(str(folder.path.parent), os.getpid())
    else:
        weakref.finalize(user, _remove_own, str(folder.path.parent), os.getpid())


def dump(model: Model, options: Mapping[str, Any], what: str, settings: Settings) -> str:
    """Text about how `model` is compiled, `what` as the compiler offers it. Raises as find_program does."""
    request = _request("dump", model, options) | {"what": what}
    _, text = _ask(request, model, settings, None)
    return text.decode()


def _remove_own(directory: str, process: int) -> None:
    import shutil

    if os.getpid() == process:  # a forked child must not remove what its parent uses
        shutil.rmtree(directory, ignore_errors=True)


def _request(kind: str, model: Model, options: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "kind": kind,
        "path": model.path,
        "options": dict(options),
        "initializers": model.replacements(),
    }


def _ask(
    request: dict[str, Any], model: Model, settings: Settings, on_progress: Progress | None
) -> tuple[dict[str, Any], bytes]:
    with UNDIVIDED:
        from onnxsmith import compile_process, logs  # only where there is something to compile

    start = time.perf_counter()
    task = f"compiling the model {model.name}"
    answer = compile_process.call(request, model.block(), task, settings.compile_seconds, on_progress)
    seconds, kernels = time.perf_counter() - start, answer[0].get("kernels", 0)
    logs.logger().info("Compiled the model %s in %.2f s, with %d new kernels", model.name, seconds, kernels)
    return answer


class _Identity(NamedTuple):
    """A model's digest, None where the cache does not know the model, and what was read of its file to tell."""

    digest: str | None
    own: source.FileDigest | None = None


def _identify(model: Model, cache: Cache) -> _Identity:
    if model.path is None:
        return _Identity(source.bytes_digest(model.data or b""))
    try:
        recorded = None if model.initializers else source.recorded_digest(model.path, cache)
        if recorded is not None:
            return _Identity(recorded)
        if os.stat(model.path).st_size >= _LONG_READ_BYTES:
            _prepare()
        own = source.read_digest(model.path)
        sha256 = own.sha256 if own is not None else source.file_digest(model.path)
        return _Identity(sha256 if model.initializers else source.known_digest(model.path, cache, sha256), own)
    except OSError:
        return _Identity(None)  # the compile process says what is wrong with the file


def _prepare() -> None:
    with UNDIVIDED:
        from onnxsmith import compile_process
    compile_process.prepare()


def _in_cache(model: Model, options: Mapping[str, Any], cache: Cache, digest: str) -> ProgramFolder | None:
    replaced = source.replacement_digests(model.replacements(), model.block())
    key = source.program_key(source.combined_digest(digest, replaced), options)
    path = cache.programs.find(key)
    return None if path is None else ProgramFolder(path, key)
