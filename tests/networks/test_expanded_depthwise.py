"""Depthwise convolutions that compute the product they read give the bits of those that read it from memory."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import numpy as np
import pytest

from onnxsmith_compiler import pipeline
from onnxsmith_compiler.codegen.expanded_depthwise import can_expand
from onnxsmith_compiler.codegen.target import Target
from onnxsmith_compiler.onnx.importer import import_model
from onnxsmith_compiler.onnx.loader import load_model
from onnxsmith_compiler.options import CompileOptions
from onnxsmith_compiler.pipeline import Lowered, lower_model, print_steps, run_passes
from onnxsmith_compiler.schedule.fusion import schedule
from tests.compiling import Array, Compiler, executor_of, run_named
from tests.graphs import normal
from tests.interpreter import run_steps
from tests.models.builder import Net, Value

LABEL = "expanded_depthwise"


@dataclass(frozen=True)
class Block:
    """A 1 by 1 convolution from `inputs` to `channels`, and a depthwise one of `kernel` over it."""

    height: int
    width: int
    inputs: int
    channels: int
    kernel: int = 3
    stride: int = 1
    padding: int | None = None
    activation: Callable[[Value], Value] = Value.relu6
    batch: int | str = 1

    def net(self) -> Net:
        net = Net("block", seed=self.channels)
        x = net.input("x", (self.batch, self.inputs, self.height, self.width))
        wide = self.activation(x.conv(self.channels, 1, bias=True))
        moved = wide.conv(self.channels, self.kernel, self.stride, self.padding, self.channels, bias=True)
        net.output("y", self.activation(moved))
        return net

    def feed(self, batch: int) -> dict[str, Array]:
        return {"x": normal(batch, self.inputs, self.height, self.width, seed=batch)}


BLOCKS = (
    Block(14, 14, 16, 96, stride=2),
    Block(9, 15, 24, 144),
    Block(13, 30, 5, 40, kernel=5, stride=2, batch=2),
    Block(8, 9, 8, 12, kernel=7),
    Block(7, 21, 33, 65, padding=0, batch=3),
    Block(5, 4, 3, 17, kernel=5, stride=2),
    Block(11, 12, 8, 33, padding=4, activation=Value.silu),
    Block(1, 1, 4, 32, activation=Value.hard_swish),
)


@pytest.fixture
def wherever_possible(monkeypatch: pytest.MonkeyPatch) -> None:
    """Products are computed by depthwise convolutions wherever they can, though it does not pay."""
    monkeypatch.setattr(pipeline, "expands_in_depthwise", lambda target, lesser, *groups: can_expand(target, *groups))


def _lower(net: Net, target: Target, options: CompileOptions | None = None) -> Lowered:
    return lower_model(load_model(net.model().SerializeToString()), options or CompileOptions(), target)


def _run(compiler: Compiler, lowered: Lowered, feed: dict[str, Array]) -> list[Array]:
    """The output on one thread, and on two."""
    model = compiler.link(lowered, compiler.pool.compile(step.kernel.source for step in lowered.steps))
    return [run_named(executor_of(model, threads), feed)[0] for threads in (1, 2)]


def _labels(lowered: Lowered) -> list[str]:
    return [step.label for step in lowered.steps]


def _sized(target: Target, l2: int) -> Target:
    """The smaller the cache, the fewer lines are in a band."""
    return dataclasses.replace(target, l2=l2)


@pytest.mark.parametrize("block", BLOCKS, ids=lambda block: f"{block.height}x{block.width}x{block.channels}")
def test_bits_of_a_product_in_memory(compiler: Compiler, block: Block, request: pytest.FixtureRequest) -> None:
    assert isinstance(block.batch, int)
    apart = _lower(block.net(), compiler.target)
    assert LABEL not in _labels(apart)
    results = _run(compiler, apart, block.feed(block.batch))
    request.getfixturevalue("wherever_possible")
    for l2 in (1 << 10, 1 << 16, 1 << 21):
        lowered = _lower(block.net(), _sized(compiler.target, l2))
        assert LABEL in _labels(lowered)
        results += _run(compiler, lowered, block.feed(block.batch))
    for result in results[1:]:
        np.testing.assert_array_equal(result, results[0])


@pytest.mark.usefixtures("wherever_possible")
def test_a_batch_does_not_change_its_images(compiler: Compiler) -> None:
    block = Block(9, 16, 16, 48, batch="batch")
    lowered = _lower(block.net(), _sized(compiler.target, 1 << 14))
    assert LABEL in _labels(lowered)
    feed = block.feed(3)
    together = _run(compiler, lowered, feed)[1]
    for number in range(3):
        alone = _run(compiler, lowered, {"x": feed["x"][number : number + 1]})[0]
        np.testing.assert_array_equal(alone[0], together[number])


def test_bfloat16_weights(compiler: Compiler, request: pytest.FixtureRequest) -> None:
    block, options = Block(9, 16, 16, 48), CompileOptions(precision="bf16")
    (apart, _) = _run(compiler, _lower(block.net(), compiler.target, options), block.feed(1))
    request.getfixturevalue("wherever_possible")
    lowered = _lower(block.net(), compiler.target, options)
    assert LABEL in _labels(lowered)
    np.testing.assert_array_equal(_run(compiler, lowered, block.feed(1))[0], apart)


@pytest.mark.parametrize("level", ["v2", "v3", "v4"])
def test_text_runs_uncompiled_for_other_vectors(level: Literal["v2", "v3", "v4"]) -> None:
    """Packed and scheduled for v4's vectors: of narrower ones, a panel is several of the convolution's tiles wide."""
    block, best, target = Block(5, 9, 3, 20, stride=2), Target.generic_x86_64("v4"), Target.generic_x86_64(level)
    graph = import_model(load_model(block.net().model().SerializeToString())).graph
    graph = run_passes(graph, CompileOptions(), best)
    results = []
    for absorbs in (lambda product, group: False, partial(can_expand, best)):
        scheduled = schedule(graph, True, absorbs)
        steps = print_steps(graph, scheduled, target)
        results += run_steps(graph, steps, scheduled.aliases, block.feed(1))
    assert LABEL in [step.label for step in steps]
    np.testing.assert_allclose(*results, rtol=1e-6)


@pytest.mark.usefixtures("wherever_possible")
def test_products_that_others_read_are_stored(compiler: Compiler) -> None:
    for outputs in ("read twice", "an output"):
        net = Net(outputs)
        wide = net.input("x", (1, 16, 14, 14)).conv(96, 1).relu()
        moved = wide.depthwise(3)
        net.output("y", moved + wide if outputs == "read twice" else moved)
        if outputs == "an output":
            net.output("wide", wide)
        assert LABEL not in _labels(_lower(net, compiler.target))


@pytest.mark.usefixtures("wherever_possible")
@pytest.mark.parametrize(("kernel", "dtype"), [(4, np.float32), (3, np.float64)])
def test_windows_without_a_tile_read_memory(compiler: Compiler, kernel: int, dtype: Any) -> None:
    net = Net("block")
    x = net.input("x", (1, 16, 14, 14), dtype)
    wide = net.node("Conv", [x, net.weight(normal(32, 16, 1, 1).astype(dtype))], (1, 32, 14, 14))
    size = 15 - kernel
    moved = net.node(
        "Conv", [wide, net.weight(normal(32, 1, kernel, kernel).astype(dtype))], (1, 32, size, size), group=32
    )
    net.output("y", moved, dtype)
    assert LABEL not in _labels(_lower(net, compiler.target))


@pytest.mark.parametrize(("l2", "expands"), [(1 << 21, True), (1 << 23, False)])
def test_it_pays_where_the_product_leaves_the_cache(compiler: Compiler, l2: int, expands: bool) -> None:
    lowered = _lower(Block(112, 112, 16, 96, stride=2).net(), _sized(compiler.target, l2))
    assert (LABEL in _labels(lowered)) == expands


def test_work_counts_both_and_not_what_lies_between(compiler: Compiler, request: pytest.FixtureRequest) -> None:
    block = Block(14, 14, 16, 96)
    apart = _lower(block.net(), compiler.target).steps
    request.getfixturevalue("wherever_possible")
    fused = _lower(block.net(), compiler.target).steps
    assert sum(step.work.flops for step in fused) == sum(step.work.flops for step in apart)
    traffic = [sum(step.work.traffic(lambda value: value) for step in steps) for steps in (fused, apart)]
    assert traffic[1] - traffic[0] == 2 * 14 * 14 * 96 * 4
