"""From a model to an executor of its program."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from onnxsmith import artifact, locks
from onnxsmith.compile_client import Model, Progress, find_program, forget_program, remove_temporary
from onnxsmith.errors import Fail, InvalidArgument, error
from onnxsmith.executor import Executor
from onnxsmith.loader import Library, LibraryError
from onnxsmith.manifest import OtherMachineError
from onnxsmith.options import SessionOptions, compile_options, settings
from onnxsmith.threads import session_threads

T = TypeVar("T")


def open_executor(
    source: str | bytes,
    options: SessionOptions,
    distinct_symbols: tuple[str, ...],
    on_progress: Progress | None,
) -> Executor:
    """An executor of the program for a model, as `with_program` finds it."""

    def load(folder: Path) -> Executor:
        lock = _shared_lock(folder)
        try:
            package = artifact.read(folder)
            library = Library(package.code)
            threads = session_threads(options.intra_op_num_threads)
            executor = Executor(package.program, library, package.weights, threads)
        except BaseException:
            locks.close(lock)
            raise
        weakref.finalize(executor, locks.close, lock).atexit = False
        return executor

    return with_program(source, options, distinct_symbols, on_progress, load)


def _shared_lock(folder: Path) -> int | None:
    """What keeps the cache from throwing out a program that is open; None for a folder that is gone already."""
    try:
        return locks.share_folder(folder)
    except OSError:
        return None


def with_program(
    source: str | bytes,
    options: SessionOptions,
    distinct_symbols: tuple[str, ...],
    on_progress: Progress | None,
    use: Callable[[Path], T],
    interface: str = "",
) -> T:
    """What `use` makes of the folder of a model's program, which is compiled unless the cache has it.

    `source` is the model's absolute path, or its bytes.
    `distinct_symbols` are those that may have another size in each input. `interface` is the name that C functions
    get, where `options` name none. A program that `use` finds damaged
    is compiled anew once. Raises as `compile_client.find_program` does.
    """
    path, data = (source, None) if isinstance(source, str) else (None, source)
    model = Model(path, data, options._initializers)
    chosen = settings(options)
    wanted = compile_options(options)
    if distinct_symbols:
        wanted["distinct_symbols"] = list(distinct_symbols)
    if interface:
        wanted.setdefault("interface", interface)
    for _ in range(2):
        folder = find_program(model, wanted, chosen, on_progress)
        try:
            made = use(folder.path)
        except OtherMachineError as problem:
            reason = f"The session cannot run what it compiled: {problem}. Leave out the target, or write a package."
            raise error(InvalidArgument, reason) from None
        except (artifact.ArtifactError, LibraryError) as problem:
            damage = problem
            forget_program(folder, chosen)
            continue
        remove_temporary(folder, made)
        return made
    raise error(Fail, f"The program compiled for the model {model.name} cannot be loaded: {damage}")
