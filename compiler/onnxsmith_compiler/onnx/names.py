"""Names that are unique within a model."""

from __future__ import annotations

from collections.abc import Iterable

_MAX_LENGTH = 200  # nested calls make long names; many of them must not fill the memory


class NamePool:
    """Hands out each name once."""

    def __init__(self, taken: Iterable[str] = ()) -> None:
        self._taken = set(taken)
        self._next: dict[str, int] = {}

    def fresh(self, wanted: str) -> str:
        """`wanted`, cut where it is very long, with a number behind it if it is taken already."""
        base = wanted[:_MAX_LENGTH]
        name = base
        while name in self._taken:
            number = self._next.get(base, 0) + 1
            self._next[base] = number
            name = f"{base}_{number}"
        self._taken.add(name)
        return name
