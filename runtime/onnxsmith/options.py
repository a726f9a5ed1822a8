"""Options of sessions and runs, as in onnxruntime, and the one place that reads environment variables.

Environment variables give defaults; an entry of `SessionOptions.add_session_config_entry` overrides them:

| variable              | session config entry        | meaning                                              |
|-----------------------|-----------------------------|------------------------------------------------------|
| ONNXSMITH_CACHE       | onnxsmith.cache             | "off": nothing is kept on disk                       |
| ONNXSMITH_CACHE_DIR   | onnxsmith.cache_dir         | folder of the cache                                  |
| ONNXSMITH_CACHE_BYTES | onnxsmith.cache_bytes       | bound of the cache, bytes (default 4 GB)             |
| -                     | onnxsmith.compile_seconds   | time limit of a compilation (default: none)          |
| -                     | onnxsmith.compile.<option>  | an option of the compiler by name                    |
"""

from __future__ import annotations

import operator
import os
import sys
from collections.abc import Callable, Mapping
from enum import IntEnum
from typing import Any, Generic, TypeVar, overload

import numpy as np

from onnxsmith.errors import InvalidArgument, NotImplemented, error
from onnxsmith.record import Record

DEFAULT_CACHE_BYTES = 4_000_000_000
_COMPILE_PREFIX = "onnxsmith.compile."

T = TypeVar("T")


class GraphOptimizationLevel(IntEnum):
    """How far a graph is optimised. From ORT_ENABLE_BASIC on, onnxsmith fuses."""

    ORT_DISABLE_ALL = 0
    ORT_ENABLE_BASIC = 1
    ORT_ENABLE_EXTENDED = 2
    ORT_ENABLE_LAYOUT = 3
    ORT_ENABLE_ALL = 99


class ExecutionMode(IntEnum):
    """Accepted for compatibility: a program's steps run in order, each shared by all threads."""

    ORT_SEQUENTIAL = 0
    ORT_PARALLEL = 1


class ExecutionOrder(IntEnum):
    """Accepted for compatibility: the order of steps is fixed when the program is compiled."""

    DEFAULT = 0
    PRIORITY_BASED = 1
    MEMORY_EFFICIENT = 2


class _Field(Generic[T]):
    """An attribute with a default whose values are converted, and refused with TypeError."""

    def __init__(self, convert: Callable[[Any], T], default: T) -> None:
        self.convert = convert
        self.default = default

    def __set_name__(self, owner: type, name: str) -> None:
        self.name = name

    @overload
    def __get__(self, owner: None, kind: type) -> _Field[T]: ...
    @overload
    def __get__(self, owner: _Entries, kind: type) -> T: ...
    def __get__(self, owner: _Entries | None, kind: type) -> _Field[T] | T:
        if owner is None:
            return self
        value: T = owner._values.get(self.name, self.default)
        return value

    def __set__(self, owner: _Entries, value: Any) -> None:
        try:
            owner._values[self.name] = self.convert(value)
        except (TypeError, ValueError) as problem:
            raise TypeError(f"{type(owner).__name__}.{self.name} cannot be {value!r}: {problem}") from None


class _Entries:
    """Attributes kept in one dictionary, and entries of free form beside them."""

    __slots__ = ("_entries", "_values")

    def __init__(self) -> None:
        self._values: dict[str, Any] = {}
        self._entries: dict[str, str] = {}

    def _add_entry(self, key: str, value: str) -> None:
        if not isinstance(key, str) or not isinstance(value, str):
            raise TypeError(f"a configuration entry is two strings, not {key!r} and {value!r}")
        self._entries[key] = value

    def _get_entry(self, key: str) -> str:
        if key not in self._entries:
            raise RuntimeError(f"{type(self).__name__} does not have configuration with key: {key}")
        return self._entries[key]


def _string(value: Any) -> str:
    return os.fspath(value) if isinstance(value, os.PathLike) else _only(str, value)


def _only(kind: type[T], value: Any) -> T:
    if not isinstance(value, kind):
        raise TypeError(f"expected {kind.__name__}")
    return value


def _integer(value: Any) -> int:
    return operator.index(value)


def _flag(value: Any) -> bool:
    return _only(bool, value)


class SessionOptions(_Entries):
    """Options of an InferenceSession, with onnxruntime's names and defaults.

    `intra_op_num_threads` is the number of threads a run uses, at most the processors that the process may use;
    0 or less takes one for each core among them. Options about onnxruntime's own memory, order and logging are
    accepted and have no effect, for a program's memory and order are planned when it is compiled.
    """

    __slots__ = ("_denotations", "_dimensions", "_initializers")

    graph_optimization_level = _Field(GraphOptimizationLevel, GraphOptimizationLevel.ORT_ENABLE_ALL)
    execution_mode = _Field(ExecutionMode, ExecutionMode.ORT_SEQUENTIAL)
    execution_order = _Field(ExecutionOrder, ExecutionOrder.DEFAULT)
    intra_op_num_threads = _Field(_integer, 0)
    inter_op_num_threads = _Field(_integer, 0)
    use_per_session_threads = _Field(_flag, True)
    enable_cpu_mem_arena = _Field(_flag, True)
    enable_mem_pattern = _Field(_flag, True)
    enable_mem_reuse = _Field(_flag, True)
    enable_profiling = _Field(_flag, False)
    profile_file_prefix = _Field(_string, "onnxruntime_profile_")
    optimized_model_filepath = _Field(_string, "")
    log_severity_level = _Field(_integer, -1)
    log_verbosity_level = _Field(_integer, 0)
    logid = _Field(_string, "")
    use_deterministic_compute = _Field(_flag, False)

    def __init__(self) -> None:
        super().__init__()
        self._dimensions: dict[str, int] = {}
        self._denotations: dict[str, int] = {}
        self._initializers: dict[str, np.ndarray[Any, np.dtype[Any]]] = {}

    def add_session_config_entry(self, key: str, value: str) -> None:
        """Set one entry, such as ("onnxsmith.cache", "off"); the module's table lists onnxsmith's keys."""
        self._add_entry(key, value)

    def get_session_config_entry(self, key: str) -> str:
        """The entry's value. RuntimeError where it was never set."""
        return self._get_entry(key)

    def add_free_dimension_override_by_name(self, name: str, value: int) -> None:
        """Fix the symbol `name` to `value` in every shape of the model."""
        self._dimensions[_only(str, name)] = _dimension(name, value)

    def add_free_dimension_override_by_denotation(self, denotation: str, value: int) -> None:
        """Fix every dimension that the model marks with `denotation` (such as "DATA_BATCH")."""
        self._denotations[_only(str, denotation)] = _dimension(denotation, value)

    def add_initializer(self, name: str, value: Any) -> None:
        """Replace the initializer `name` by `value`, a numpy array or an OrtValue of its type and shape.

        The array is read when a session is made. RuntimeError for a name that was added before.
        """
        if _only(str, name) in self._initializers:
            raise RuntimeError(f"An OrtValue for this name has already been added: {name}")
        self._initializers[name] = np.asarray(value)

    def add_external_initializers(self, names: list[str], values: list[Any]) -> None:
        """Replace several initializers, as add_initializer does for one."""
        if len(names) != len(values):
            raise error(InvalidArgument, f"{len(names)} initializer names and {len(values)} values were given")
        for name, value in zip(names, values, strict=True):
            self.add_initializer(name, value)

    def register_custom_ops_library(self, path: str) -> None:
        """Always refused: onnxsmith compiles operators and cannot call onnxruntime's native ones."""
        raise error(
            NotImplemented,
            f"Custom operator library '{path}' cannot be used: onnxsmith compiles every operator itself. "
            "Express the operator as an ONNX function in the model.",
        )

    def has_providers(self) -> bool:
        """Always False: providers are chosen by InferenceSession's argument."""
        return False


def _dimension(name: str, value: Any) -> int:
    size = _integer(value)
    if size < 0:
        raise error(InvalidArgument, f"Dimension '{name}' cannot be fixed to {size}: it is at least 0")
    return size


class RunOptions(_Entries):
    """Options of one run. `terminate` set before the run makes it fail at once."""

    __slots__ = ()

    terminate = _Field(_flag, False)
    only_execute_path_to_fetches = _Field(_flag, False)
    log_severity_level = _Field(_integer, -1)
    log_verbosity_level = _Field(_integer, 0)
    logid = _Field(_string, "")

    def add_run_config_entry(self, key: str, value: str) -> None:
        """Set one entry."""
        self._add_entry(key, value)

    def get_run_config_entry(self, key: str) -> str:
        """The entry's value. RuntimeError where it was never set."""
        return self._get_entry(key)


class Settings(Record):
    """What the environment and the session's config entries say about the cache and the compile process.

    `cache_dir` is None where nothing may be kept on disk. `compile_seconds` None is no limit.
    """

    cache_dir: str | None
    cache_bytes: int = DEFAULT_CACHE_BYTES
    compile_seconds: float | None = None


def settings(options: SessionOptions | None = None, environment: Mapping[str, str] = os.environ) -> Settings:
    """The settings in force for a session with `options`. InvalidArgument for a malformed number."""
    entries = options._entries if options is not None else {}

    def chosen(name: str) -> str:
        return entries.get(f"onnxsmith.{name}", environment.get(f"ONNXSMITH_{name.upper()}", ""))

    directory = chosen("cache_dir") or _default_cache_dir(environment)
    seconds = entries.get("onnxsmith.compile_seconds", "")
    return Settings(
        None if chosen("cache") == "off" else os.path.abspath(directory),
        int(_number("cache_bytes", chosen("cache_bytes"), DEFAULT_CACHE_BYTES)),
        _number("compile_seconds", seconds, 0) or None,
    )


def compile_options(options: SessionOptions | None) -> dict[str, Any]:
    """The options that change the compiled program, as the compile process takes them (all JSON)."""
    options = options if options is not None else SessionOptions()
    result: dict[str, Any] = {
        key.removeprefix(_COMPILE_PREFIX): value
        for key, value in options._entries.items()
        if key.startswith(_COMPILE_PREFIX)
    }
    result["optimization_level"] = int(options.graph_optimization_level)
    if options._dimensions:
        result["dimensions"] = dict(sorted(options._dimensions.items()))
    if options._denotations:
        result["denotations"] = dict(sorted(options._denotations.items()))
    return result


def _number(name: str, text: str, default: float) -> float:
    if not text:
        return default
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value < float("inf"):
        raise error(InvalidArgument, f"onnxsmith.{name} is '{text}': it must be a number, 0 or more")
    return value


def _default_cache_dir(environment: Mapping[str, str]) -> str:
    if sys.platform == "linux":  # what platformdirs answers, without the time its import takes
        base = environment.get("XDG_CACHE_HOME", "")
        return os.path.join(base if os.path.isabs(base) else os.path.expanduser("~/.cache"), "onnxsmith")
    import platformdirs

    return platformdirs.user_cache_dir("onnxsmith", appauthor=False)
