"""Compiling a printed kernel, loading it, and calling it on numpy arrays: compiled, or as plain Python."""

from __future__ import annotations

import ctypes
import functools
import tempfile
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import numpy as np

from onnxsmith_compiler.codegen import llvm_backend
from onnxsmith_compiler.codegen.elf_linker import link_shared_library
from onnxsmith_compiler.codegen.namespace import define_kernel
from onnxsmith_compiler.codegen.numba_adapter import compile_kernel, compiler_for
from onnxsmith_compiler.codegen.source import KernelSource, Parameter
from onnxsmith_compiler.codegen.target import Target

CONTEXT_WORDS = 16
SCRATCH_BYTES = 1 << 16


@functools.cache
def host() -> Target:
    return Target.host()


def kernel(body: str, *parameters: str, label: str = "test") -> KernelSource:
    """A kernel whose `parameters` are like "float32* x" or, with noalias, "float32* x!"."""
    typed = []
    for parameter in parameters:
        kind, name = parameter.rstrip("!").split()
        typed.append(Parameter(name, kind, parameter.endswith("!")))
    names = "".join(f", {parameter.name}" for parameter in typed)
    lines = "\n".join(f"    {line}" for line in body.strip("\n").splitlines())
    return KernelSource(label, f"def kernel(ctx{names}, begin, end):\n{lines}\n    return 0\n", tuple(typed))


def load(library: bytes) -> ctypes.CDLL:
    with tempfile.NamedTemporaryFile(suffix=".so", delete=False) as file:
        file.write(library)
    try:
        return ctypes.CDLL(file.name)
    finally:
        Path(file.name).unlink()


def load_kernel(source: KernelSource, target: Target) -> Callable[[int, int, int, int], int]:
    """`source` as machine code for `target`: a function of the addresses of context and arguments, and of tiles."""
    code = compile_kernel(source, "under_test", target)
    function = load(link_shared_library({source.label: code}, ["under_test"], "test.so")).under_test
    function.argtypes = [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int64, ctypes.c_int64]
    function.restype = ctypes.c_int32
    return function


class Loaded:
    """A compiled kernel; `context` is the ctx that its last call was given."""

    def __init__(self, source: KernelSource, target: Target) -> None:
        self.function = load_kernel(source, target)
        self.context = np.zeros(CONTEXT_WORDS, np.int64)

    def __call__(self, *arguments: np.ndarray | int, begin: int = 0, end: int = 1) -> int:
        scratch = np.zeros(SCRATCH_BYTES, np.uint8)
        self.context[:2] = scratch.ctypes.data, SCRATCH_BYTES
        words = [a.ctypes.data if isinstance(a, np.ndarray) else a for a in arguments]
        table = np.array(words or [0], np.int64)
        return int(self.function(self.context.ctypes.data, table.ctypes.data, begin, end))


class ReferenceContext(SimpleNamespace):
    """What a kernel takes for `ctx` in plain Python: words to load and store, and scratch bytes."""


def run_reference(
    source: KernelSource, *arguments: np.ndarray | int, begin: int = 0, end: int = 1, context: object = None
) -> int:
    return int(define_kernel(source.text)(context, *arguments, begin, end))


def assembly(source: KernelSource, target: Target) -> str:
    module = compiler_for(target).kernel_module(source, "under_test")
    return llvm_backend.emit_assembly(module, target)
