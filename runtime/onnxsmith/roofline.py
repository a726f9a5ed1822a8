"""The roofline of this machine: the arithmetic and the memory traffic that no kernel can exceed.

The model is Williams, Waterman and Patterson's, "Roofline: an insightful visual performance model" (2009).
"""

from __future__ import annotations

import os
from dataclasses import dataclass

SMALL_BUFFER = 64 << 20
"""Bytes about as many as a model's weights and activations: what one run leaves in a large cache, the next finds."""
LARGE_BUFFER = 1 << 30
"""Bytes beyond most caches."""


@dataclass(frozen=True)
class Stream:
    """A buffer of `size` bytes is read at `rate` bytes a second."""

    size: int
    rate: float


@dataclass(frozen=True)
class Roofline:
    """What `threads` threads can do: `peak` float32 operations a second, two a multiply-add, and read `streams`.

    `cpu` is LLVM's name for it, `vector_bits` the width of the vectors that code uses.
    """

    cpu: str
    vector_bits: int
    threads: int
    peak: float
    streams: tuple[Stream, ...]

    @property
    def stream(self) -> Stream:
        """The one that kernels are held against: the fastest."""
        return max(self.streams, key=lambda stream: stream.rate)

    @property
    def ridge(self) -> float:
        """Operations a byte from which on arithmetic is the limit."""
        return self.peak / self.stream.rate

    def seconds(self, flops: int, traffic: int) -> float:
        """The least time for so many operations on so many bytes."""
        return max(flops / self.peak, traffic / self.stream.rate)


def measure(threads: int) -> Roofline:
    """The roofline for `threads` threads, measured now by the compile process; it takes about a second.

    Raises EngineError and NotImplemented as the compilation of a model does.
    """
    from onnxsmith import compile_process

    buffers = [SMALL_BUFFER, LARGE_BUFFER] if _free_memory() >= 4 * LARGE_BUFFER else [SMALL_BUFFER]
    request = {"kind": "measure", "threads": threads, "buffers": buffers}
    answer, _ = compile_process.call(request, b"", "measuring the machine", None, None)
    streams = tuple(map(Stream, buffers, answer["bandwidths"]))
    return Roofline(answer["cpu"], answer["vector_bits"], threads, 2 * answer["multiply_adds"], streams)


def _free_memory() -> int:
    """Bytes that nobody uses; 0 where the system does not tell."""
    try:
        return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, OSError, ValueError):
        return 0
