"""Memory that native code works in, from the operating system and returned to it."""

from __future__ import annotations

import ctypes
import mmap
import sys

_PAGE = mmap.PAGESIZE
_HUGE = 4 << 20


class Memory:
    """At least `size` zeroed bytes at `address`, aligned to a page, private to this process.

    They are freed with the object.
    MemoryError where the system has not that much.
    """

    __slots__ = ("_map", "_view", "address", "size")

    def __init__(self, size: int) -> None:
        self.size = max(size + _PAGE - 1, 1) // _PAGE * _PAGE or _PAGE
        try:
            self._map = _anonymous(self.size)
        except (OSError, OverflowError, ValueError) as error:
            raise MemoryError(f"{size} bytes of working memory cannot be had: {error}") from error
        if size >= _HUGE and hasattr(mmap, "MADV_HUGEPAGE"):
            self._map.madvise(mmap.MADV_HUGEPAGE)
        self._view = ctypes.c_char.from_buffer(self._map)
        self.address = ctypes.addressof(self._view)


def _anonymous(size: int) -> mmap.mmap:
    if sys.platform == "win32":
        return mmap.mmap(-1, size)
    # Python's default is a shared mapping, which a forked child would write into.
    return mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
