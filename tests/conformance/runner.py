"""Compiles and runs cases in this process: many cases' kernels side by side, in one pool of compile workers."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np

from onnxsmith.executor import Executor
from onnxsmith.faults import RUN_FAULTS
from onnxsmith.run_errors import explain
from onnxsmith_compiler.codegen.compile_errors import KernelCompileError
from onnxsmith_compiler.errors import CompileError
from onnxsmith_compiler.options import CompileOptions
from onnxsmith_compiler.pipeline import Lowered
from tests.compiling import Compiler, executor_of
from tests.conformance.cases import DataSet, OfficialCase
from tests.conformance.compare import differences

_SHOWN = 240


@dataclass(frozen=True)
class Outcome:
    """What became of a case: `reason` is empty for one that passed."""

    name: str
    reason: str = ""

    @property
    def passed(self) -> bool:
        return not self.reason


class CaseRunner:
    """Runs official cases. Use as a context manager; compiled kernels are kept in `cache_dir`."""

    def __init__(self, cache_dir: Path, workers: int, options: CompileOptions | None = None, threads: int = 2) -> None:
        self._options = options or CompileOptions()
        self._threads = threads
        self._compiler = Compiler(cache_dir, workers)

    def __enter__(self) -> CaseRunner:
        self._compiler.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._compiler.__exit__(kind, value, trace)

    def run(self, cases: Iterable[OfficialCase], begin: Callable[[str], None] | None = None) -> Iterable[Outcome]:
        """An outcome a case, in any order. `begin(name)` is called before compiled code of a case runs."""
        lowered: dict[OfficialCase, Lowered] = {}
        for case in cases:
            try:
                lowered[case] = self._compiler.lower(case.model(), self._options)
            except Exception as error:
                yield Outcome(case.name, _describe(error))
        objects, failures = self._compile(lowered.values())
        for case, model in lowered.items():
            broken = [failures[step.kernel.source.text] for step in model.steps if step.kernel.source.text in failures]
            if broken:
                yield Outcome(case.name, broken[0])
                continue
            if begin is not None:
                begin(case.name)
            yield self._run(case, model, objects)

    def _compile(self, models: Iterable[Lowered]) -> tuple[dict[str, bytes], dict[str, str]]:
        """All objects by key, and why others do not compile by kernel text."""
        sources = list(dict.fromkeys(step.kernel.source for model in models for step in model.steps))
        failures: dict[str, str] = {}
        try:
            objects = self._compiler.pool.compile(sources)
        except KernelCompileError:
            objects = {}
            for source in sources:
                try:
                    objects |= self._compiler.pool.compile([source])
                except KernelCompileError as error:
                    failures[source.text] = _describe(error)
        return objects, failures

    def _run(self, case: OfficialCase, lowered: Lowered, objects: dict[str, bytes]) -> Outcome:
        try:
            compiled = self._compiler.link(lowered, objects)
            run = executor_of(compiled, self._threads)
            for data in case.data_sets():
                found = _feed(run, data)
                wrong = differences(found, data.outputs, case.rtol, case.atol)
                if wrong:
                    return Outcome(case.name, one_line("; ".join(wrong)))
        except RUN_FAULTS as fault:
            return Outcome(case.name, _describe(explain(compiled.program, fault)))
        except Exception as error:
            return Outcome(case.name, _describe(error))
        return Outcome(case.name)


def _feed(executor: Executor, data: DataSet) -> list[Any]:
    given = list(data.inputs)
    missing = len(executor.program.inputs) - len(given)
    return list(executor.run([*map(_contiguous, given), *[None] * missing]))


def _contiguous(value: Any) -> Any:
    return np.asarray(value, order="C") if isinstance(value, np.ndarray | np.generic) else value


def _describe(error: BaseException) -> str:
    kind = "" if isinstance(error, CompileError | KernelCompileError) else f"{type(error).__name__}: "
    return one_line(kind + str(error))


def one_line(text: str) -> str:
    """`text` without line breaks, of bounded length, not empty."""
    line = " ".join(text.split()) or "failed"
    return line if len(line) <= _SHOWN else line[: _SHOWN - 3] + "..."
