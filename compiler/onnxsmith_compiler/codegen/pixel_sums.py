"""Sums of neighbouring pixels that a kernel makes beside them: of the blocks of a depthwise convolution's lines."""

from __future__ import annotations

from collections.abc import Sequence

from onnxsmith_compiler.codegen.contraction_source import indent
from onnxsmith_compiler.codegen.depthwise_row_tile import DepthwiseRowShape, depthwise_row_shape
from onnxsmith_compiler.codegen.epilogue import Epilogue
from onnxsmith_compiler.codegen.target import Target
from onnxsmith_compiler.ops.packed import DepthwiseConv
from onnxsmith_compiler.schedule.groups import ContractGroup


def summed_pixels(target: Target, lesser: Sequence[Target], group: ContractGroup) -> int | None:
    """How many neighbours of a line the kernels of `group` add up, on all targets the same; None if one cannot."""
    kernel = group.contract.kernel
    if not isinstance(kernel, DepthwiseConv):
        return None
    window, dtype = kernel.window, group.operands[0].dtype.name
    shapes = [
        depthwise_row_shape(each, dtype, window.size[-1], window.strides[-1], window.dilations[-1])
        for each in (target, *lesser)
    ]
    counts = {None if shape is None else shape.rows for shape in shapes}
    return counts.pop() if len(counts) == 1 else None


def sum_block(tile: DepthwiseRowShape, epilogue: Epilogue, block: str, last_columns: int | None) -> list[str]:
    """Lines that add up the pixels of a block, which lie in the nearest cache, where the epilogue asks for it.

    `block` is an expression: the block's number, counted through all images. `last_columns`: of the last panel.
    """
    if epilogue.sums is None:
        return []
    results, sums = epilogue.sums
    pixels = [f"load({results}, pixel_place{f' + {i} * n_size' if i else ''} + j)" for i in range(tile.rows)]

    def lines(columns: str) -> list[str]:
        return [
            f"if rows == {tile.rows}:",
            f"    for j in range({columns}):",
            f"        store({sums}, sum_place + j, {' + '.join(pixels)})",
            "else:",
            f"    for j in range({columns}):",
            f"        store({sums}, sum_place + j, {pixels[0]})",
            "    for i in range(1, rows):",
            f"        for j in range({columns}):",
            f"            total = load({sums}, sum_place + j) + load({results}, pixel_place + i * n_size + j)",
            f"            store({sums}, sum_place + j, total)",
        ]

    whole = lines(str(tile.columns))
    if last_columns != tile.columns:
        part = lines("columns" if last_columns is None else str(last_columns))
        whole = [f"if columns == {tile.columns}:", *indent(whole), "else:", *indent(part)]
    return [
        f"sum_place = ({block}) * n_size + first_column",
        "pixel_place = (first_row + row) * n_size + first_column",
        *whole,
    ]
