"""Which sums come out of the kernel that makes what is added up."""

from __future__ import annotations

import pytest
from tests.graphs import Size, Sketch, normal
from tests.interpreter import HOST

from onnxsmith_compiler.codegen.pixel_sums import summed_pixels
from onnxsmith_compiler.ir.graph import Value
from onnxsmith_compiler.ops.packed import DepthwiseConv, Window
from onnxsmith_compiler.options import CompileOptions
from onnxsmith_compiler.pipeline import run_passes
from onnxsmith_compiler.schedule.fusion import schedule
from onnxsmith_compiler.schedule.groups import ContractGroup


def _images(sketch: Sketch, shape: tuple[Size, ...]) -> Value:
    """A depthwise convolution of [N, spatial..., C] that keeps the sizes, with an activation; an output too."""
    rank = len(shape) - 2
    ones = (1,) * rank
    window = Window((3,) * rank, ones, ones, ones, ones)
    x = sketch.input(shape)
    convolved = sketch.emit(DepthwiseConv(window), x, sketch.constant(normal(*window.size, int(shape[-1]))))
    images = sketch.map("max", convolved, 0.0)
    sketch.output(images)
    return images


def _sums(sketch: Sketch) -> list[tuple[object, ...]]:
    graph = run_passes(sketch.graph(), CompileOptions(), HOST)
    groups = schedule(graph, summed_pixels=lambda group: summed_pixels(HOST, (), group)).groups
    return [g.sums.shape for g in groups if isinstance(g, ContractGroup) and g.sums is not None]


@pytest.mark.parametrize(
    ("shape", "axes", "sums"),
    [
        ((1, 14, 14, 6), (1, 2), (1, 14, 2, 6)),
        ((3, 5, 15, 1), (1, 2), (3, 5, 3, 1)),
        ((2, 30, 6), (1,), (2, 5, 6)),
        ((1, 3, 4, 8, 5), (1, 2, 3), (1, 3, 4, 2, 5)),
    ],
)
def test_sums_over_whole_images(shape: tuple[int, ...], axes: tuple[int, ...], sums: tuple[int, ...]) -> None:
    sketch = Sketch()
    sketch.output(sketch.map("div", sketch.reduce("sum", _images(sketch, shape), *axes), 2.0))
    assert _sums(sketch) == [sums]


def test_unknown_sizes() -> None:
    sketch = Sketch()
    sketch.output(sketch.reduce("sum", _images(sketch, ("n", "h", "w", 6)), 1, 2))
    assert len(_sums(sketch)) == 1


@pytest.mark.parametrize("axes", [(1,), (2,), (0, 1, 2), (1, 2, 3)])
def test_sums_over_other_axes_read_memory(axes: tuple[int, ...]) -> None:
    sketch = Sketch()
    sketch.output(sketch.reduce("sum", _images(sketch, (2, 14, 14, 6)), *axes))
    assert _sums(sketch) == []


@pytest.mark.parametrize("part", [((0, 1, 14), (0, 1, 7)), ((0, 2, 7), (0, 1, 14)), ((5, 1, 1), (0, 1, 14))])
def test_sums_over_a_part_read_memory(part: tuple[tuple[int, int, int], ...]) -> None:
    sketch = Sketch()
    images = _images(sketch, (1, 14, 14, 6))
    sketch.output(sketch.reduce("sum", sketch.slice(images, (0, 1, 1), *part, (0, 1, 6)), 1, 2))
    assert _sums(sketch) == []


@pytest.mark.parametrize("kind", ["max", "prod"])
def test_other_reductions_read_memory(kind: str) -> None:
    sketch = Sketch()
    sketch.output(sketch.reduce(kind, _images(sketch, (1, 14, 14, 6)), 1, 2))
    assert _sums(sketch) == []


@pytest.mark.parametrize("size", [(1, 1), (3, 1), (1, 7)])
def test_images_of_few_pixels_read_memory(size: tuple[int, int]) -> None:
    sketch = Sketch()
    sketch.output(sketch.reduce("sum", _images(sketch, (1, *size, 6)), 1, 2))
    assert _sums(sketch) == []


def test_a_second_sum_reads_memory() -> None:
    sketch = Sketch()
    images = _images(sketch, (1, 14, 14, 6))
    total = sketch.reduce("sum", images, 1, 2)
    squares = sketch.reduce("sum", sketch.map("mul", images, images), 1, 2)
    sketch.output(total, squares)
    assert _sums(sketch) == [(1, 14, 2, 6)]
