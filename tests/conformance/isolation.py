"""Runs cases in a process of their own, so that compiled code that crashes or hangs is a failure of one case."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

from tests.conformance.cases import official_cases
from tests.conformance.runner import CaseRunner, Outcome

_SECONDS_WITHOUT_NEWS = 300.0


class IsolatedRunner:
    """Outcomes of cases, run by a child process that is replaced when it dies. Use as a context manager."""

    def __init__(self, cache_dir: Path, workers: int) -> None:
        self._command = [sys.executable, "-m", __name__, str(cache_dir), str(workers)]
        self._child: subprocess.Popen[str] | None = None

    def __enter__(self) -> IsolatedRunner:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._end()

    def run(self, names: Sequence[str]) -> Iterator[Outcome]:
        """An outcome a case, in any order."""
        waiting = dict.fromkeys(names)
        while waiting:
            begun = None
            for message in self._ask(list(waiting)):
                begun = message.get("begin", begun)
                if "name" in message:
                    waiting.pop(message["name"])
                    yield Outcome(message["name"], message["reason"])
                    begun = None
            if waiting:
                blamed = begun or next(iter(waiting))
                waiting.pop(blamed)
                yield Outcome(blamed, f"the process that ran it {self._end()}")

    def _ask(self, names: Sequence[str]) -> Iterator[dict[str, Any]]:
        """Messages of the child about these cases, until it is done or dead."""
        child = self._start()
        assert child.stdin is not None
        assert child.stdout is not None
        try:
            child.stdin.write(json.dumps(names) + "\n")
            child.stdin.flush()
        except BrokenPipeError:
            return
        while True:
            alarm = threading.Timer(_SECONDS_WITHOUT_NEWS, child.kill)
            alarm.daemon = True
            alarm.start()
            line = child.stdout.readline()
            alarm.cancel()
            if not line.endswith("\n"):
                return
            message = json.loads(line)
            if message == "done":
                return
            yield message

    def _start(self) -> subprocess.Popen[str]:
        if self._child is None:
            environment = os.environ | {"PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
            self._child = subprocess.Popen(
                self._command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
            )
        return self._child

    def _end(self) -> str:
        """End the child, if there is one; how it ended."""
        if self._child is None:
            return "never started"
        child, self._child = self._child, None
        assert child.stdin is not None
        assert child.stdout is not None
        child.stdin.close()
        try:
            code = child.wait(5)
        except subprocess.TimeoutExpired:
            child.kill()
            code = child.wait()
        child.stdout.close()
        return f"died of {signal.Signals(-code).name}" if code < 0 else f"ended with status {code}"


def _main() -> None:
    """The child: lists of names on standard input, outcomes on standard output, as lines of JSON."""
    cache_dir, workers = Path(sys.argv[1]), int(sys.argv[2])
    out = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # nobody else writes between the messages

    def tell(message: object) -> None:
        out.write(json.dumps(message) + "\n")
        out.flush()

    cases = official_cases()
    with CaseRunner(cache_dir, workers) as runner:
        for line in sys.stdin:
            chosen = [cases[name] for name in json.loads(line)]
            for outcome in runner.run(chosen, lambda name: tell({"begin": name})):
                tell({"name": outcome.name, "reason": outcome.reason})
            tell("done")


if __name__ == "__main__":
    _main()
