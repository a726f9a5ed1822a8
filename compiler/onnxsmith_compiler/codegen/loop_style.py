"""How loops over rows and along a row are run: in order on a CPU thread, or spread over the threads of a CUDA block."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from typing import Protocol

from onnxsmith_compiler.codegen.kernel_text import KernelText
from onnxsmith_compiler.codegen.source import Parameter
from onnxsmith_compiler.ir.atom import LoopIndex
from onnxsmith_compiler.ir.dim import Dim
from onnxsmith_compiler.ir.dtype import DType

CUDA_BLOCK = 128
"""Threads of a CUDA block, a power of two."""

UNROLLED = 16
"""The length of a serial loop up to this is written into the text, so that LLVM unrolls it."""


class LoopStyle(Protocol):
    """What differs between targets in a kernel made of rows."""

    def rows(self, text: KernelText, axes: Sequence[LoopIndex]) -> AbstractContextManager[None]:
        """The loop over rows."""

    def along(self, text: KernelText, axes: Sequence[LoopIndex]) -> AbstractContextManager[None]:
        """The loop along a row."""

    def total(self, text: KernelText, name: str, dtype: DType, combine: Callable[[str, str], str]) -> None:
        """Completes the total that the loop along a row has gathered in the variable `name`."""

    def row_memory(self, text: KernelText, name: str, dtype: DType, start: Dim, size: Dim) -> None:
        """Makes `name` the pointer to `start` of the row's `size` bytes of memory."""


@contextmanager
def serial_loop(text: KernelText, axis: LoopIndex | None, iterable: str) -> Iterator[None]:
    name = text.fresh("i")
    if axis is not None:
        text.name_index(axis, name)
    with text.block(f"for {name} in {iterable}:"):
        yield


@contextmanager
def serial_loops(text: KernelText, axes: Sequence[LoopIndex]) -> Iterator[None]:
    with ExitStack() as stack:
        for axis in axes:
            short = isinstance(axis.extent, int) and axis.extent <= UNROLLED
            extent = str(axis.extent) if short else text.dim(axis.extent)
            stack.enter_context(serial_loop(text, axis, f"range({extent})"))
        yield


def decode(text: KernelText, number: str, axes: Sequence[LoopIndex]) -> None:
    """Names the positions along `axes` that the row-major `number` stands for."""
    rest = number
    for position in range(len(axes) - 1, 0, -1):
        extent = text.parameter(axes[position].extent)
        quotient, name = text.fresh("q"), text.fresh("i")
        text.line(f"{quotient} = int_div({rest}, {extent})")
        text.line(f"{name} = {rest} - {quotient} * {extent}")
        text.name_index(axes[position], name)
        rest = quotient
    if axes:
        text.name_index(axes[0], rest)


class CpuStyle:
    """Rows are the tiles [begin, end); a row is run in order, for LLVM to vectorise."""

    @contextmanager
    def rows(self, text: KernelText, axes: Sequence[LoopIndex]) -> Iterator[None]:
        if len(axes) == 1:
            with serial_loop(text, axes[0], "range(begin, end)"):
                yield
            return
        with text.block("for tile in range(begin, end):"):
            decode(text, "tile", axes)
            yield

    def along(self, text: KernelText, axes: Sequence[LoopIndex]) -> AbstractContextManager[None]:
        return serial_loops(text, axes)

    def total(self, text: KernelText, name: str, dtype: DType, combine: Callable[[str, str], str]) -> None:
        pass

    def row_memory(self, text: KernelText, name: str, dtype: DType, start: Dim, size: Dim) -> None:
        text.line(f"{name} = scratch(ctx, {dtype}, {text.size(start)})")


class CudaStyle:
    """A row is a block; its threads take every CUDA_BLOCK-th element, and totals meet in shared memory."""

    @contextmanager
    def rows(self, text: KernelText, axes: Sequence[LoopIndex]) -> Iterator[None]:
        text.line("row = cuda.blockIdx.x")
        text.line("lane = cuda.threadIdx.x")
        decode(text, "row", axes)
        yield

    @contextmanager
    def along(self, text: KernelText, axes: Sequence[LoopIndex]) -> Iterator[None]:
        if not axes:
            yield
            return
        *outer, last = axes
        with serial_loops(text, outer), serial_loop(text, last, f"range(lane, {text.dim(last.extent)}, {CUDA_BLOCK})"):
            yield
        text.line("cuda.syncthreads()")

    def total(self, text: KernelText, name: str, dtype: DType, combine: Callable[[str, str], str]) -> None:
        shared, half = f"shared_{name}", f"half_{name}"
        text.line(f"{shared} = cuda.shared.array({CUDA_BLOCK}, {dtype})")
        text.line(f"{shared}[lane] = {name}")
        text.line("cuda.syncthreads()")
        text.line(f"{half} = {CUDA_BLOCK // 2}")
        with text.block(f"while {half} > 0:"):
            with text.block(f"if lane < {half}:"):
                text.line(f"{shared}[lane] = {combine(f'{shared}[lane]', f'{shared}[lane + {half}]')}")
            text.line("cuda.syncthreads()")
            text.line(f"{half} = {half} // 2")
        text.line(f"{name} = {shared}[0]")

    def row_memory(self, text: KernelText, name: str, dtype: DType, start: Dim, size: Dim) -> None:
        memory = f"memory_{name}"
        text.parameters.append(Parameter(memory, f"{dtype}*", noalias=True))
        text.line(f"{name} = offset({memory}, row * {text.size(size // dtype.itemsize)})")
