"""Prints groups of computations as CUDA kernels, for numba to compile: the same expressions, spread over threads.

A printed kernel has the parameters of its CPU form, without ctx, begin and end. Launched with blocks of
`loop_style.CUDA_BLOCK` threads: a map has one thread an element, a kernel of rows one block a row.
"""

from __future__ import annotations

from dataclasses import dataclass

from onnxsmith_compiler.codegen.kernel_text import KernelText
from onnxsmith_compiler.codegen.loop_printer import print_rows
from onnxsmith_compiler.codegen.loop_shape import FlatStage, flatten, join_axes, split_own_axes
from onnxsmith_compiler.codegen.loop_style import CUDA_BLOCK, CudaStyle, decode
from onnxsmith_compiler.codegen.source import Parameter
from onnxsmith_compiler.ir import dim as dims
from onnxsmith_compiler.ir import loop
from onnxsmith_compiler.ir.dim import Dim
from onnxsmith_compiler.ir.graph import Value
from onnxsmith_compiler.schedule.groups import LoopGroup


@dataclass(frozen=True)
class CudaKernel:
    """A kernel's text, which defines `kernel`; its parameters and what each is given; the number of blocks.

    Parameters beyond the arguments are memory for rows, of `row_bytes` bytes a block each.
    """

    label: str
    text: str
    parameters: tuple[Parameter, ...]
    arguments: tuple[Value | Dim, ...]
    blocks: Dim
    row_bytes: Dim = 0


def print_cuda(group: LoopGroup, kept: frozenset[Value]) -> CudaKernel:
    """The kernel of a map, or of a group of rows whose reductions run along them.

    NotImplementedError for reductions along outer axes, and for positions read from tensors (a fault has no
    way out).
    """
    if any(isinstance(node, loop.Checked) for stage in group.stages for node in loop.walk(stage.computation.body)):
        raise NotImplementedError("checked positions have no CUDA form")
    stages = [flatten(stage.output, stage.computation) for stage in group.stages]
    if group.vertical:
        raise NotImplementedError("reductions along outer axes have no CUDA form")
    if any(stage.combine.startswith("arg") for stage in stages):
        raise NotImplementedError("positions of extremes have no CUDA form")
    if len(stages) == 1 and not group.stages[0].computation.reduce:
        return _print_map(stages[0])
    printed = print_rows(stages, group, kept, CudaStyle())
    parameters = printed.source.parameters
    text = printed.source.text.replace("def kernel(ctx, ", "def kernel(").replace(", begin, end):", "):")
    return CudaKernel(
        printed.source.label,
        text.replace("    return 0\n", ""),
        parameters,
        printed.arguments,
        printed.tiles,
        printed.scratch,
    )


def _print_map(stage: FlatStage) -> CudaKernel:
    stage = split_own_axes(stage)
    (stage,), axes = join_axes([stage], stage.axes)
    text = KernelText()
    count = dims.product([axis.extent for axis in axes])
    text.line("element = cuda.grid(1)")
    with text.block(f"if element < {text.size(count)}:"):
        decode(text, "element", axes)
        result = text.expr(stage.body)
        text.line(f"store({text.written(stage.output)}, {text.dim(stage.store)}, {result})")
    names = ", ".join(parameter.name for parameter in text.parameters)
    source = "\n".join([f"def kernel({names}):", *text.lines, ""])
    return CudaKernel("map", source, tuple(text.parameters), tuple(text.arguments), dims.ceildiv(count, CUDA_BLOCK))
