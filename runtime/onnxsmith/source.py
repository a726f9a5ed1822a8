"""Which model this is: names for a model, for the compiler and for the machine that a program is made for.

A model is known by the SHA-256 of its bytes and of the files of external data beside it. To read gigabytes at
every start would be slow, so the cache's `sources` store remembers, for a path, what the files looked like
(device, inode, size, modification time) when they were last read, and, for a model's own digest, which
external files it names. Only the compile process, which can parse a model, writes the latter.
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
import math
import os
import platform
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import astuple, dataclass
from pathlib import Path
from typing import Any

from onnxsmith.cache import Cache
from onnxsmith.values import numpy_dtype_from_code

# Two writes this close together can leave equal modification times (Linux's clock ticks every 4 to 10 ms).
_CLOCK_TICK_NS = 50_000_000

# What of /proc/cpuinfo tells one kind of CPU from another, on x86 and on ARM.
_CPU_FIELDS = frozenset(
    {
        "vendor_id", "cpu family", "model", "model name", "flags",
        "CPU implementer", "CPU architecture", "CPU variant", "CPU part", "Features",
    }
)  # fmt: skip

# Packages whose releases change what is compiled, by a file that every release changes.
_COMPILER_PARTS = (("numba", "_version.py"), ("llvmlite", "_version.py"), ("onnx", "version.py"))


@dataclass(frozen=True)
class FileStamp:
    """What a file looked like: equal stamps mean equal contents."""

    path: str
    device: int
    inode: int
    size: int
    mtime_ns: int

    def is_settled(self, now_ns: int) -> bool:
        """Whether a write after `now_ns` is certain to change the stamp."""
        return now_ns - self.mtime_ns > _CLOCK_TICK_NS


def stamp(path: str) -> FileStamp:
    """The stamp of the file at `path`, under its real path. OSError where there is none."""
    found = os.stat(path)
    return FileStamp(os.path.realpath(path), found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns)


def file_digest(path: str) -> str:
    """The SHA-256 of a file's contents, in hexadecimal."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def bytes_digest(data: bytes) -> str:
    """The SHA-256 of `data`, in hexadecimal."""
    return hashlib.sha256(data).hexdigest()


@dataclass(frozen=True)
class FileDigest:
    """What a file looked like before it was read, and the SHA-256 of its contents, in hexadecimal."""

    file: FileStamp
    sha256: str


def read_digest(path: str) -> FileDigest | None:
    """The digest of the file at `path`; None where a write while it was read need not show in its stamp."""
    now, found = time.time_ns(), stamp(path)
    return FileDigest(found, file_digest(found.path)) if found.is_settled(now) else None


def known_digest(path: str, cache: Cache, own: str | None = None) -> str | None:
    """The digest of the model at `path`, with its external data, as far as the cache knows the model.

    `own` is the digest of the model file alone, for who has it. Reads the files only where they are new or changed.
    None for a model that was never parsed. OSError where a file is missing.
    """
    now = time.time_ns()
    recorded = recorded_digest(path, cache)
    if recorded is not None:
        return recorded
    model = stamp(path)
    own = own or file_digest(path)
    names = _load(cache, own)
    if names is None:
        return None
    folder = os.path.dirname(model.path)
    external = [stamp(os.path.join(folder, name)) for name in names["external"]]
    digest = combined_digest(own, [file_digest(file.path) for file in external])
    _remember_path([model, *external], digest, cache, now)
    return digest


def recorded_digest(path: str, cache: Cache) -> str | None:
    """The digest of the model at `path`, if none of its files has changed since it was noted. OSError as above."""
    record = _load(cache, _path_key(stamp(path).path))
    if record is not None and [list(astuple(stamp(file[0]))) for file in record["files"]] == record["files"]:
        return str(record["digest"])
    return None


def remember(model: FileStamp, own: str, external: Sequence[FileStamp], cache: Cache, since_ns: int) -> str:
    """Note in the cache what the compile process read at `since_ns`; the digest of the whole model.

    `own` is the digest of the model file alone.
    """
    folder = os.path.dirname(model.path)
    names = [os.path.relpath(file.path, folder) for file in external]
    cache.sources.put(own, json.dumps({"external": names}).encode())
    digest = combined_digest(own, [file_digest(file.path) for file in external])
    _remember_path([model, *external], digest, cache, since_ns)
    return digest


def combined_digest(own: str, external: Sequence[str]) -> str:
    """One digest of a model and its external files, in the order in which the model names them."""
    return bytes_digest("".join([own, *external]).encode()) if external else own


def replacement_digests(replacements: Sequence[Mapping[str, Any]], block: bytes) -> list[str]:
    """A digest for each replaced initializer of a request, whose `block` begins with their data."""
    digests = []
    start = 0
    for entry in replacements:
        end = start + replacement_bytes(entry)
        head = json.dumps([entry["name"], entry["type"], list(entry["shape"])])
        digests.append(bytes_digest(head.encode() + block[start:end]))
        start = end
    return digests


def replacement_bytes(entry: Mapping[str, Any]) -> int:
    """How many bytes of a request's block belong to this replaced initializer."""
    count: int = math.prod(entry["shape"])
    return count * numpy_dtype_from_code(entry["type"]).itemsize


def program_key(model_digest: str, options: Mapping[str, Any]) -> str:
    """The key of the program that this compiler makes of a model with `options` (JSON) for this machine."""
    parts = [model_digest, json.dumps(options, sort_keys=True), compiler_identity(), machine_identity()]
    return bytes_digest("\0".join(parts).encode())


def compiler_folder() -> Path | None:
    """Where the compiler's package is, without importing it; None where it is not installed."""
    found = importlib.util.find_spec("onnxsmith_compiler")
    if found is None or not found.submodule_search_locations:
        return None
    return Path(found.submodule_search_locations[0])


def compiler_identity() -> str:
    """A digest that changes with any source file of the compiler, and with numba, llvmlite and onnx."""
    folder = compiler_folder()
    stamps = [] if folder is None else _source_stamps(str(folder))
    for package, version_file in _COMPILER_PARTS:
        found = importlib.util.find_spec(package)
        if found is not None and found.submodule_search_locations:
            stamps.append(_describe(os.path.join(found.submodule_search_locations[0], version_file)))
    return bytes_digest("\n".join(stamps).encode())


def machine_identity() -> str:
    """The operating system, and the CPU's make and features."""
    return "\n".join([sys.platform, platform.machine(), *_cpu_description()])


def _source_stamps(folder: str) -> list[str]:
    stamps = []
    for entry in sorted(os.scandir(folder), key=lambda entry: entry.name):
        if entry.name.endswith(".py"):
            stamps.append(_describe(entry.path))
        elif entry.is_dir() and entry.name != "__pycache__":
            stamps.extend(_source_stamps(entry.path))
    return stamps


def _describe(path: str) -> str:
    try:
        found = os.stat(path)
    except OSError:
        return f"{path} missing"
    return f"{path} {found.st_size} {found.st_mtime_ns}"


def _cpu_description() -> list[str]:
    try:
        with open("/proc/cpuinfo", encoding="utf-8", errors="replace") as file:
            first_cpu = file.read(1 << 14).split("\n\n", 1)[0]
    except OSError:
        import numpy as np

        config: Any = np.show_config(mode="dicts")
        return [*config["SIMD Extensions"]["baseline"], *config["SIMD Extensions"].get("found", ())]
    return [line for line in first_cpu.splitlines() if line.split(":")[0].strip() in _CPU_FIELDS]


def _path_key(real_path: str) -> str:
    return bytes_digest(os.fsencode(real_path))


def _load(cache: Cache, key: str) -> dict[str, Any] | None:
    content = cache.sources.get(key)
    return None if content is None else json.loads(content)


def _remember_path(files: Sequence[FileStamp], digest: str, cache: Cache, since_ns: int) -> None:
    if all(file.is_settled(since_ns) for file in files):
        record = {"files": [astuple(file) for file in files], "digest": digest}
        cache.sources.put(_path_key(files[0].path), json.dumps(record).encode())
