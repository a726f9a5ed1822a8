"""What the printers of contractions share: a step with its other tilings, and the sizes that describe a window."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from onnxsmith_compiler.codegen.kernel_text import PrintedKernel, PrintedStep
from onnxsmith_compiler.codegen.other_tilings import TilingSpace
from onnxsmith_compiler.codegen.tiling import Tiling
from onnxsmith_compiler.ir.dim import Dim
from onnxsmith_compiler.ops.packed import Window
from onnxsmith_compiler.schedule.groups import ContractGroup
from onnxsmith_compiler.schedule.work import contraction_work


def contraction_step(
    group: ContractGroup, label: str, cut: Callable[[Tiling], PrintedKernel], tiling: Tiling, space: TilingSpace
) -> PrintedStep:
    """The step whose work is `cut` by `tiling`, and may as well be cut by the other tilings of `space`."""

    def alternatives() -> tuple[PrintedKernel, ...]:
        return tuple(map(cut, space.others(tiling)))

    return PrintedStep(cut(tiling), group.outputs, label, group.origins, contraction_work(group), alternatives)


def window_sizes(window: Window, spatial: Sequence[Dim], positions: Sequence[Dim]) -> list[Dim]:
    """For each axis the sizes of input, output and window, stride, dilation and padding before it."""
    return [
        size
        for axis in range(window.rank)
        for size in (
            *(spatial[axis], positions[axis], window.size[axis]),
            *(window.strides[axis], window.dilations[axis], window.before[axis]),
        )
    ]
