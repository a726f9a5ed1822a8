"""Rolled axes, spelled as two slices and a concatenation, are views that cost no copy."""

from __future__ import annotations

import numpy as np
import pytest
from tests.graphs import Sketch, normal
from tests.interpreter import HOST

from onnxsmith_compiler.ir.graph import Value
from onnxsmith_compiler.options import CompileOptions
from onnxsmith_compiler.pipeline import run_passes


def _slice(sketch: Sketch, x: Value, axis: int, start: int, size: int) -> Value:
    axes = [(0, 1, extent) for extent in x.shape]
    axes[axis] = (start, 1, size)
    return sketch.slice(x, *axes)


def _rolled(sketch: Sketch, x: Value, axis: int, shift: int) -> Value:
    """numpy.roll(x, -shift, axis)."""
    extent = x.shape[axis]
    assert isinstance(extent, int)
    return sketch.concat(axis, _slice(sketch, x, axis, shift, extent - shift), _slice(sketch, x, axis, 0, shift))


def _operators(sketch: Sketch) -> set[str]:
    return {node.op.name for node in run_passes(sketch.graph(), CompileOptions(), HOST).nodes}


@pytest.mark.parametrize("shift", [1, 3, 6])
def test_two_axes_rolled_cut_into_windows_and_back(shift: int) -> None:
    image = normal(2, 7, 8, 5)
    sketch = Sketch()
    x = sketch.fed(image, "n")
    rolled = _rolled(sketch, _rolled(sketch, x, 1, shift), 2, shift)
    doubled = sketch.map("mul", rolled, 2.0)
    back = _rolled(sketch, _rolled(sketch, doubled, 1, 7 - shift), 2, 8 - shift)
    sketch.output(doubled, sketch.map("add", back, x))
    assert "concat" not in _operators(sketch)
    sketch.check(2 * np.roll(image, (-shift, -shift), (1, 2)), 3 * image)


def test_the_last_axis_is_written_piece_by_piece() -> None:
    sketch = Sketch()
    x = sketch.fed(normal(3, 8))
    sketch.output(_rolled(sketch, x, 1, 3))
    assert "concat" in _operators(sketch)
    sketch.check()


def test_parts_that_are_no_turn_are_left_alone() -> None:
    for (start, size), (other, rest) in (((3, 4), (1, 3)), ((3, 3), (0, 3)), ((2, 5), (0, 3)), ((0, 7), (0, 0))):
        sketch = Sketch()
        x = sketch.fed(normal(7, 2))
        sketch.output(sketch.concat(0, _slice(sketch, x, 0, start, size), _slice(sketch, x, 0, other, rest)))
        sketch.check()
    sketch = Sketch()
    x, y = sketch.fed(normal(7, 2)), sketch.fed(normal(7, 2, seed=1))
    sketch.output(sketch.concat(0, _slice(sketch, x, 0, 3, 4), _slice(sketch, y, 0, 0, 3)))
    assert "concat" in _operators(sketch)
    sketch.check()
