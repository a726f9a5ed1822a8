"""Matrix products and convolutions as the importer writes them: the layout pass chooses their kernels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from onnxsmith_compiler.ir import dim as dims
from onnxsmith_compiler.ir.dim import Dim
from onnxsmith_compiler.ir.graph import TensorType
from onnxsmith_compiler.ops.base import Op, Shape, ShapeError, Types, broadcast_shapes, required


@dataclass(frozen=True)
class MatMul(Op):
    """numpy.matmul of tensors of rank 2 and up: [..., M, K] x [..., K, N], the leading axes broadcast."""

    def infer(self, inputs: Types) -> tuple[TensorType, ...]:
        a, b = required(inputs, 0), required(inputs, 1)
        if a.rank < 2 or b.rank < 2 or a.dtype is not b.dtype:
            raise ShapeError(f"cannot multiply {a} and {b}")
        if isinstance(a.shape[-1], int) and isinstance(b.shape[-2], int) and a.shape[-1] != b.shape[-2]:
            raise ShapeError(f"cannot multiply {a} and {b}: the inner sizes {a.shape[-1]} and {b.shape[-2]} differ")
        batch = broadcast_shapes([a.shape[:-2], b.shape[:-2]])
        return (TensorType(a.dtype, (*batch, a.shape[-2], b.shape[-1])),)

    def evaluate(
        self, inputs: Sequence[np.ndarray | None], types: Sequence[TensorType]
    ) -> tuple[np.ndarray, ...] | None:
        a, b = inputs
        assert a is not None and b is not None
        if a.dtype.kind not in "fiu" or a.size + b.size > 1 << 20:
            return None
        return (np.matmul(a, b),)


@dataclass(frozen=True)
class Window:
    """How a window of `size` moves over the spatial axes. `before` and `after` are the padding."""

    size: tuple[int, ...]
    strides: tuple[int, ...]
    dilations: tuple[int, ...]
    before: tuple[Dim, ...]
    after: tuple[Dim, ...]

    @property
    def rank(self) -> int:
        return len(self.size)

    @property
    def taps(self) -> int:
        return int(np.prod(self.size, dtype=np.int64))

    def extents(self) -> tuple[int, ...]:
        """The elements that the window spans on each axis."""
        return tuple((size - 1) * dilation + 1 for size, dilation in zip(self.size, self.dilations, strict=True))

    def output(self, spatial: Shape) -> Shape:
        """How many positions the window takes on each axis."""
        sizes = []
        for axis, extent in enumerate(self.extents()):
            room = spatial[axis] + self.before[axis] + self.after[axis] - extent
            sizes.append(dims.maximum(0, dims.floordiv(room, self.strides[axis]) + 1))
        return tuple(sizes)


@dataclass(frozen=True)
class Conv(Op):
    """Convolution of [N, C, spatial...] with weights [O, C / groups, window...]: [N, O, positions...]."""

    window: Window
    groups: int = 1

    def infer(self, inputs: Types) -> tuple[TensorType, ...]:
        x, weights = required(inputs, 0), required(inputs, 1)
        if x.rank != weights.rank or x.rank != self.window.rank + 2:
            raise ShapeError(f"cannot convolve {x} with weights {weights}: the ranks differ")
        channels = weights.shape[1] * self.groups
        if isinstance(x.shape[1], int) and isinstance(channels, int) and x.shape[1] != channels:
            raise ShapeError(f"{x} has {x.shape[1]} channels, the weights are for {channels}")
        return (TensorType(x.dtype, (x.shape[0], weights.shape[0], *self.window.output(x.shape[2:]))),)


@dataclass(frozen=True)
class ConvTranspose(Op):
    """The transpose of a convolution: [N, C, spatial...] with weights [C, O / groups, window...].

    Output size: stride * (size - 1) + extra + extent - before - after on each axis.
    """

    window: Window
    groups: int
    extra: tuple[int, ...]

    def infer(self, inputs: Types) -> tuple[TensorType, ...]:
        x, weights = required(inputs, 0), required(inputs, 1)
        if x.rank != weights.rank or x.rank != self.window.rank + 2:
            raise ShapeError(f"cannot convolve {x} with weights {weights}: the ranks differ")
        sizes = []
        for axis, extent in enumerate(self.window.extents()):
            size = self.window.strides[axis] * (x.shape[2 + axis] - 1) + self.extra[axis] + extent
            sizes.append(dims.maximum(0, size - self.window.before[axis] - self.window.after[axis]))
        return (TensorType(x.dtype, (x.shape[0], weights.shape[1] * self.groups, *sizes)),)
