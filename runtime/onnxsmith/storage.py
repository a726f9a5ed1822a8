"""Where a compiled model's files are: a folder, or a zip file that is not compressed."""

from __future__ import annotations

import mmap
import os
from typing import IO, Protocol

from onnxsmith import zip_directory
from onnxsmith.memory import HUGE_PAGE, ask_for_huge_pages


class Storage(Protocol):
    """Files by name, "/" between folders. Every method raises OSError for a file that cannot be had."""

    location: str
    """The folder or zip file, for messages."""

    def name(self, file: str) -> str:
        """What messages call a file."""

    def read(self, file: str) -> bytes:
        """A file's content."""

    def map(self, file: str) -> memoryview:
        """A file's content, mapped read-only and shared with all who map it."""


class Folder:
    """The files below a folder."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.location = os.fspath(path)

    def name(self, file: str) -> str:
        return os.path.join(self.location, file)

    def read(self, file: str) -> bytes:
        with open(self.name(file), "rb") as opened:
            return opened.read()

    def map(self, file: str) -> memoryview:
        with open(self.name(file), "rb") as opened:
            return _mapped(opened, 0, os.fstat(opened.fileno()).st_size)


class ZipFolder:
    """The files in `folder` of a zip file. They are read as they lie there: their digests say what is right."""

    def __init__(self, path: str | os.PathLike[str], folder: str) -> None:
        self.location = os.fspath(path)
        self._folder = folder

    def name(self, file: str) -> str:
        return os.path.join(self.location, self._folder, file)

    def read(self, file: str) -> bytes:
        with open(self.location, "rb") as opened:
            start, size = self._place(opened, file)
            opened.seek(start)
            return opened.read(size)

    def map(self, file: str) -> memoryview:
        with open(self.location, "rb") as opened:
            return _mapped(opened, *self._place(opened, file))

    def _place(self, opened: IO[bytes], file: str) -> tuple[int, int]:
        """(offset in the zip file, size in bytes) of a file."""
        try:
            found = zip_directory.members(opened)[f"{self._folder}/{file}"]
            if found.method != zip_directory.STORED:
                raise OSError(f"it is compressed in {self.location}: store it")
            return zip_directory.data_start(opened, found), found.size
        except KeyError:
            raise FileNotFoundError(2, "No such file in the zip file") from None
        except ValueError as problem:
            raise OSError(f"the zip file is damaged: {problem}") from problem


def _mapped(opened: IO[bytes], start: int, size: int) -> memoryview:
    if not size:
        return memoryview(b"")
    before = start % mmap.ALLOCATIONGRANULARITY
    try:
        mapping = mmap.mmap(opened.fileno(), size + before, access=mmap.ACCESS_READ, offset=start - before)
    except ValueError as problem:  # longer than the file
        raise OSError(f"it cannot be mapped: {problem}") from problem
    if size >= HUGE_PAGE:
        ask_for_huge_pages(mapping)
    return memoryview(mapping)[before:]
