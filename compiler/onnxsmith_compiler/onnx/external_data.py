"""The only place that opens files named by a model.

A model is untrusted: it may name any path. Data is read from regular files below the model's folder alone,
reached without following a link: each folder on the way is opened relative to the one before, so nothing can
be swapped in between, the checks look at the open file, and that same open file is mapped. Files with further
hard links are refused, since such a link may stand for any file of the same disk.

A mapped file that somebody truncates while it is in use raises SIGBUS: compile in a process that may die.
"""

from __future__ import annotations

import errno
import mmap
import os
import stat
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from onnxsmith_compiler.errors import ExternalDataError, quoted
from onnxsmith_compiler.onnx.model import ExternalFile

_KEYS = frozenset(("location", "offset", "length", "checksum", "basepath"))
_MAX_LOCATION = 4096
_MAX_DIGITS = 19  # an int64
_MAX_MAPPINGS = 256  # each holds a file descriptor; later files are read into memory
_NO_LINKS = getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_CLOEXEC", 0)
_FOLDER_FLAGS = os.O_RDONLY | getattr(os, "O_DIRECTORY", 0)
# O_NONBLOCK: opening a named pipe must not wait for a writer.
_FILE_FLAGS = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
_LINK_ERRORS = (errno.ELOOP, errno.EMLINK, errno.ENOTDIR)


@dataclass(frozen=True)
class Reference:
    """Where a tensor says its bytes are. `length` is None where it does not say."""

    location: str
    offset: int
    length: int | None


@dataclass(frozen=True, eq=False)
class _OpenFile:
    data: npt.NDArray[np.uint8]
    stamp: ExternalFile


@dataclass(eq=False)
class ExternalData:
    """Reads external data below `folder`; None refuses all of it."""

    folder: str | None
    _files: dict[tuple[str, ...], _OpenFile] = field(default_factory=dict)

    @property
    def files(self) -> tuple[ExternalFile, ...]:
        """The files that were read, in the order of their first use."""
        return tuple(file.stamp for file in self._files.values())

    def read(self, entries: Mapping[str, str], nbytes: int, owner: str) -> npt.NDArray[np.uint8]:
        """The `nbytes` bytes that `entries` refers to, as a read-only view of the file.

        `owner` names the tensor in errors. Raises ExternalDataError for a path, offset or length that the
        rules above or the size of the file or of the tensor forbid.
        """
        reference = parse_reference(entries, owner)
        if reference.length is not None and reference.length != nbytes:
            raise ExternalDataError(
                f"{owner}: external data has {reference.length} bytes by its 'length', the tensor {nbytes}"
            )
        file = self._open(_components(reference.location, owner), owner)
        size = file.stamp.size
        if reference.offset + nbytes > size:
            raise ExternalDataError(
                f"{owner}: {nbytes} bytes at offset {reference.offset} are not in external data file "
                f"{quoted(reference.location)}, which has {size} bytes"
            )
        return file.data[reference.offset : reference.offset + nbytes]

    def _open(self, parts: tuple[str, ...], owner: str) -> _OpenFile:
        if parts in self._files:
            return self._files[parts]
        location = "/".join(parts)
        if self.folder is None:
            raise ExternalDataError(
                f"{owner} is in external data file {quoted(location)}: "
                "a model given as bytes or as a ModelProto needs base_dir, the folder of that file"
            )
        try:
            file = _open_below(self.folder, parts, owner, mapped=len(self._files) < _MAX_MAPPINGS)
        except FileNotFoundError:
            raise ExternalDataError(
                f"{owner}: external data file {quoted(location)} does not exist in {quoted(self.folder)}"
            ) from None
        except OSError as error:
            reason = "a link or no folder is on its way" if error.errno in _LINK_ERRORS else error.strerror
            raise ExternalDataError(
                f"{owner}: external data file {quoted(location)} cannot be read: {reason}; "
                "it must be a regular file below the model's folder"
            ) from None
        self._files[parts] = file
        return file


def parse_reference(entries: Mapping[str, str], owner: str) -> Reference:
    """Checks a tensor's `external_data` entries. Raises ExternalDataError."""
    unknown = set(entries) - _KEYS
    if unknown:
        raise ExternalDataError(f"{owner}: unknown external data key {quoted(min(unknown))}")
    if not entries.get("location"):
        raise ExternalDataError(f"{owner}: external data without a location")
    offset = _natural(entries, "offset", owner)
    return Reference(entries["location"], offset or 0, _natural(entries, "length", owner))


def _natural(entries: Mapping[str, str], key: str, owner: str) -> int | None:
    text = entries.get(key)
    if text is None:
        return None
    if not (text.isascii() and text.isdigit() and len(text) <= _MAX_DIGITS):
        raise ExternalDataError(f"{owner}: external data {key} {quoted(text)} is not a size in bytes")
    return int(text)


def _components(location: str, owner: str) -> tuple[str, ...]:
    """The location's parts below the model's folder."""
    parts = tuple(part for part in location.split("/") if part != ".")
    unsafe = (
        len(location) > _MAX_LOCATION
        or not parts
        or any(part in ("", "..") or "\\" in part or "\0" in part for part in parts)
        or (os.name == "nt" and ":" in location)
    )
    if unsafe:
        raise ExternalDataError(
            f"{owner}: external data location {quoted(location)} is not a plain path below the model's folder"
        )
    return parts


def _open_below(folder: str, parts: tuple[str, ...], owner: str, mapped: bool) -> _OpenFile:
    descriptor = _walk(folder, parts) if os.open in os.supports_dir_fd else _open_whole(folder, parts)
    try:
        status = os.fstat(descriptor)
        location = "/".join(parts)
        if not stat.S_ISREG(status.st_mode):
            raise ExternalDataError(f"{owner}: external data {quoted(location)} is not a regular file")
        if status.st_nlink > 1:
            raise ExternalDataError(
                f"{owner}: external data file {quoted(location)} has {status.st_nlink} hard links; "
                "copy it to a file of its own"
            )
        path = os.path.join(folder, *parts)
        stamp = ExternalFile(path, status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns)
        return _OpenFile(_contents(descriptor, status.st_size, mapped), stamp)
    finally:
        os.close(descriptor)


def _walk(folder: str, parts: tuple[str, ...]) -> int:
    """A descriptor of the last part, every part opened relative to the one before, no link followed."""
    descriptor = os.open(folder, _FOLDER_FLAGS)
    for index, part in enumerate(parts):
        flags = _FILE_FLAGS if index == len(parts) - 1 else _FOLDER_FLAGS
        try:
            following = os.open(part, flags | _NO_LINKS, dir_fd=descriptor)
        finally:
            os.close(descriptor)
        descriptor = following
    return descriptor


def _open_whole(folder: str, parts: tuple[str, ...]) -> int:
    """`_walk` for systems that cannot open relative to a folder: the path must resolve to itself."""
    root = os.path.realpath(folder)
    path = os.path.join(root, *parts)
    if os.path.realpath(path) != path:
        raise OSError(errno.ELOOP, "a link is on its way")
    descriptor = os.open(path, _FILE_FLAGS | _NO_LINKS)
    if not os.path.samestat(os.fstat(descriptor), os.lstat(path)):
        os.close(descriptor)
        raise OSError(errno.ELOOP, "it was replaced while it was opened")
    return descriptor


def _contents(descriptor: int, size: int, mapped: bool) -> npt.NDArray[np.uint8]:
    """The first `size` bytes of an open file, read-only."""
    if size == 0:
        return np.empty(0, np.uint8)
    if mapped:
        try:
            return np.frombuffer(mmap.mmap(descriptor, size, access=mmap.ACCESS_READ), np.uint8)
        except ValueError:  # mmap's word for a file that is shorter than `size` by now
            raise OSError(errno.EIO, "it shrank while it was opened") from None
    with open(descriptor, "rb", closefd=False) as file:
        data = np.fromfile(file, np.uint8, size)
    if data.size != size:
        raise OSError(errno.EIO, "it shrank while it was read")
    data.flags.writeable = False
    return data
