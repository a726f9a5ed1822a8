"""Medians of steps, and steps of one kind together."""

from __future__ import annotations

import pytest
from hand_programs import Draft, slot

from onnxsmith.kernel_times import KernelTime, by_label, step_times
from onnxsmith.program import Program
from onnxsmith.roofline import Roofline, Stream
from onnxsmith.segment_runner import StepTime, TimedRun

ROOFLINE = Roofline("cpu", 256, 1, peak=2e9, streams=(Stream(64, 1e9),))


def program() -> Program:
    draft = Draft("n")
    x, y, z = draft.input("x", [0]), draft.output("y", [0]), draft.output("z", [0])
    tiles = draft.tiles(0)
    flops, traffic = draft.constant(4000), draft.constant(1000)
    draft.step("add", [x, x, y, slot(0)], tiles, flops=flops, traffic=traffic)
    draft.step("copy", [x, y, slot(0)], tiles, traffic=traffic)
    draft.step("add", [x, y, z, slot(0)], tiles, flops=flops, traffic=traffic)
    return draft.program()


def timed(*nanoseconds: int) -> TimedRun:
    run = TimedRun(program(), threads=1)
    run.slots = list(run.program.slots)
    begin = 0
    for step, taken in enumerate(nanoseconds):
        run.times.append(StepTime(step, begin, begin + taken))
        begin += taken + 5
    return run


def rows() -> list[KernelTime]:
    return step_times([timed(9000, 500, 2000), timed(4000, 2000, 2000), timed(1000, 4000, 2000)], ROOFLINE)


def test_steps_have_their_medians_and_rates() -> None:
    first, second, third = rows()
    assert [row.seconds for row in (first, second, third)] == pytest.approx([4e-6, 2e-6, 2e-6])
    assert (first.step, first.label, first.count, first.nodes) == (0, "add", 1, ("add",))
    assert (first.flop_rate, first.byte_rate, first.intensity) == pytest.approx((1e9, 0.25e9, 4.0))
    assert first.roofline_share == pytest.approx(0.5)  # 4000 operations take 2 us at least
    assert (second.flop_rate, second.intensity) == (0, 0)
    assert second.roofline_share == pytest.approx(0.5)  # 1000 bytes take 1 us
    assert third.roofline_share == pytest.approx(1)


def test_steps_of_a_label_are_summed() -> None:
    add, copy = by_label(rows())
    assert (add.step, add.label, add.count, add.kernels) == (None, "add", 2, ("add",))
    assert (add.flops, add.traffic) == (8000, 2000)
    assert add.seconds == pytest.approx(6e-6)
    assert add.roofline_share == pytest.approx(4 / 6)
    assert copy.count == 1


def test_what_takes_no_time_has_no_rate() -> None:
    row = step_times([timed(0, 0, 0)], ROOFLINE)[0]
    assert (row.flop_rate, row.byte_rate, row.roofline_share) == (0, 0, 0)
