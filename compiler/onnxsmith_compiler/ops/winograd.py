"""Winograd's convolution: the operator, and its weights made of those of a direct one."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from onnxsmith_compiler.ir import dim as dims
from onnxsmith_compiler.ir.dim import Dim
from onnxsmith_compiler.ir.graph import Node, TensorType, Value
from onnxsmith_compiler.ops.base import Op, Types, required
from onnxsmith_compiler.ops.builder import GraphBuilder
from onnxsmith_compiler.ops.lowering import Contract
from onnxsmith_compiler.ops.packed import Window


@dataclass(frozen=True)
class WinogradConv(Op):
    """Convolution of [N, height, width, C] with windows of 3 by 3, moved by one: [N, positions..., outputs].

    The weights are transformed, in panels [(block + 2)^2, panels, C, columns]; `block` is the extent of the blocks of
    output that are computed at once.
    """

    window: Window
    block: int
    outputs: int
    columns: int

    def infer(self, inputs: Types) -> tuple[TensorType, ...]:
        x = required(inputs, 0)
        return (TensorType(x.dtype, (x.shape[0], *self.positions(x.shape), self.outputs)),)

    def positions(self, image: tuple[Dim, ...]) -> tuple[Dim, ...]:
        """Height and width of the output for images [N, height, width, C]."""
        return self.window.output(image[1:-1])

    def lower(self, node: Node) -> Contract:
        return Contract(self)


def transformed_weights(builder: GraphBuilder, packed: Value, matrix: np.ndarray) -> Value:
    """The constant `packed`, panels of a direct convolution, as `transform_weights` makes them."""
    _, panels, depth, columns = packed.shape
    shape = (len(matrix) ** 2, panels, dims.floordiv(depth, 9), columns)

    def compute() -> np.ndarray:
        assert packed.data is not None
        return transform_weights(packed.data, matrix)

    return builder.computed_constant(TensorType(packed.dtype.compute, shape), compute)


def transform_weights(packed: np.ndarray, matrix: np.ndarray) -> np.ndarray:
    """Panels of a direct convolution, [1, panels, 9 * C, columns], as those of a WinogradConv.

    `matrix` is G of shape [block + 2, 3]: a window g becomes G g G^T, computed in float64. Of windows as vectors of 9
    elements that is one product with the Kronecker product of G with itself. Narrow floats become float32.
    """
    _, panels, depth, columns = packed.shape
    channels = depth // 9
    both = np.kron(matrix, matrix)
    result = np.empty((len(both), panels, channels, columns), np.result_type(packed.dtype, np.float32))
    for number, panel in enumerate(packed.reshape(panels, 9, channels * columns)):
        result[:, number] = (both @ panel.astype(np.float64)).reshape(-1, channels, columns)
    return result
