"""Runs the official suite and writes the list of cases that do not pass.

python -m tests.conformance.bless              all cases
python -m tests.conformance.bless 'test_cast'  those whose names contain a text; other lines are kept
python -m tests.conformance.bless --show TEXT  prints the outcomes and writes nothing
"""

from __future__ import annotations

import argparse
import os
import tempfile
from collections import Counter
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tests.conformance import listing
from tests.conformance.cases import official_cases
from tests.conformance.isolation import IsolatedRunner
from tests.conformance.runner import Outcome

_CHUNK = 80


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.conformance.bless", description=__doc__)
    parser.add_argument("texts", nargs="*", help="run the cases whose names contain one of these")
    parser.add_argument("--show", action="store_true", help="print outcomes, write nothing")
    parser.add_argument("--jobs", type=int, default=2)
    chosen = parser.parse_args(arguments)
    names = [name for name in official_cases() if not chosen.texts or any(text in name for text in chosen.texts)]
    with tempfile.TemporaryDirectory() as folder:
        cache = Path(os.environ.get("ONNXSMITH_CACHE_DIR", folder))
        outcomes = {outcome.name: outcome for outcome in _run(names, cache, chosen.jobs)}
    if chosen.show:
        for name in names:
            print(f"{name}: {outcomes[name].reason or 'passed'}")
    else:
        before = listing.read()
        reasons = {name: before.get(name, "") for name in official_cases()}
        reasons |= {name: outcomes[name].reason for name in names}
        listing.write({name: reason for name, reason in reasons.items() if reason})
    _summarize(outcomes.values())


def _run(names: Sequence[str], cache: Path, jobs: int) -> Iterable[Outcome]:
    """Outcomes of all, `jobs` processes at a time taking one chunk after the other."""
    chunks = [names[start : start + _CHUNK] for start in range(0, len(names), _CHUNK)]
    runners = [IsolatedRunner(cache, workers=1) for _ in range(min(jobs, len(chunks)))]
    free = list(runners)

    def work(chunk: Sequence[str]) -> list[Outcome]:
        runner = free.pop()
        try:
            return list(runner.run(chunk))
        finally:
            free.append(runner)

    try:
        with ThreadPoolExecutor(len(runners) or 1) as threads:
            for outcomes in threads.map(work, chunks):
                yield from outcomes
    finally:
        for runner in runners:
            runner.__exit__(None, None, None)


def _summarize(outcomes: Iterable[Outcome]) -> None:
    cases = official_cases()
    total: Counter[str] = Counter()
    passed: Counter[str] = Counter()
    failing: Counter[str] = Counter()
    for outcome in outcomes:
        case = cases[outcome.name]
        total[case.kind] += 1
        passed[case.kind] += outcome.passed
        if not outcome.passed:
            failing[case.operators[0] if len(case.operators) == 1 else "several operators"] += 1
    for kind, count in total.items():
        print(f"{kind}: {passed[kind]} of {count} pass")
    print(f"all: {sum(passed.values())} of {sum(total.values())} pass")
    print("not passed, by operator:", ", ".join(f"{name} {count}" for name, count in failing.most_common()))


if __name__ == "__main__":
    main()
