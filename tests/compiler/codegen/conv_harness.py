"""Convolutions as cases: their sizes, the arguments of their kernels, and their results in float64."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import Any

import numpy as np
from tests.compiler.codegen.packing import interleave, pack_conv

from onnxsmith_compiler.codegen.conv_source import ConvForm
from onnxsmith_compiler.codegen.tiling import Tiling


@dataclass(frozen=True)
class Case:
    """One convolution: spatial sizes, channels in and out, and how its window moves."""

    batch: int
    size: tuple[int, ...]
    channels: int
    outputs: int
    window: tuple[int, ...]
    strides: tuple[int, ...]
    dilations: tuple[int, ...]
    before: tuple[int, ...]
    after: tuple[int, ...]
    groups: int = 1

    @property
    def out(self) -> tuple[int, ...]:
        parts = zip(self.size, self.window, self.strides, self.dilations, self.before, self.after, strict=True)
        return tuple((n + b + a - d * (w - 1) - 1) // s + 1 for n, w, s, d, b, a in parts)


def square_case(batch: int, size: int, channels: int, outputs: int, window: int, **options: Any) -> Case:
    """A convolution of two axes that is the same along both."""
    pad = options.pop("pad", 0)
    pair = {name: (options.pop(name, 1),) * 2 for name in ("strides", "dilations")}
    return Case(
        batch,
        (size, size),
        channels,
        outputs,
        (window, window),
        **pair,
        before=(pad, pad),
        after=(pad, pad),
        **options,
    )


def expected_result(x: np.ndarray[Any, Any], w: np.ndarray[Any, Any], case: Case) -> np.ndarray[Any, Any]:
    """x [N, spatial..., C] and w [O, C / groups, window...]: [N, out..., O], tap by tap in float64."""
    padding = [(0, 0), *zip(case.before, case.after, strict=True), (0, 0)]
    padded = np.pad(x.astype(np.float64), padding)
    result = np.zeros((case.batch, *case.out, case.outputs))
    inputs, outputs = case.channels // case.groups, case.outputs // case.groups
    for tap in itertools.product(*map(range, case.window)):
        parts = zip(tap, case.dilations, case.strides, case.out, strict=True)
        region = tuple(slice(t * d, t * d + s * (n - 1) + 1, s) for t, d, s, n in parts)
        pixels = padded[(slice(None), *region)]
        for group in range(case.groups):
            own = slice(group * outputs, (group + 1) * outputs)
            result[..., own] += pixels[..., group * inputs : (group + 1) * inputs] @ w[(own, slice(None), *tap)].T
    return result


def case_arguments(
    case: Case, form: ConvForm, tiling: Tiling, x: Any, w: Any, y: Any
) -> tuple[tuple[Any, ...], int, int]:
    """The kernel's arguments, its tiles, its scratch."""
    panels = pack_conv(w, case.groups, form.tile.columns)
    panels = interleave(panels) if form.tile.pairs else panels
    pixels, outputs = case.batch * int(np.prod(case.out)), case.outputs // case.groups
    inputs = case.channels // case.groups
    geometry = zip(case.size, case.out, case.window, case.strides, case.dilations, case.before, strict=True)
    arguments = (
        *(x, panels, y, case.outputs, 0),
        *(pixels, outputs, case.channels, inputs),
        *itertools.chain.from_iterable(geometry),
        *(tiling.rows, tiling.panels),
    )
    return arguments, form.tiles(pixels, outputs, case.groups, tiling), form.scratch(inputs, tiling)
