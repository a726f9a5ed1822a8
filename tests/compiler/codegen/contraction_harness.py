"""Runs a printed kernel: compiled for this machine, or as plain Python, on the same numpy arrays."""

from __future__ import annotations

import ctypes
import itertools
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import numpy as np
from kernel_harness import load

from onnxsmith_compiler.codegen.elf_linker import link_shared_library
from onnxsmith_compiler.codegen.namespace import define_kernel
from onnxsmith_compiler.codegen.numba_adapter import compile_kernel
from onnxsmith_compiler.codegen.source import KernelSource
from onnxsmith_compiler.codegen.target import Target

HOST = Target.host()


def aligned(shape: Sequence[int], dtype: Any = np.float32) -> np.ndarray[Any, Any]:
    """Zeros at an address that is a multiple of 64."""
    kind = np.dtype(dtype)
    count = int(np.prod(shape))
    memory = np.zeros(count * kind.itemsize + 64, np.uint8)
    start = -memory.ctypes.data % 64
    return memory[start : start + count * kind.itemsize].view(kind).reshape(shape)


class CompiledKernel:
    """`source` as machine code for `target`, which this machine must be able to run."""

    def __init__(self, source: KernelSource, target: Target = HOST) -> None:
        self.source = source
        code = compile_kernel(source, "kernel_under_test", target)
        self._library = load(link_shared_library({source.label: code}, ["kernel_under_test"], "test.so"))
        words = [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int64, ctypes.c_int64]
        self._function = ctypes.CFUNCTYPE(ctypes.c_int32, *words)(("kernel_under_test", self._library))

    def __call__(self, arguments: Sequence[Any], tiles: int, scratch: int, *, cuts: Sequence[int] = ()) -> int:
        """Run all tiles, in one call or in several that meet at `cuts`; the first status that is not 0.

        Scratch memory, which stays in `scratch`, is NaNs before.
        """
        assert len(arguments) == len(self.source.parameters)
        self.scratch = memory = aligned([scratch], np.uint8)
        memory[:] = 0xFF
        context = np.zeros(16, np.int64)
        context[:2] = memory.ctypes.data, scratch
        table = np.array([_word(argument) for argument in arguments], np.int64)
        edges = [0, *cuts, tiles]
        for begin, end in itertools.pairwise(edges):
            status = int(self._function(context.ctypes.data, table.ctypes.data, begin, end))
            if status:
                return status
        return 0


def _word(argument: Any) -> int:
    return int(argument.ctypes.data if isinstance(argument, np.ndarray) else argument)


def run_uncompiled(source: KernelSource, arguments: Sequence[Any], tiles: int, scratch: int) -> int:
    """Run the kernel's text as plain Python; arrays are passed flat."""
    context = SimpleNamespace(scratch=aligned([scratch], np.uint8))
    flat = [a.reshape(-1) if isinstance(a, np.ndarray) else int(a) for a in arguments]
    return int(define_kernel(source.text)(context, *flat, 0, tiles))
