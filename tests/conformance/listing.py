"""The list of cases that do not pass yet: `name: reason`, one a line, in the order of the suite."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

PATH = Path(__file__).with_name("not_passed.txt")


def read() -> dict[str, str]:
    """Reasons by name."""
    lines = PATH.read_text(encoding="utf-8").splitlines() if PATH.exists() else []
    return dict(line.split(": ", 1) for line in lines)


def write(reasons: Mapping[str, str]) -> None:
    text = "".join(f"{name}: {reason}\n" for name, reason in reasons.items())
    PATH.write_text(text, encoding="utf-8")
