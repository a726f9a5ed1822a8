"""Profiles of a session: a chrome trace (chrome://tracing, ui.perfetto.dev) in onnxruntime's layout."""

from __future__ import annotations

import datetime
import json
import os
import threading
import time
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from onnxsmith.segment_runner import TimedRun

_MAX_EVENTS = 1_000_000


class Profile:
    """Collects events from any thread until `write`. At most a million events are kept, the first ones."""

    def __init__(self, prefix: str, provider: str) -> None:
        now = datetime.datetime.now()
        self.path = f"{prefix}_{now:%Y-%m-%d_%H-%M-%S}_{now.microsecond // 1000}.json"
        self._provider = provider
        self._start = time.perf_counter_ns()
        self._events: list[dict[str, Any]] = []

    def add_session(self, name: str, begin: int, end: int | None = None) -> None:
        """An event of the whole session, such as "model_run"; time.perf_counter_ns, `end` now by default."""
        self._add("Session", name, begin, time.perf_counter_ns() if end is None else end, {})

    def add_run(self, run: TimedRun, begin: int) -> None:
        """One event for each step of a run that began at `begin`, and one for the run."""
        steps = [step for segment in run.program.segments for step in segment.steps]
        for taken in run.times:
            step = steps[taken.step]
            args = {
                "op_name": step.label,
                "provider": self._provider,
                "node_index": str(taken.step),
                "nodes": list(step.nodes),
                "kernel": run.program.kernels[step.kernel],
                "flops": run.slots[step.flops],
                "bytes": run.slots[step.traffic],
            }
            name = step.nodes[0] if step.nodes else step.label
            self._add("Node", f"{name}_kernel_time", taken.begin, taken.end, args)
        self.add_session("model_run", begin)

    def write(self, path: str | None = None) -> str:
        """Write the events that were collected to `path`, by default one with the time in it; the file's path."""
        path = self.path if path is None else path
        with open(path, "w", encoding="utf-8") as file:
            file.write("[\n")
            file.write(",\n".join(json.dumps(event) for event in self._events))
            file.write("\n]\n")
        return path

    def _add(self, category: str, name: str, begin: int, end: int, args: dict[str, Any]) -> None:
        if len(self._events) >= _MAX_EVENTS:
            return
        self._events.append(
            {
                "cat": category,
                "pid": os.getpid(),
                "tid": threading.get_native_id(),
                "dur": (end - begin) / 1000,
                "ts": (begin - self._start) / 1000,
                "ph": "X",
                "name": name,
                "args": args,
            }
        )
