"""Runs a printed kernel: compiled for this machine, or as plain Python, on the same numpy arrays."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import numpy as np
from kernel_harness import load_kernel

from onnxsmith_compiler.codegen.namespace import define_kernel
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
        self._function = load_kernel(source, target)

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
