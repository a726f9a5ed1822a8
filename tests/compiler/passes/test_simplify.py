"""Divisions whose quotient only erf reads."""

from __future__ import annotations

import pytest
from tests.graphs import Sketch, normal
from tests.interpreter import HOST

from onnxsmith_compiler.options import CompileOptions
from onnxsmith_compiler.pipeline import run_passes


def _operators(sketch: Sketch) -> list[str]:
    return [node.op.name for node in run_passes(sketch.graph(), CompileOptions(), HOST).nodes]


def test_the_argument_of_erf_is_multiplied() -> None:
    sketch = Sketch()
    x = sketch.fed(normal(3, 5))
    sketch.output(sketch.map("mul", x, sketch.map("add", sketch.map("erf", sketch.map("div", x, 1.4142135)), 1.0)))
    assert "div" not in _operators(sketch)
    sketch.check(tolerance=1e-6)


@pytest.mark.parametrize("divisor", [0.0, 1e-45])
def test_a_reciprocal_that_is_not_finite(divisor: float) -> None:
    sketch = Sketch()
    sketch.output(sketch.map("erf", sketch.map("div", sketch.fed(normal(3, 5)), divisor)))
    assert "div" in _operators(sketch)
    sketch.check()


def test_a_quotient_that_is_read_elsewhere_is_exact() -> None:
    sketch = Sketch()
    quotient = sketch.map("div", sketch.fed(normal(3, 5)), 3.0)
    sketch.output(sketch.map("erf", quotient), quotient)
    assert "div" in _operators(sketch)
    sketch.check()
    sketch = Sketch()
    quotient = sketch.map("div", sketch.fed(normal(3, 5)), 3.0)
    sketch.output(sketch.map("add", sketch.map("erf", quotient), quotient))
    assert "div" in _operators(sketch)
