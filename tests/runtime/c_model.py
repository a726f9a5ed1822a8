"""The C functions of a compiled model, called through ctypes."""

from __future__ import annotations

import ctypes
import math
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np

from onnxsmith_compiler.codegen import c_layout
from onnxsmith_compiler.codegen.c_interface import FUNCTIONS

TASK = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_int32)
PARALLEL = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_int32, TASK, ctypes.c_void_p)

RESULT = {name: code for code, name, _ in c_layout.RESULTS}


class Buffer(ctypes.Structure):
    _fields_ = (("data", ctypes.c_void_p), ("bytes", ctypes.c_int64))


class Failure(ctypes.Structure):
    _fields_ = (("where", ctypes.c_char_p), ("value", ctypes.c_int64), ("limit", ctypes.c_int64))


_TYPES = {
    "int32_t": ctypes.c_int32,
    "int64_t": ctypes.c_int64,
    "uint64_t": ctypes.c_uint64,
    "const char *": ctypes.c_char_p,
    "~_parallel": PARALLEL,
}


class Memory:
    """`size` bytes at an `address` that is a multiple of 64."""

    def __init__(self, size: int, fill: int = 0xA5) -> None:
        self._room = np.full(size + 64, fill, np.uint8)
        self.address = -(-self._room.ctypes.data // 64) * 64
        self.size = size


class CModel:
    """The functions of the model called `name` in a package's folder, each by its own name."""

    def __init__(self, folder: Path, name: str) -> None:
        self.library = ctypes.CDLL(str(folder / f"lib{name}.so"))
        weights = (folder / "weights.safetensors").read_bytes()
        self.weights = Memory(len(weights))
        ctypes.memmove(self.weights.address, weights, len(weights))
        self._functions = {}
        for function in FUNCTIONS:
            found = self.library[f"{name}_{function.name}"]
            found.restype = _TYPES[function.result]
            found.argtypes = [_TYPES.get(kind, ctypes.c_void_p) for kind, _ in function.parameters]
            self._functions[function.name] = found

    def __getattr__(self, name: str) -> Callable[..., int]:
        return self._functions[name]

    def context(self, *sizes: int, threads: int = 1) -> CContext:
        """A context that is planned and bound."""
        made = CContext(self, threads)
        assert made.plan(*sizes) == c_layout.DONE
        assert made.bind() == c_layout.DONE
        return made


class CContext:
    """A context in memory of its own, its workspace, and buffers."""

    def __init__(self, model: CModel, threads: int = 1) -> None:
        self.model = model
        self.threads = threads
        self.memory = Memory(model.context_size(threads))
        self.workspace = Memory(0)

    def plan(self, *sizes: int) -> int:
        words = (ctypes.c_int64 * max(1, len(sizes)))(*sizes)
        return self.model.plan(self.memory.address, self.memory.size, self.threads, words)

    def bind(self) -> int:
        self.workspace = Memory(self.model.workspace_size(self.memory.address))
        weights = self.model.weights
        return self.model.bind(
            self.memory.address, weights.address, weights.size, self.workspace.address, self.workspace.size
        )

    def shape(self, kind: str, number: int) -> tuple[int, ...]:
        rank = getattr(self.model, f"{kind}_rank")(number)
        dims = (ctypes.c_int64 * max(1, rank))()
        assert getattr(self.model, f"{kind}_shape")(self.memory.address, number, dims) == c_layout.DONE
        return tuple(dims[:rank])

    def outputs(self, *dtypes: str) -> list[np.ndarray]:
        """Arrays for the outputs."""
        made = [np.full(self.shape("output", number), 77, dtype) for number, dtype in enumerate(dtypes)]
        for number, array in enumerate(made):
            assert self.model.output_bytes(self.memory.address, number) == math.prod(array.shape) * array.itemsize
        return made

    def run(
        self, inputs: Sequence[np.ndarray | None], outputs: Sequence[np.ndarray], parallel: object | None = None
    ) -> int:
        arguments = (self.memory.address, buffers(inputs), buffers(outputs))
        if parallel is None:
            return self.model.run(*arguments)
        return self.model.run_parallel(*arguments, parallel, None)

    def failure(self) -> tuple[str, int, int]:
        found = Failure()
        assert self.model.last_failure(self.memory.address, ctypes.byref(found)) == c_layout.DONE
        return found.where.decode(), found.value, found.limit


def buffers(arrays: Sequence[np.ndarray | None]) -> object:
    return (Buffer * max(1, len(arrays)))(*map(_buffer, arrays))


def _buffer(array: np.ndarray | None) -> Buffer:
    return Buffer(None, 0) if array is None else Buffer(array.ctypes.data, array.nbytes)


def texts(function: Callable[[int], bytes | None]) -> Iterator[str]:
    """The texts of a function from number 0 on, up to the first that there is not."""
    number = 0
    while (text := function(number)) is not None:
        yield text.decode()
        number += 1
