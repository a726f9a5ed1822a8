"""What convolutions and pools share: an operator over a moving window has a channels-last form, which is what runs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from onnxsmith_compiler.ir.dim import Dim
from onnxsmith_compiler.ir.dtype import DType
from onnxsmith_compiler.ir.graph import Value
from onnxsmith_compiler.ops.base import Op
from onnxsmith_compiler.ops.builder import GraphBuilder

TileColumns = Callable[[DType, Dim], int]
"""The width of a panel of packed weights for a product of a type with so many columns."""


@dataclass(frozen=True)
class ChannelsFirst(Op):
    """An operator on [N, C, spatial...] as ONNX has it; the layout pass replaces it by its channels-last form."""

    def emit_channels_last(
        self, builder: GraphBuilder, tile_columns: TileColumns, x: Value, *rest: Value | None
    ) -> tuple[Value, ...]:
        """The outputs, [N, positions..., C], for x of shape [N, spatial..., C]; other inputs are as in ONNX."""
        raise NotImplementedError(type(self).__name__)
