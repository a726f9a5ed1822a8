"""Times the steps of programs that differ only in the arguments of their kernels.

Whole models are run, so that each step finds the caches as it does in use: its weights cold, its operands as the step
before left them.
"""

from __future__ import annotations

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
_FEWEST_TURNS = 6
"""As many are made however large the model: one round of many programs, three of two."""
_SECONDS = 7.0
"""No further round begins that would probably end later."""


class StepTimer:
    """Times programs on `code` and `weights` (bytes), on one thread and on `cores`."""

    def __init__(self, code: bytes, weights: Array, cores: int, report: Progress) -> None:
        self._library = Library(code)
        self._weights = weights
        self._threads = sorted({1, cores})
        self._report = report

    def measure(self, programs: Sequence[Program]) -> list[list[list[list[float]]]]:
        """For each round, program and number of threads the seconds of each step.

        In a round the programs take turns, so that what else the machine does falls on all alike. A turn begins with a
        run that does not count, and has the best of several. Raises what a run may raise: one of
        `onnxsmith.faults.RUN_FAULTS`.
        """
        inputs = made_up_inputs(programs[0])
        total = _MOST_ROUNDS * len(programs)
        rounds: list[list[list[list[float]]]] = []
        start = time.perf_counter()
        for number in range(_MOST_ROUNDS):
            enough = number * len(programs) >= _FEWEST_TURNS
            if enough and (time.perf_counter() - start) * (number + 1) / number > _SECONDS:
                break
            turns = []
            for done, program in enumerate(programs):
                self._report("tuning", number * len(programs) + done, total)
                executors = (Executor(program, self._library, self._weights, threads) for threads in self._threads)
                turns.append([_turn(executor, inputs) for executor in executors])
            rounds.append(turns)
        self._report("tuning", total, total)
        return rounds


def _turn(executor: Executor, inputs: Sequence[Array | None]) -> list[float]:
    """The best seconds of each step in several runs."""
    executor.run(inputs)
    runs = [executor.run_timed(inputs).times for _ in range(_RUNS_A_TURN)]
    return [min(step.end - step.begin for step in times) / 1e9 for times in zip(*runs, strict=True)]


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
