"""The cache on disk: kernels and programs by the digest of what they were made from.

    <directory>/kernels/ab/abcd...     one compiled kernel
    <directory>/tilings/ab/abcd...     how one step is cut fastest: see onnxsmith_compiler.tuning
    <directory>/programs/ab/abcd.../   one compiled model, as `artifact.write` leaves it, and a seal
    <directory>/sources/ab/abcd...     what is known of a model file: see onnxsmith.source
    <directory>/locks, <directory>/tmp

An entry is code. So the directory belongs to the user and is writable by nobody else, or it is not used.
Entries appear by rename, whole and never changed afterwards, but until they have reached the disk a crash of the
system may still damage them. So a single file begins with the SHA-256 of its contents, which is checked on every read.
A program is used at once, while its files go to the disk, and has a seal from then on; one without it is read in full
and checked before it is used. When the cache outgrows its bound, what was used longest ago goes first; modification
times record the last use. A disk that refuses to be written to (full, or mounted for reading) makes the cache no worse
than that: what is there is used.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import stat
from collections.abc import Callable, Container, Iterator
from dataclasses import dataclass
from pathlib import Path

from onnxsmith import locks
from onnxsmith.options import DEFAULT_CACHE_BYTES

_DIGEST_BYTES = 32
_SEAL = "sealed"
_WRITABLE_BY_OTHERS = stat.S_IWGRP | stat.S_IWOTH


@dataclass(frozen=True)
class Entry:
    """One entry: the store it is in, its key, its size in bytes and when it was last used (seconds)."""

    store: str
    key: str
    path: Path
    size: int
    used: float


class Store:
    """Byte strings by key. Keys are hexadecimal digests. `refused` hears what the disk answers to a failed `put`."""

    def __init__(self, root: Path, name: str, refused: Callable[[OSError], None]) -> None:
        self.name = name
        self._refused = refused
        self._root = root
        self._directory = root / name

    def get(self, key: str) -> bytes | None:
        """What was put under `key`; None where nothing is. A damaged entry is removed, and is nothing."""
        path = self._path(key)
        try:
            content = path.read_bytes()
        except OSError:
            return None
        _note_use(path)
        if hashlib.sha256(content[_DIGEST_BYTES:]).digest() == content[:_DIGEST_BYTES]:
            return content[_DIGEST_BYTES:]
        self.remove(key)
        return None

    def put(self, key: str, data: bytes) -> None:
        """Keep `data` under `key`, unless the disk refuses."""
        path = self._path(key)
        try:
            with _temporary_folder(self._root) as folder:
                temporary = folder / "entry"
                with open(temporary, "xb") as file:
                    file.write(hashlib.sha256(data).digest())
                    file.write(data)
                _make_private(path.parent)
                os.replace(temporary, path)
        except OSError as refusal:
            self._refused(refusal)

    def claim(self, key: str) -> locks.Claim:
        """The right to make what is put under `key`: there are 256, so that keys may now and then share one."""
        return _claim(self._root, f"{self.name}-{key[:2]}")

    def remove(self, key: str) -> None:
        """Forget `key`, if it is there."""
        with contextlib.suppress(OSError):
            self._path(key).unlink()

    def entries(self) -> Iterator[Entry]:
        """Every entry, in no order."""
        for path in _children(self._directory):
            with contextlib.suppress(OSError):
                found = path.stat()
                yield Entry(self.name, path.name, path, found.st_size, found.st_mtime)

    def _path(self, key: str) -> Path:
        return self._directory / key[:2] / key


class DirectoryStore:
    """Folders of files by key. Keys are hexadecimal digests. `is_whole` reads one that has no seal."""

    def __init__(self, root: Path, name: str, is_whole: Callable[[Path], bool]) -> None:
        self.name = name
        self._root = root
        self._directory = root / name
        self._is_whole = is_whole

    def find(self, key: str) -> Path | None:
        """The folder kept under `key`; None where there is none. One without a seal gets it, or is removed."""
        path = self._path(key)
        if not os.path.isdir(path):  # Path's own would raise where it may not look
            return None
        if not os.path.exists(path / _SEAL):
            if not self._is_whole(path):
                self.remove(key)
                return None
            self.seal(key)
        _note_use(path)
        return path

    def put(self, key: str, write: Callable[[Path], None]) -> Path:
        """Let `write` fill an empty folder, keep it under `key` and return where it is.

        Where another process was faster, its folder is kept. It is still to be sealed. OSError where the disk refuses.
        """
        path = self._path(key)
        with _temporary_folder(self._root) as folder:
            temporary = folder / "entry"
            temporary.mkdir(mode=0o700)
            write(temporary)
            _make_private(path.parent)
            try:
                os.rename(temporary, path)
            except OSError:
                if not path.is_dir():
                    raise
        return path

    def seal(self, key: str) -> None:
        """Wait until the folder under `key` is on the disk, and note there that it is, unless the disk refuses."""
        path = self._path(key)
        with contextlib.suppress(OSError):
            if not os.path.exists(path / _SEAL):
                for file in (file for file in path.rglob("*") if file.is_file()):
                    with open(file, "r+b") as opened:
                        os.fsync(opened.fileno())
                (path / _SEAL).touch()

    def remove(self, key: str) -> None:
        """Forget `key`, if it is there. What a session has open stays readable to it."""
        import shutil

        try:
            with _temporary_folder(self._root) as folder:
                os.rename(self._path(key), folder / "entry")
        except OSError:  # a full disk has no room for the folder either; who reads half an entry compiles anew
            shutil.rmtree(self._path(key), ignore_errors=True)

    def is_used(self, key: str) -> bool:
        """Whether a session has the folder open, and says so by a lock that it shares."""
        try:
            locks.close(locks.lock_folder(self._path(key)))
        except BlockingIOError:
            return True
        except OSError:
            return False
        return False

    def entries(self) -> Iterator[Entry]:
        """Every entry, in no order."""
        for path in _children(self._directory):
            with contextlib.suppress(OSError):
                size = sum(file.stat().st_size for file in path.rglob("*") if file.is_file())
                yield Entry(self.name, path.name, path, size, path.stat().st_mtime)

    def _path(self, key: str) -> Path:
        return self._directory / key[:2] / key


class Cache:
    """All stores under one directory, held below `bound` bytes by `prune`.

    `refusal` is what the disk last answered when it refused to keep something.
    """

    def __init__(self, directory: Path, bound: int = DEFAULT_CACHE_BYTES) -> None:
        self.directory = directory
        self.bound = bound
        self.refusal: OSError | None = None
        self.kernels = Store(directory, "kernels", self._note_refusal)
        self.sources = Store(directory, "sources", self._note_refusal)
        self.tilings = Store(directory, "tilings", self._note_refusal)
        self.programs = DirectoryStore(directory, "programs", _is_whole_program)

    @property
    def stores(self) -> tuple[Store | DirectoryStore, ...]:
        return self.kernels, self.programs, self.sources, self.tilings

    def entries(self) -> list[Entry]:
        """Every entry of every store, last used longest ago first."""
        found = [entry for store in self.stores for entry in store.entries()]
        return sorted(found, key=lambda entry: entry.used)

    def prune(self, bound: int | None = None, keep: Container[str] = ()) -> list[Entry]:
        """Remove what was used longest ago until at most `bound` bytes are kept; returns what went.

        `bound` is the cache's own by default. Programs that a session has open stay, and those whose keys are in
        `keep`. Remains of processes that died are removed too.
        """
        entries = self.entries()
        excess = sum(entry.size for entry in entries) - (self.bound if bound is None else bound)
        removed = []
        self._remove_abandoned()
        for entry in entries:
            if excess <= 0:
                break
            if entry.store == self.programs.name and (entry.key in keep or self.programs.is_used(entry.key)):
                continue
            self.remove(entry)
            removed.append(entry)
            excess -= entry.size
        return removed

    def clear(self) -> list[Entry]:
        """Remove every entry; returns what went. Sessions go on with what they have open."""
        entries = self.entries()
        for entry in entries:
            self.remove(entry)
        self._remove_abandoned()
        return entries

    def claim(self, key: str) -> locks.Claim:
        """The right to compile the model `key`. There are 256, so that models may now and then wait for each other."""
        return _claim(self.directory, key[:2])

    def remove(self, entry: Entry) -> None:
        """Forget one entry of `entries`."""
        {store.name: store for store in self.stores}[entry.store].remove(entry.key)

    def _remove_abandoned(self) -> None:
        from onnxsmith import scratch

        scratch.remove_abandoned(self.directory / "tmp")

    def _note_refusal(self, refusal: OSError) -> None:
        self.refusal = refusal


def open_cache(directory: str | Path | None, bound: int = DEFAULT_CACHE_BYTES) -> Cache | None:
    """The cache at `directory`, made (mode 0700) where it is missing; None where it cannot be used.

    The log says why: it belongs to another user, others may write to it, or it cannot be made.
    """
    if directory is None:
        return None
    path = Path(directory)
    try:
        _make_private(path)
        problem = _why_unsafe(path)
    except OSError as refusal:
        problem = str(refusal)
    if problem is None:
        return Cache(path, bound)
    from onnxsmith import logs

    logs.logger().warning(
        "The cache folder '%s' is not used, and models are compiled anew in each process: %s. "
        "Set ONNXSMITH_CACHE_DIR to a folder of your own, or ONNXSMITH_CACHE=off.",
        path,
        problem,
    )
    return None


def _why_unsafe(path: Path) -> str | None:
    if os.name != "posix":
        return None
    found = path.stat()
    if found.st_uid != os.geteuid():
        return f"it belongs to user {found.st_uid}, and this process runs as {os.geteuid()}"
    if found.st_mode & _WRITABLE_BY_OTHERS:
        return f"others may write to it (mode {stat.S_IMODE(found.st_mode):04o}; 0700 would be right)"
    return None


def _is_whole_program(folder: Path) -> bool:
    from onnxsmith import artifact  # here: few programs are without a seal

    try:
        artifact.verify_files(folder, artifact.read_manifest(folder))
    except artifact.ArtifactError:
        return False
    return True


def _make_private(path: Path) -> None:
    if path.is_dir():
        return
    _make_private(path.parent)
    path.mkdir(mode=0o700, exist_ok=True)


def _claim(root: Path, name: str) -> locks.Claim:
    with contextlib.suppress(OSError):
        _make_private(root / "locks")
    return locks.Claim(root / "locks" / f"{name}.lock")


def _note_use(path: Path) -> None:
    with contextlib.suppress(OSError):  # a disk for reading
        os.utime(path)


@contextlib.contextmanager
def _temporary_folder(root: Path) -> Iterator[Path]:
    """A folder on the same disk as the stores, gone afterwards with whatever was not moved out of it."""
    from onnxsmith import scratch  # here and not above: a session that only reads has no need of it

    _make_private(root / "tmp")
    with scratch.temporary_folder(root / "tmp") as folder:
        yield folder


def _children(directory: Path) -> Iterator[Path]:
    """The entries in the two-letter folders of a store."""
    with contextlib.suppress(OSError):
        for shard in list(directory.iterdir()):
            with contextlib.suppress(OSError):
                yield from list(shard.iterdir())
