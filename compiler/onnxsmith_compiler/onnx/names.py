"""Names out of a model, and names that are unique within it."""

from __future__ import annotations

from collections.abc import Iterable

from onnxsmith_compiler.errors import MalformedModel

_MAX_LENGTH = 200  # nested calls make long names; many of them must not fill the memory


def text(value: str | bytes) -> str:
    """A string field of a message. Protobuf gives bytes where it is no UTF-8: that raises MalformedModel."""
    if isinstance(value, bytes):
        raise MalformedModel(f"a name in the model is not UTF-8: {value[:40]!r}")
    return value


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
