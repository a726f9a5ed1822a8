"""reshape_index on random shapes with symbolic sizes: the element has the same row-major offset in both shapes."""

from __future__ import annotations

import random

import pytest

from onnxsmith_compiler.ir import dim as dims
from onnxsmith_compiler.ir import loop
from onnxsmith_compiler.ir.atom import Atom, LoopIndex, Symbol
from onnxsmith_compiler.ir.dim import Dim
from onnxsmith_compiler.ops.view import reshape_index

Values = dict[str, int]


def factors(number: int, choose: random.Random) -> list[Dim]:
    """Sizes whose product is `number`, some of them 1."""
    primes = [prime for prime in (2, 3, 5, 7) for power in range(1, 7) if number % prime**power == 0]
    choose.shuffle(primes)
    sizes: list[Dim] = []
    while primes:
        size = 1
        for _ in range(choose.randint(1, len(primes))):
            size *= primes.pop()
        sizes.append(size)
    for _ in range(choose.randint(0, 2)):
        sizes.insert(choose.randint(0, len(sizes)), 1)
    return sizes


def multiply(sizes: list[Dim], symbol: Dim, choose: random.Random) -> None:
    """Puts a symbolic factor into one of the sizes, or among them."""
    if sizes and choose.random() < 0.5:
        place = choose.randrange(len(sizes))
        sizes[place] = sizes[place] * symbol
    else:
        sizes.insert(choose.randint(0, len(sizes)), symbol)


def evaluated(position: Dim, place: list[int], values: Values) -> Dim:
    def value(atom: Atom) -> Dim | None:
        if isinstance(atom, LoopIndex):
            return place[int(atom.name[1:])]
        return values[atom.name] if isinstance(atom, Symbol) else None

    return dims.substitute(position, value)


@pytest.mark.parametrize("seed", range(20))
def test_offsets_agree(seed: int) -> None:
    choose = random.Random(seed)
    for _ in range(50):
        number = choose.choice([1, 2, 6, 12, 24, 36, 60, 64, 30, 105])
        before, after = factors(number, choose), factors(number, choose)
        values: Values = {}
        for count in range(choose.randint(0, 3)):
            values[f"s{count}"] = choose.choice([1, 2, 3, 5])
            multiply(before, dims.symbol(f"s{count}"), choose)
            multiply(after, dims.symbol(f"s{count}"), choose)
        index = reshape_index(tuple(after), tuple(before), loop.index_of(loop.axes_for(tuple(after))))
        sizes = [dims.evaluate(size, values) for size in before]
        for _ in range(5):
            place = [choose.randrange(dims.evaluate(size, values)) for size in after]
            found = [evaluated(position, place, values) for position in index]
            context = f"{before} to {after} with {values} at {place}: {index}"
            assert all(0 <= p < size for p, size in zip(found, sizes, strict=True)), context  # type: ignore[operator]
            offset = loop.linear_offset(tuple(after), tuple(place))
            assert loop.linear_offset(tuple(sizes), tuple(found)) == evaluated(offset, place, values), context


@pytest.mark.parametrize(
    ("before", "after"),
    [((0, 3), (3, 0)), ((0,), (0, 5)), ((2, 0, 3), (0,)), ((4, 0, 2), (0, 0, 5)), ((), (1, 1)), ((1, 1), ())],
)
def test_empty_tensors_and_scalars(before: tuple[int, ...], after: tuple[int, ...]) -> None:
    assert len(reshape_index(after, before, loop.index_of(loop.axes_for(after)))) == len(before)
