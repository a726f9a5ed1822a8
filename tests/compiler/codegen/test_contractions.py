"""Contractions fitted to their templates: batches, broadcasts and epilogues."""

from __future__ import annotations

import pytest
from tests.graphs import Sketch, normal

from onnxsmith_compiler.ir import dtype as dtypes

BATCHES = [
    ((), ()),
    ((2,), ()),
    ((), (2,)),
    ((2,), (2,)),
    ((1,), (3,)),
    ((3,), (1,)),
    ((2, 3), (3,)),
    ((2, 1), (1, 3)),
    ((1, 3), (2, 1)),
    ((2, 1, 2), (3, 1)),
    ((2, 1, 2, 1), (1, 3, 1, 2)),
    ((0, 2), (2,)),
    ((0,), (1,)),
]


@pytest.mark.parametrize("symbolic", [False, True])
@pytest.mark.parametrize(("left", "right"), BATCHES)
def test_batches_broadcast(left: tuple[int, ...], right: tuple[int, ...], symbolic: bool) -> None:
    """With symbols, which sizes are 1 is known only when the kernel runs."""
    sketch = Sketch()
    names_a = [f"a{axis}" for axis in range(len(left))] if symbolic else []
    names_b = [f"b{axis}" for axis in range(len(right))] if symbolic else []
    a = sketch.fed(normal(*left, 2, 3, seed=1), *names_a)
    b = sketch.fed(normal(*right, 3, 5, seed=2), *names_b)
    sketch.output(sketch.matmul(a, b))
    sketch.check()


def test_a_batch_of_unknown_size_meets_a_known_one() -> None:
    for left, right in ((5, 1), (5, 5)):
        sketch = Sketch()
        a, b = sketch.fed(normal(left, 3, 4)), sketch.fed(normal(right, 4, 6), "n")
        sketch.output(sketch.matmul(a, b), sketch.map("neg", sketch.matmul(a, b)))
        sketch.check()


@pytest.mark.parametrize("rows", [0, 1, 3])
def test_inner_size_of_zero_gives_zeros(rows: int) -> None:
    sketch = Sketch()
    a, b = sketch.fed(normal(rows, 0), "m", "k"), sketch.fed(normal(0, 4), "k")
    sketch.output(sketch.map("add", sketch.matmul(a, b), 1.0))
    sketch.check()


def test_narrow_floats_are_multiplied_in_float32() -> None:
    sketch = Sketch()
    a = sketch.cast(sketch.fed(normal(3, 4), "m"), dtypes.FLOAT16)
    b = sketch.cast(sketch.fed(normal(4, 5)), dtypes.FLOAT16)
    sketch.output(sketch.matmul(a, b))
    sketch.check(tolerance=2e-3)


def test_integers_are_multiplied_by_plain_loops() -> None:
    sketch = Sketch()
    numbers = normal(2, 3, 4).astype("int32"), (100 * normal(4, 5)).astype("int32")
    sketch.output(sketch.matmul(sketch.fed(numbers[0], "b", "m"), sketch.fed(numbers[1])))
    sketch.check()


def test_epilogue_reads_row_column_and_batch() -> None:
    sketch = Sketch()
    product = sketch.matmul(sketch.fed(normal(2, 3, 4), "b"), sketch.fed(normal(2, 4, 5), "b"))
    total = sketch.map("add", product, sketch.fed(normal(5)))
    total = sketch.map("mul", total, sketch.fed(normal(3, 1)))
    sketch.output(sketch.map("sub", total, sketch.fed(normal(2, 1, 1), "b")))
    sketch.check()
