"""Times the steps of programs that differ only in the arguments of their kernels.

Whole models are run, so that each step finds the caches as it does in use: its weights cold, its operands as the step
before left them.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from onnxsmith.artifact import Program
from onnxsmith.executor import Executor
from onnxsmith.loader import Library
from onnxsmith.values import numpy_dtype

Array = np.ndarray[Any, np.dtype[Any]]
Progress = Callable[[str, int, int], None]

_RUNS_A_TURN = 3
_MOST_ROUNDS = 8
_SECONDS = 10.0
"""After this long no new round begins. One is always made, however large the model."""


class StepTimer:
    """Times programs on `code` and `weights` (bytes), on one thread and on `cores`."""

    def __init__(self, code: bytes, weights: Array, cores: int, report: Progress) -> None:
        self._library = Library(code)
        self._weights = weights
        self._threads = sorted({1, cores})
        self._report = report

    def measure(self, programs: Sequence[Program]) -> list[list[list[float]]]:
        """For each program and number of threads the seconds of each step, medians of several runs.

        The programs take turns, so that what else the machine does falls on all alike; each turn begins with a run that
        does not count. Raises what a run may raise: one of `onnxsmith.faults.RUN_FAULTS`.
        """
        inputs = made_up_inputs(programs[0])
        runs: list[list[list[list[float]]]] = [[[] for _ in self._threads] for _ in programs]
        total = _MOST_ROUNDS * len(programs)
        end = time.perf_counter() + _SECONDS
        for number in range(_MOST_ROUNDS):
            if number and time.perf_counter() > end:
                break
            order = range(len(programs)) if number % 2 == 0 else reversed(range(len(programs)))
            for done, program in enumerate(order):
                self._report("tuning", number * len(programs) + done, total)
                for place, threads in enumerate(self._threads):
                    executor = Executor(programs[program], self._library, self._weights, threads)
                    runs[program][place] += _turn(executor, inputs)
        self._report("tuning", total, total)
        return [[[statistics.median(step) for step in zip(*own, strict=True)] for own in turns] for turns in runs]


def _turn(executor: Executor, inputs: Sequence[Array | None]) -> list[list[float]]:
    """The seconds of each step in each run."""
    executor.run(inputs)
    turn = []
    for _ in range(_RUNS_A_TURN):
        timed = executor.run_timed(inputs)
        turn.append([(step.end - step.begin) / 1e9 for step in timed.times])
    return turn


def has_fixed_inputs(program: Program) -> bool:
    """Whether inputs can be made up: their sizes are in the program, and their elements are numbers."""
    return all(binder is None for binder in program.input_symbols) and all(
        numpy_dtype(tensor.dtype).kind != "O" for tensor in program.inputs
    )


def made_up_inputs(program: Program) -> list[Array | None]:
    """Normal floats, and zeros of other types: an index of 0 is within every axis. None for what has a default."""
    generator = np.random.default_rng(0)
    inputs: list[Array | None] = []
    for tensor in program.inputs:
        dtype = numpy_dtype(tensor.dtype)
        shape = tuple(program.slots[slot] for slot in tensor.dims)
        if tensor.name in program.overridable:
            inputs.append(None)
        elif tensor.dtype.startswith(("float", "bfloat")):
            inputs.append(generator.standard_normal(shape).astype(dtype))
        else:
            inputs.append(np.zeros(shape, dtype))
    return inputs
