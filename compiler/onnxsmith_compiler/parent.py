"""The end of a process whose parent is gone."""

from __future__ import annotations

import os
import select
import threading
from collections.abc import Callable


def leave_with_parent(descriptor: int, farewell: Callable[[], None] = lambda: None) -> None:
    """End this process once nobody can write to the pipe `descriptor` any more, whatever it is at, after `farewell`.

    A parent that is killed cannot end its children, and who compiles looks at its input only in between. The
    cache needs no farewell: what is not finished never appears in it.
    """
    if not hasattr(select, "poll"):  # not on Windows
        return
    hangup = select.poll()
    hangup.register(descriptor, 0)  # no event but the hang-up, which is always reported

    def watch() -> None:
        hangup.poll()
        farewell()
        os._exit(0)

    threading.Thread(target=watch, name="parent", daemon=True).start()
