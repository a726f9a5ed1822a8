"""Axes that only a run knows: the sizes of results are read from small tensors that kernels compute."""

from __future__ import annotations

from dataclasses import dataclass

from onnxsmith_compiler.ir.dim import Dim
from onnxsmith_compiler.ir.graph import Value
from onnxsmith_compiler.onnx.node_import import NodeImport
from onnxsmith_compiler.ops.checked_sizes import AxisMask, KeptSizes, WidenedSizes


def runtime_axes(node: NodeImport, position: int = 1) -> Value | None:
    """The axes input at `position` where only a run knows its elements."""
    given = node.optional(position)
    return given if given is not None and given.known is None and given.type.size != 0 else None


def known_axes(node: NodeImport, position: int = 1) -> list[int] | None:
    """The axes of the input at `position` or of the attribute, None where there is neither."""
    given = node.optional(position)
    if given is None:
        return node.ints("axes")
    return [] if given.type.size == 0 else node.integers(given, "axes")


def one_size(node: NodeImport, value: Value, what: str) -> Dim:
    """The only element of an integer tensor."""
    (size,) = node.sizes(node.reshape(value, ()), what)
    return size


def checked_sizes(node: NodeImport, sizes: Value) -> tuple[Dim, ...]:
    """The elements of an int64 tensor that a kernel computes, taken not to be negative."""
    count = sizes.type.size
    if not isinstance(count, int):
        raise node.unsupported("the result's rank is known only when the model runs")
    return tuple(node.builder.late_symbol(sizes, number, signed=False) for number in range(count))


@dataclass(frozen=True)
class RuntimeAxes:
    """Axes of a tensor of `rank` that a run names; `count` is how many (None: a run tells).

    `mask` is an int64 tensor with 1 for every axis that is named, else 0.
    """

    mask: Value
    rank: int
    count: int | None

    @classmethod
    def read(cls, node: NodeImport, axes: Value, rank: int, all_if_none: bool = False) -> RuntimeAxes:
        count = axes.type.size
        mask = node.emit(AxisMask(rank, all_if_none), axes)
        return cls(mask, rank, count if isinstance(count, int) else None)

    def named(self, node: NodeImport) -> tuple[Dim, ...]:
        """For each axis 1 where it is named, else 0."""
        return checked_sizes(node, self.mask)

    def drop(self, node: NodeImport, x: Value) -> Value:
        """`x` without the axes, which have size 1."""
        if self.count is None:
            raise node.unsupported("the number of axes, so the result's rank, is known only when the model runs")
        sizes = node.emit(KeptSizes(self.rank - self.count), self.mask, node.sizes_constant(x.shape))
        return node.reshape(x, checked_sizes(node, sizes))

    def insert(self, node: NodeImport, x: Value) -> Value:
        """`x` with the axes, which count in the result, put in with size 1."""
        sizes = node.emit(WidenedSizes(), self.mask, node.sizes_constant(x.shape))
        return node.reshape(x, checked_sizes(node, sizes))
