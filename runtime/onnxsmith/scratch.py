"""Folders for files in the making. The process that makes one holds a lock on it, so that others see when it died."""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from onnxsmith import locks

_ATTEMPTS = 10
# Where a folder cannot be locked, its age tells whether it was abandoned.
_ABANDONED_SECONDS = 24 * 3600.0


class Scratch:
    """A new folder in `root`, at `path`, that this user alone may enter. OSError where it cannot be made."""

    def __init__(self, root: Path, prefix: str = "") -> None:
        for _ in range(_ATTEMPTS):
            self.path = Path(tempfile.mkdtemp(prefix=prefix, dir=root))
            try:
                self._lock = locks.lock_folder(self.path)
            except (BlockingIOError, FileNotFoundError):  # taken for abandoned before it was locked
                continue
            return
        raise OSError(f"folders in {root} vanish as soon as they are made")

    def remove(self) -> None:
        """Remove the folder with all that is in it, where it is still there."""
        shutil.rmtree(self.path, ignore_errors=True)
        locks.close(self._lock)
        self._lock = None


@contextlib.contextmanager
def temporary_folder(root: Path) -> Iterator[Path]:
    """A new folder in `root`, gone afterwards with what was not moved out of it."""
    folder = Scratch(root)
    try:
        yield folder.path
    finally:
        folder.remove()


def memory_file() -> IO[bytes]:
    """A nameless file, in memory where the system has such: it works where no folder can be written to."""
    if hasattr(os, "memfd_create"):
        return os.fdopen(os.memfd_create("onnxsmith", os.MFD_CLOEXEC), "w+b")
    return tempfile.TemporaryFile()


def remove_abandoned(root: Path, prefix: str = "") -> None:
    """Remove the folders in `root` of processes that died before they could."""
    with contextlib.suppress(OSError):
        for entry in list(os.scandir(root)):
            if entry.name.startswith(prefix) and entry.is_dir(follow_symlinks=False):
                with contextlib.suppress(OSError):
                    _remove_if_abandoned(entry.path)


def _remove_if_abandoned(folder: str) -> None:
    lock = locks.lock_folder(folder)
    try:
        if lock is not None or time.time() - os.stat(folder).st_mtime > _ABANDONED_SECONDS:
            shutil.rmtree(folder, ignore_errors=True)
    finally:
        locks.close(lock)
