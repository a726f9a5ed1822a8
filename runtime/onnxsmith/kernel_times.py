"""What was measured of a model's kernels: times of several runs as figures of each step, or of steps together."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from onnxsmith.roofline import Roofline
from onnxsmith.segment_runner import TimedRun


@dataclass(frozen=True)
class KernelTime:
    """Step number `step`, or (None) `count` steps together: seconds of one run, operations and bytes.

    `least` are the seconds that the roofline allows, `kernels` the names in the library, `nodes` those of ONNX.
    """

    step: int | None
    label: str
    count: int
    seconds: float
    flops: int
    traffic: int
    least: float
    kernels: tuple[str, ...]
    nodes: tuple[str, ...]

    @property
    def flop_rate(self) -> float:
        """Operations a second."""
        return _ratio(self.flops, self.seconds)

    @property
    def byte_rate(self) -> float:
        """Bytes a second."""
        return _ratio(self.traffic, self.seconds)

    @property
    def intensity(self) -> float:
        """Operations a byte."""
        return _ratio(self.flops, self.traffic)

    @property
    def roofline_share(self) -> float:
        """The part of what the machine can do at this intensity, 1 for all of it."""
        return _ratio(self.least, self.seconds)


def step_times(runs: Sequence[TimedRun], roofline: Roofline) -> list[KernelTime]:
    """The steps in order, each with its median time. The runs are of one program at the same sizes."""
    first = runs[0]
    steps = [step for segment in first.program.segments for step in segment.steps]
    rows = []
    for number, step in enumerate(steps):
        samples = [run.times[number].end - run.times[number].begin for run in runs]
        flops, traffic = first.slots[step.flops], first.slots[step.traffic]
        rows.append(
            KernelTime(
                step=number,
                label=step.label,
                count=1,
                seconds=statistics.median(samples) / 1e9,
                flops=flops,
                traffic=traffic,
                least=roofline.seconds(flops, traffic),
                kernels=(first.program.kernels[step.kernel],),
                nodes=step.nodes,
            )
        )
    return rows


def by_label(steps: Iterable[KernelTime]) -> list[KernelTime]:
    """The steps of each label (conv, matmul, ...) together."""
    groups: dict[str, list[KernelTime]] = {}
    for step in steps:
        groups.setdefault(step.label, []).append(step)
    return [together(label, group) for label, group in groups.items()]


def together(label: str, group: Sequence[KernelTime]) -> KernelTime:
    """Several rows as one."""
    return KernelTime(
        step=None,
        label=label,
        count=sum(row.count for row in group),
        seconds=sum(row.seconds for row in group),
        flops=sum(row.flops for row in group),
        traffic=sum(row.traffic for row in group),
        least=sum(row.least for row in group),
        kernels=tuple(dict.fromkeys(kernel for row in group for kernel in row.kernels)),
        nodes=tuple(dict.fromkeys(node for row in group for node in row.nodes)),
    )


def _ratio(amount: float, unit: float) -> float:
    return amount / unit if unit else 0.0
