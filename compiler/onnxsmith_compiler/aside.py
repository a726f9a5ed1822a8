"""Programs that no cache keeps: in temporary folders, where the session that asked for one finds it."""

from __future__ import annotations

import contextlib
import errno
import os
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

from onnxsmith import scratch
from onnxsmith_compiler.errors import NoRoom

_PREFIX = "onnxsmith-program-"
# A file system in memory, for where no disk has room.
_IN_MEMORY = "/dev/shm"
_REFUSALS = frozenset(
    {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES, errno.EPERM, errno.ENOENT, errno.ENOTDIR}
)


class Asides:
    """The folders of one compile process. A session removes its own once the program is open."""

    def __init__(self) -> None:
        self._folders: list[scratch.Scratch] = []

    def write(self, write: Callable[[Path], None]) -> Path:
        """The folder that `write` filled with a program. NoRoom where no disk takes it."""
        self._forget_removed()
        refusals = []
        for root in _roots():
            scratch.remove_abandoned(root, _PREFIX)
            try:
                return self._write_below(root, write)
            except OSError as refusal:
                if refusal.errno not in _REFUSALS:
                    raise
                refusals.append(f"{root}: {refusal.strerror}")
        raise NoRoom(
            "There is no room for the compiled model, in no cache and in no temporary folder "
            f"({'; '.join(refusals) or 'there is none'}). Make room, or set TMPDIR or ONNXSMITH_CACHE_DIR to a "
            "folder on a disk that has some."
        )

    def clear(self) -> None:
        """Remove them all."""
        for folder in self._folders:
            folder.remove()
        self._folders.clear()

    def _write_below(self, root: Path, write: Callable[[Path], None]) -> Path:
        folder = scratch.Scratch(root, _PREFIX)
        try:
            program = folder.path / "program"
            program.mkdir()
            write(program)
        except BaseException:
            folder.remove()
            raise
        self._folders.append(folder)
        return program

    def _forget_removed(self) -> None:
        for folder in self._folders.copy():
            if not folder.path.exists():
                folder.remove()
                self._folders.remove(folder)


def _roots() -> Iterator[Path]:
    with contextlib.suppress(FileNotFoundError):  # none that can be written to
        yield Path(tempfile.gettempdir())
    if os.path.isdir(_IN_MEMORY):
        yield Path(_IN_MEMORY)
