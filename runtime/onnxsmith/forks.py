"""What a fork must not cut in two: a child has no thread that could finish it."""

from __future__ import annotations

import os
from _thread import RLock  # threading takes long to import

UNDIVIDED = RLock()
"""Held, by a thread that imports modules or starts threads or processes, until that is done: forks wait for it."""


class _Holder:
    """Holds the lock over a fork. Hooks that are set while a fork waits hear of its end, but not of its beginning."""

    def __init__(self) -> None:
        self._holding = False

    def begin(self) -> None:
        UNDIVIDED.acquire()
        self._holding = True

    def end(self) -> None:
        if self._holding:
            self._holding = False
            UNDIVIDED.release()


def _hold_over_forks() -> None:
    holder = _Holder()
    os.register_at_fork(before=holder.begin, after_in_parent=holder.end, after_in_child=holder.end)


if hasattr(os, "register_at_fork"):
    _hold_over_forks()
