"""Memory that native code works in, from the operating system and returned to it."""

from __future__ import annotations

import contextlib
import ctypes
import mmap
import sys

HUGE_PAGE = 2 << 20
"""Bytes that one entry of a translation cache covers at most on x86-64, and on 64-bit ARM with pages of 4 KiB.

With small pages, weights of a model outgrow these caches; a walk through the page tables, above all a virtual
machine's, then costs as much as several cache misses.
"""
_PAGE = mmap.PAGESIZE


def ask_for_huge_pages(mapping: mmap.mmap) -> None:
    """Let the system back `mapping` with huge pages, where it has them for those who ask."""
    if hasattr(mmap, "MADV_HUGEPAGE"):
        with contextlib.suppress(OSError):  # a system built without them
            mapping.madvise(mmap.MADV_HUGEPAGE)


class Memory:
    """At least `size` zeroed bytes at `address`, aligned to a page, private to this process.

    Of HUGE_PAGE bytes or more they are whole huge pages. They are freed with the object.
    MemoryError where the system has not that much.
    """

    __slots__ = ("_map", "_view", "address", "size")

    def __init__(self, size: int) -> None:
        is_large = size >= HUGE_PAGE
        unit = HUGE_PAGE if is_large else _PAGE
        self.size = max(1, -(-size // unit)) * unit
        spare = unit if is_large else 0
        try:
            self._map = _anonymous(self.size + spare)
        except (OSError, OverflowError, ValueError) as error:
            raise MemoryError(f"{size} bytes of working memory cannot be had: {error}") from error
        if is_large:
            ask_for_huge_pages(self._map)
        self._view = ctypes.c_char.from_buffer(self._map)
        start = ctypes.addressof(self._view)
        self.address = start + -start % unit


def _anonymous(size: int) -> mmap.mmap:
    if sys.platform == "win32":
        return mmap.mmap(-1, size)
    # Python's default is a shared mapping, which a forked child would write into.
    return mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
