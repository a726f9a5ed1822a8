"""Names for compiled kernels by their content. Imports neither numba nor LLVM."""

from __future__ import annotations

import functools
import hashlib
import json
from collections.abc import Iterator
from importlib import metadata, resources
from importlib.resources.abc import Traversable

from onnxsmith_compiler.codegen.source import KernelSource
from onnxsmith_compiler.codegen.target import Target

_PACKAGES = ("numba", "llvmlite", "onnxsmith")
# Modules that decide what a text compiles to: all of codegen, the element types, the native core's tables.
_FOLDERS = ("onnxsmith_compiler.codegen",)
_MODULES = (("onnxsmith_compiler.ir", "dtype.py"), ("onnxsmith", "native_layout.py"))


def kernel_key(source: KernelSource, target: Target) -> str:
    """The SHA-256, in hexadecimal, of all that decides the object code of `source` for `target`.

    Its label is left out, and of the target all that only sizes schedules.
    """
    content = {
        "text": source.text,
        "parameters": [[parameter.name, parameter.type, parameter.noalias] for parameter in source.parameters],
        "unroll": source.unroll,
        "target": [target.triple, target.cpu, target.features, target.vector_bits, target.fma],
        "compiler": compiler_digest(),
    }
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


CORE_PARTS = ("plan", "run")
"""Parts of the native core, each of which is compiled by itself."""


def core_key(part: str, target: Target) -> str:
    """The SHA-256, in hexadecimal, of all that decides the object code of a part of the native core for `target`."""
    return kernel_key(KernelSource("native core", f"native core: {part}", ()), target)


def routine_key(name: str, target: Target) -> str:
    """The SHA-256, in hexadecimal, of all that decides the object code of the routine `name` for `target`."""
    return kernel_key(KernelSource("routine", name, ()), target)


def c_functions_key(target: Target) -> str:
    """The SHA-256, in hexadecimal, of all that decides the object code of the C functions for `target`."""
    return kernel_key(KernelSource("C functions", "C functions", ()), target.baseline)


def kernel_symbol(key: str) -> str:
    """The symbol under which the kernel of `key` is exported."""
    return f"k_{key[:32]}"


@functools.cache
def compiler_digest() -> str:
    """The SHA-256 of the versions of numba, llvmlite and this package, and of the source of codegen."""
    digest = hashlib.sha256()
    for package in _PACKAGES:
        digest.update(f"{package} {metadata.version(package)}\n".encode())
    for name, text in _sources():
        digest.update(f"{name} {len(text)}\n".encode())
        digest.update(text)
    return digest.hexdigest()


def _sources() -> Iterator[tuple[str, bytes]]:
    for package in _FOLDERS:
        files: list[Traversable] = sorted(resources.files(package).iterdir(), key=lambda file: file.name)
        for file in files:
            if file.name.endswith(".py"):
                yield f"{package}/{file.name}", file.read_bytes()
    for package, name in _MODULES:
        yield f"{package}/{name}", resources.files(package).joinpath(name).read_bytes()
