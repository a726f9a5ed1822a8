"""Squeeze and excite: sums that come out of the depthwise kernel, and gates in the weights of the next convolution."""

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
from onnxsmith_compiler.codegen.pixel_sums import summed_pixels
from onnxsmith_compiler.codegen.target import Target
from onnxsmith_compiler.onnx.importer import import_model
from onnxsmith_compiler.onnx.loader import load_model
from onnxsmith_compiler.ops.pointwise import Pointwise
from onnxsmith_compiler.options import CompileOptions
from onnxsmith_compiler.pipeline import Lowered, lower_model, print_steps, run_passes
from onnxsmith_compiler.schedule.fusion import schedule
from onnxsmith_compiler.schedule.groups import ContractGroup
from tests.compiling import Array, Compiler, executor_of, run_named
from tests.graphs import normal
from tests.interpreter import run_steps
from tests.models.builder import Net, Value


@dataclass(frozen=True)
class Block:
    """1 by 1 to `channels`, depthwise, squeeze to `reduced` and excite, 1 by 1 to `outputs`."""

    height: int
    width: int
    channels: int
    outputs: int
    kernel: int = 3
    stride: int = 1
    reduced: int = 4
    activation: Callable[[Value], Value] = Value.relu
    gate: Callable[[Value], Value] = Value.sigmoid
    batch: int | str = 1
    residual: bool = False

    def net(self) -> Net:
        net = Net("block", seed=self.channels)
        x = net.input("x", (self.batch, 6, self.height, self.width))
        wide = self.activation(x.conv(self.channels, 1, bias=True))
        moved = self.activation(wide.depthwise(self.kernel, self.stride, bias=True))
        squeezed = moved.global_average() if self.stride == 1 else moved.mean((2, 3), keepdims=True)
        gate = self.gate(self.activation(squeezed.conv(self.reduced, 1, bias=True)).conv(self.channels, 1, bias=True))
        if self.residual:
            net.output("y", (moved * gate + wide).relu())
        else:
            net.output("y", (moved * gate).conv(self.outputs, 1, bias=True))
        return net

    def feed(self, batch: int) -> dict[str, Array]:
        return {"x": normal(batch, 6, self.height, self.width, seed=batch)}


BLOCKS = (
    Block(24, 24, 32, 16),
    Block(17, 30, 40, 12, kernel=5, stride=2, batch=2, activation=Value.silu),
    Block(13, 29, 65, 24, kernel=7, batch=3, gate=Value.hard_sigmoid),
    Block(9, 9, 33, 70, activation=Value.hard_swish),
    Block(14, 15, 48, 1, residual=True, batch=2),
    Block(1, 20, 17, 5),
    Block(3, 3, 20, 8, gate=Value.hard_sigmoid),
)
by_size = pytest.mark.parametrize("block", BLOCKS, ids=lambda block: f"{block.height}x{block.width}x{block.channels}")


def _lower(net: Net, target: Target, options: CompileOptions | None = None) -> Lowered:
    return lower_model(load_model(net.model().SerializeToString()), options or CompileOptions(), target)


def _run(compiler: Compiler, lowered: Lowered, feed: dict[str, Array]) -> list[Array]:
    """The output on one thread, and on two."""
    model = compiler.link(lowered, compiler.pool.compile(step.kernel.source for step in lowered.steps))
    return [run_named(executor_of(model, threads), feed)[0] for threads in (1, 2)]


def _sums(lowered: Lowered) -> int:
    return sum(isinstance(group, ContractGroup) and group.sums is not None for group in lowered.schedule.groups)


def _scales_map(lowered: Lowered, block: Block) -> bool:
    """Whether the depthwise result, all its pixels, is multiplied by the gate."""
    products = [node.output for node in lowered.graph.nodes if node.op == Pointwise("mul")]
    return any(len(set(product.shape[1:3]) - {1}) > 0 and product.shape[-1] == block.channels for product in products)


def _shift_cut(lowered: Lowered, number: int) -> Lowered:
    """The same steps, each cut by its other tiling `number`, if it has so many."""
    steps = []
    for step in lowered.steps:
        others = step.alternatives()
        steps.append(dataclasses.replace(step, kernel=others[number]) if number < len(others) else step)
    return dataclasses.replace(lowered, steps=tuple(steps))


@by_size
def test_results_are_those_of_single_operators(compiler: Compiler, block: Block) -> None:
    assert isinstance(block.batch, int)
    plain = _run(
        compiler, _lower(block.net(), compiler.target, CompileOptions(optimization_level=0)), block.feed(block.batch)
    )
    fused = _run(compiler, _lower(block.net(), compiler.target), block.feed(block.batch))
    np.testing.assert_allclose(fused[0], plain[0], rtol=1e-4, atol=1e-5)
    np.testing.assert_array_equal(fused[0], fused[1])


@by_size
def test_bits_do_not_depend_on_how_work_is_cut(
    compiler: Compiler, block: Block, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert isinstance(block.batch, int)
    lowered = _lower(block.net(), compiler.target)
    monkeypatch.setattr(pipeline, "expands_in_depthwise", lambda target, lesser, *groups: can_expand(target, *groups))
    versions = [lowered, *(_shift_cut(lowered, number) for number in range(4))]
    if not block.residual:
        versions += [_lower(block.net(), dataclasses.replace(compiler.target, l2=l2)) for l2 in (1 << 12, 1 << 21)]
        assert "expanded_depthwise" in [step.label for step in versions[-1].steps]
    assert {_sums(version) for version in versions} == {1}
    results = [result for version in versions for result in _run(compiler, version, block.feed(block.batch))]
    for result in results[1:]:
        np.testing.assert_array_equal(result, results[0])


def test_a_batch_does_not_change_its_images(compiler: Compiler) -> None:
    block = dataclasses.replace(BLOCKS[0], batch="batch")
    lowered = _lower(block.net(), compiler.target)
    assert _sums(lowered) == 1
    assert not _scales_map(lowered, block)
    feed = block.feed(3)
    together = _run(compiler, lowered, feed)[1]
    fixed = _run(compiler, _lower(dataclasses.replace(block, batch=3).net(), compiler.target), feed)[0]
    np.testing.assert_array_equal(fixed, together)
    for number in range(3):
        alone = _run(compiler, lowered, {"x": feed["x"][number : number + 1]})[0]
        np.testing.assert_array_equal(alone[0], together[number])
    assert _run(compiler, lowered, {"x": feed["x"][:0]})[0].shape == (0, 16, 24, 24)


@pytest.mark.parametrize(("block", "scales"), [(BLOCKS[0], False), (BLOCKS[3], True)])
def test_weights_take_the_gate_where_they_are_few(compiler: Compiler, block: Block, scales: bool) -> None:
    assert _scales_map(_lower(block.net(), compiler.target), block) == scales


def test_bfloat16_weights(compiler: Compiler) -> None:
    lowered = _lower(BLOCKS[0].net(), compiler.target, CompileOptions(precision="bf16"))
    plain = _lower(BLOCKS[0].net(), compiler.target)
    for result in _run(compiler, lowered, BLOCKS[0].feed(1)):
        np.testing.assert_allclose(result, _run(compiler, plain, BLOCKS[0].feed(1))[0], rtol=0.05, atol=0.05)


@pytest.mark.parametrize(("kernel", "dtype"), [(4, np.float32), (3, np.float64)])
def test_windows_without_a_tile_are_added_up_from_memory(compiler: Compiler, kernel: int, dtype: Any) -> None:
    net = Net("pool")
    x = net.input("x", (1, 32, 14, 14), dtype)
    size = 15 - kernel
    weights = normal(32, 1, kernel, kernel).astype(dtype)
    moved = net.node("Conv", [x, net.weight(weights)], (1, 32, size, size), group=32)
    net.output("y", moved.global_average(), dtype)
    lowered = _lower(net, compiler.target)
    assert _sums(lowered) == 0
    image = normal(1, 32, 14, 14).astype(dtype)
    windows = np.lib.stride_tricks.sliding_window_view(image[0], (kernel, kernel), (1, 2))
    expected = np.einsum("cyxij,cij->c", windows.astype(np.float64), weights[:, 0].astype(np.float64)) / size**2
    np.testing.assert_allclose(_run(compiler, lowered, {"x": image})[0].reshape(-1), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("level", ["v2", "v3", "v4"])
@pytest.mark.parametrize("expands", [False, True])
def test_text_runs_uncompiled_for_other_vectors(level: Literal["v2", "v3", "v4"], expands: bool) -> None:
    """Packed and scheduled for v4's vectors: the sums are of as many pixels at each level."""
    block, best, target = Block(5, 9, 20, 2), Target.generic_x86_64("v4"), Target.generic_x86_64(level)
    graph = import_model(load_model(block.net().model().SerializeToString())).graph
    graph = run_passes(graph, CompileOptions(), best)
    absorbs = partial(can_expand, best) if expands else lambda product, group: False
    results = []
    for sums in (lambda group: None, partial(summed_pixels, best, (target,))):
        scheduled = schedule(graph, True, absorbs, sums)
        steps = print_steps(graph, scheduled, target)
        results += run_steps(graph, steps, scheduled.aliases, block.feed(1))
    assert any(isinstance(group, ContractGroup) and group.sums is not None for group in scheduled.groups)
    np.testing.assert_allclose(*results, rtol=1e-5, atol=1e-6)


def test_work_counts_the_sums(compiler: Compiler, monkeypatch: pytest.MonkeyPatch) -> None:
    fused = _lower(BLOCKS[0].net(), compiler.target).steps
    monkeypatch.setattr(pipeline, "summed_pixels", lambda target, lesser, group: None)
    apart = _lower(BLOCKS[0].net(), compiler.target).steps
    added, written = 24 * 4 * 32, 24 * 24 * 32
    flops = [sum(step.work.flops for step in steps) for steps in (fused, apart)]
    assert flops[0] - flops[1] == added
    traffic = [sum(step.work.traffic(lambda value: value) for step in steps) for steps in (fused, apart)]
    assert traffic[1] - traffic[0] == 4 * (written - 2 * added)
