"""Compiling many small models in one process: they share compile workers and a cache of kernels."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import onnx

from onnxsmith.cache import open_cache
from onnxsmith.executor import Executor
from onnxsmith.loader import Library
from onnxsmith_compiler.codegen.target import Target
from onnxsmith_compiler.onnx.loader import load_model
from onnxsmith_compiler.options import CompileOptions
from onnxsmith_compiler.pipeline import CompiledModel, Lowered, link_model, lower_model
from onnxsmith_compiler.workers import CompilePool

Array = np.ndarray[Any, np.dtype[Any]]


class Compiler:
    """Compiles models, for this machine unless `target` is given. Use as a context manager.

    Compiled kernels are kept in `cache_dir`.
    """

    def __init__(self, cache_dir: Path, workers: int = 1, target: Target | None = None) -> None:
        self.target = target or Target.host()
        cache = open_cache(cache_dir)
        self.pool = CompilePool(workers, self.target, None if cache is None else cache.kernels)

    def __enter__(self) -> Compiler:
        self.pool.start()
        self._core = self.pool.compile_core()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.pool.close()

    def lower(self, model: onnx.ModelProto, options: CompileOptions) -> Lowered:
        return lower_model(load_model(model.SerializeToString()), options, self.target)

    def compile(self, model: onnx.ModelProto, options: CompileOptions | None = None) -> CompiledModel:
        lowered = self.lower(model, options or CompileOptions())
        return self.link(lowered, self.pool.compile(step.kernel.source for step in lowered.steps))

    def link(self, lowered: Lowered, objects: Mapping[str, bytes]) -> CompiledModel:
        """The compiled model, of its kernels' objects by key."""
        return link_model([(lowered, lambda: {**objects, **self._core.result()})])


def executor_of(compiled: CompiledModel, threads: int = 1) -> Executor:
    """An executor for a model that is in memory."""
    weights = compiled.weights.in_memory()
    return Executor(compiled.program, Library(compiled.code), weights, threads)


def run_named(executor: Executor, feed: Mapping[str, Array]) -> list[Array]:
    """The outputs for arrays by input name."""
    return list(executor.run([np.asarray(feed[tensor.name], order="C") for tensor in executor.program.inputs]))
