from __future__ import annotations

import itertools

import numpy as np
import pytest
from contraction_harness import CompiledKernel, run_uncompiled

from onnxsmith_compiler.codegen.source import KernelSource, Parameter
from onnxsmith_compiler.codegen.tap_addresses import TAP_ADDRESSES, tap_addresses_name

NOWHERE = -1


def _source(axes: int, pixels: int) -> KernelSource:
    parameters = [Parameter("table", "int64*"), Parameter("starts", "int64*")]
    groups = []
    for axis in "zyx"[3 - axes :]:
        names = [f"{stem}_{axis}" for stem in ("at", "size", "extent", "dilation", "step")]
        parameters.append(Parameter(names[0], "int64*"))
        parameters += [Parameter(name, "int64") for name in names[1:]]
        groups += names
    name = tap_addresses_name(axes, pixels)
    assert name in TAP_ADDRESSES
    call = ", ".join(["table", "starts", str(NOWHERE), *groups])
    names = ", ".join(parameter.name for parameter in parameters)
    text = f"def kernel(ctx, {names}, begin, end):\n    {name}({call})\n    return 0\n"
    return KernelSource(name, text, tuple(parameters))


@pytest.mark.parametrize("pixels", [8, 16, 24])
@pytest.mark.parametrize("axes", [0, 1, 2, 3])
def test_every_tap_of_every_pixel(axes: int, pixels: int) -> None:
    rng = np.random.default_rng(axes)
    sizes, extents, dilations, steps = (
        [5, 4, 7][:axes],
        [3, 1, 4][:axes],
        [1, 2, 3][:axes],
        [700, 90, 8][:axes],
    )
    starts = rng.integers(1 << 40, 1 << 41, pixels)
    at = [rng.integers(-4, size + 2, pixels) for size in sizes]
    taps = list(itertools.product(*map(range, extents)))
    expected = np.empty((len(taps), pixels), np.int64)
    for number, tap in enumerate(taps):
        for i in range(pixels):
            places = [at[axis][i] + tap[axis] * dilations[axis] for axis in range(axes)]
            is_inside = all(0 <= place < size for place, size in zip(places, sizes, strict=True))
            moved = starts[i] + sum(index * step for index, step in zip(tap, steps, strict=True))
            expected[number, i] = moved if is_inside else NOWHERE
    source = _source(axes, pixels)
    groups = itertools.chain.from_iterable(zip(at, sizes, extents, dilations, steps, strict=True))
    table = np.zeros_like(expected)
    arguments = (table, starts, *groups)
    assert CompiledKernel(source)(arguments, 1, 64) == 0
    np.testing.assert_array_equal(table, expected)
    table[...] = 0
    assert run_uncompiled(source, arguments, 1, 64) == 0
    np.testing.assert_array_equal(table, expected)
