"""The loops that measure the machine do the work that they are taken to do."""

from __future__ import annotations

import numpy as np
import pytest

from onnxsmith_compiler.codegen.machine_speed import (
    CHAINS,
    compile_loop,
    multiply_add_loop,
    multiply_add_peak,
    read_bandwidth,
    reading_loop,
)
from onnxsmith_compiler.codegen.target import Target

TARGETS = [Target.host(), Target.generic_x86_64("v2")]


@pytest.mark.parametrize("target", TARGETS, ids=lambda target: target.cpu)
@pytest.mark.parametrize("rounds", [1, 2, 1000])
def test_every_chain_multiplies_and_adds_in_every_round(target: Target, rounds: int) -> None:
    sums = np.arange(CHAINS, dtype=np.float64)
    for _ in range(rounds):
        sums = sums * 0.999 + 0.999
    assert compile_loop(multiply_add_loop(target), target)(None, rounds) == pytest.approx(sums.sum(), rel=1e-4)


@pytest.mark.parametrize("target", TARGETS, ids=lambda target: target.cpu)
@pytest.mark.parametrize("turns", [1, 5])
def test_every_vector_is_read(target: Target, turns: int) -> None:
    lanes = target.vector_bits // 32
    room = np.zeros(turns * CHAINS * lanes + 16, np.float32)
    numbers = room[-room.ctypes.data % 64 // 4 :][: turns * CHAINS * lanes]
    numbers[:] = np.arange(len(numbers)) % 17
    total = compile_loop(reading_loop(target), target)(numbers.ctypes.data, numbers.nbytes)
    assert total == sum(range(CHAINS)) + numbers[::lanes].sum()


def test_rates_of_this_machine() -> None:
    assert multiply_add_peak(1) > 1e8
    assert read_bandwidth(2, 1 << 20) > 1e7
    with pytest.raises(ValueError, match="too few for 2 threads"):
        read_bandwidth(2, 1000)
