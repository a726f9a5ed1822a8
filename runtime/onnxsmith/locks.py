"""Locks between processes, on files and folders. The system frees them when their holder dies.

Where it has none (Windows, some network file systems, a full disk on which a lock's file would have to be made),
everyone is a holder: work may then be done twice, and each result is as good as the other.
"""

from __future__ import annotations

import os
from pathlib import Path

try:
    import fcntl
except ImportError:  # not on Windows
    fcntl = None  # type: ignore[assignment]


class Claim:
    """The right of one process, and of one thread in it, to make something. `path` is the lock's file."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._descriptor: int | None = None

    def take(self, *, wait: bool) -> bool:
        """Whether this is now a holder; False, unless it is to `wait`, where another is."""
        if fcntl is None:
            return True
        try:
            self._descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            fcntl.flock(self._descriptor, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            self.release()
            return False
        except OSError:
            pass
        return True

    def release(self) -> None:
        """Let another have it."""
        close(self._descriptor)
        self._descriptor = None


def lock_folder(folder: str | os.PathLike[str]) -> int | None:
    """The descriptor that holds a folder's lock, alone, until it is closed; None where there are no locks.

    BlockingIOError where another holds it, FileNotFoundError where the folder is gone.
    """
    return _locked(folder, fcntl.LOCK_EX | fcntl.LOCK_NB) if fcntl is not None else None


def share_folder(folder: str | os.PathLike[str]) -> int | None:
    """As `lock_folder`, together with others that share it; waits for one that does not."""
    return _locked(folder, fcntl.LOCK_SH) if fcntl is not None else None


def close(descriptor: int | None) -> None:
    """Free the lock that a descriptor holds, if there is one."""
    if descriptor is not None:
        os.close(descriptor)


def _locked(folder: str | os.PathLike[str], operation: int) -> int | None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, operation)
        os.stat(folder)
    except (BlockingIOError, FileNotFoundError):
        os.close(descriptor)
        raise
    except OSError:
        os.close(descriptor)
        return None
    return descriptor
