"""Folders for files in the making. The process that makes one holds a lock on it, so that others see when it died."""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

try:
    import fcntl
except ImportError:  # not on Windows
    fcntl = None  # type: ignore[assignment]

_ATTEMPTS = 10
# Where a folder cannot be locked (some network file systems), its age tells whether it was abandoned.
_ABANDONED_SECONDS = 24 * 3600.0


@contextlib.contextmanager
def temporary_folder(root: Path, prefix: str = "") -> Iterator[Path]:
    """A new folder in `root` that this user alone may enter; gone afterwards, with what was not moved out of it."""
    folder, lock = _new_folder(root, prefix)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        _close(lock)


def remove_abandoned(root: Path, prefix: str = "") -> None:
    """Remove the folders in `root` of processes that died before they could."""
    with contextlib.suppress(OSError):
        for entry in list(os.scandir(root)):
            if entry.name.startswith(prefix) and entry.is_dir(follow_symlinks=False):
                with contextlib.suppress(OSError):
                    _remove_if_abandoned(entry.path)


def _new_folder(root: Path, prefix: str) -> tuple[Path, int | None]:
    """(a new folder, the descriptor that holds its lock)."""
    for _ in range(_ATTEMPTS):
        folder = tempfile.mkdtemp(prefix=prefix, dir=root)
        try:
            lock = _lock(folder)
        except (BlockingIOError, FileNotFoundError):  # taken for abandoned before it was locked
            continue
        return Path(folder), lock
    raise OSError(f"folders in {root} vanish as soon as they are made")


def _lock(folder: str) -> int | None:
    """The descriptor that holds the folder's lock; None where folders cannot be locked.

    BlockingIOError where another holds it, FileNotFoundError where the folder is gone.
    """
    if fcntl is None:
        return None
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        os.stat(folder)
    except (BlockingIOError, FileNotFoundError):
        os.close(descriptor)
        raise
    except OSError:
        os.close(descriptor)
        return None
    return descriptor


def _remove_if_abandoned(folder: str) -> None:
    lock = _lock(folder)
    try:
        if lock is not None or time.time() - os.stat(folder).st_mtime > _ABANDONED_SECONDS:
            shutil.rmtree(folder, ignore_errors=True)
    finally:
        _close(lock)


def _close(lock: int | None) -> None:
    if lock is not None:
        os.close(lock)
