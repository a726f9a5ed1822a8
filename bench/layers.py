"""Times matrix products and convolutions, layer by layer of known models, against onnxruntime.

Run as `python -m bench.layers [--threads 1] [part of a case's name ...]`. Both engines run alternately in this process;
times are medians. A convolution's model takes and gives channels-first images, so both engines also turn their layout.
After each model comes the sum over its layers, each counted as often as the model has it.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from bench.loops import LoopCase, chain, floats, node, race
from bench.peers import OURS, REFERENCE


@dataclass(frozen=True, eq=False)
class Layer:
    """A layer that its model has `count` times; `work` is its multiply-adds."""

    case: LoopCase
    count: int
    work: int


def conv(count: int, channels: int, size: int, outputs: int, window: int, stride: int = 1, groups: int = 1) -> Layer:
    """A square convolution with bias and Relu, padded to keep its size."""
    weights = floats(outputs, channels // groups, window, window) / np.float32(window * (channels // groups) ** 0.5)
    pads = [window // 2] * 4
    first = node("Conv", "x0 w b", "c", strides=[stride, stride], pads=pads, group=groups)
    kind = f"/{stride}" if stride > 1 else ""
    name = f"conv {channels}x{size}x{size} -> {outputs}, {window}x{window}{kind}{', depthwise' if groups > 1 else ''}"
    x = floats(1, channels, size, size)
    case = chain(name, [first, node("Relu", "c")], [x], [("w", weights), ("b", floats(outputs))])
    positions = ((size - 1) // stride + 1) ** 2
    return Layer(case, count, positions * outputs * weights[0].size)


def dense(count: int, rows: int, depth: int, columns: int) -> Layer:
    """A matrix product with a constant matrix, and a bias."""
    weights = floats(depth, columns) / np.float32(depth**0.5)
    nodes = [node("MatMul", "x0 w", "c"), node("Add", "c b")]
    constants = [("w", weights), ("b", floats(columns))]
    case = chain(f"dense {rows}x{depth}x{columns}", nodes, [floats(1, rows, depth)], constants)
    return Layer(case, count, rows * depth * columns)


def resnet50() -> Iterable[Layer]:
    yield conv(1, 3, 224, 64, 7, 2)
    previous = 64
    for size, width, blocks in ((56, 64, 3), (28, 128, 4), (14, 256, 6), (7, 512, 3)):
        stride = 1 if size == 56 else 2
        larger = size * stride
        yield conv(1, previous, larger, width, 1)
        yield conv(1, width, larger, width, 3, stride)
        yield conv(blocks, width, size, 4 * width, 1)
        yield conv(1, previous, larger, 4 * width, 1, stride)
        yield conv(blocks - 1, 4 * width, size, width, 1)
        yield conv(blocks - 1, width, size, width, 3)
        previous = 4 * width
    yield dense(1, 1, 2048, 1000)


def mobilenetv2() -> Iterable[Layer]:
    yield conv(1, 3, 224, 32, 3, 2)
    yield conv(1, 32, 112, 32, 3, groups=32)
    yield conv(1, 32, 112, 16, 1)
    channels, size = 16, 112
    for outputs, blocks, stride in ((24, 2, 2), (32, 3, 2), (64, 4, 2), (96, 3, 1), (160, 3, 2), (320, 1, 1)):
        for block in range(blocks):
            step = stride if block == 0 else 1
            inner = 6 * channels
            yield conv(1, channels, size, inner, 1)
            yield conv(1, inner, size, inner, 3, step, groups=inner)
            size //= step
            yield conv(1, inner, size, outputs, 1)
            channels = outputs
    yield conv(1, 320, 7, 1280, 1)


def bert_base() -> Iterable[Layer]:
    yield from encoder(128)


def vit_base() -> Iterable[Layer]:
    yield from encoder(197)


def encoder(tokens: int) -> Iterable[Layer]:
    yield dense(48, tokens, 768, 768)
    yield dense(12, tokens, 768, 3072)
    yield dense(12, tokens, 3072, 768)


def decoder_step() -> Iterable[Layer]:
    """One token through the layers of GPT-2: bound by reading the weights."""
    yield dense(12, 1, 768, 2304)
    yield dense(12, 1, 768, 768)
    yield dense(12, 1, 768, 3072)
    yield dense(12, 1, 3072, 768)


MODELS = {
    "resnet50": resnet50,
    "mobilenetv2": mobilenetv2,
    "bert-base": bert_base,
    "vit-base": vit_base,
    "gpt2 step": decoder_step,
}


def distinct(layers: Iterable[Layer]) -> list[Layer]:
    """Layers of the same name as one."""
    found: dict[str, Layer] = {}
    for layer in layers:
        name = layer.case.name
        count = layer.count + (found[name].count if name in found else 0)
        found[name] = Layer(layer.case, count, layer.work)
    return [layer for layer in found.values() if layer.count]


def measure(layer: Layer, threads: int) -> tuple[float, float]:
    """Median seconds of onnxsmith and of onnxruntime."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "case.onnx"
        path.write_bytes(layer.case.model.SerializeToString())
        runs = [engine.open(path, threads) for engine in (OURS, REFERENCE)]
        got, wanted = (run(layer.case.feed)[0] for run in runs)
        np.testing.assert_allclose(got, wanted, rtol=1e-3, atol=1e-3)
        ours, other = race(runs, layer.case.feed)
    return ours, other


def line(name: str, count: int, ours: float, other: float, work: int) -> str:
    rates = f"{2 * work / ours / 1e9:7.1f} {2 * work / other / 1e9:7.1f}"
    return f"{name:48} {count:5} {ours * 1e6:9.0f} {other * 1e6:9.0f} {other / ours:6.2f} {rates}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("parts", nargs="*", help="parts of the names of models or layers")
    options = parser.parse_args()
    print(f"{'layer':48} {'count':>5} {'ours us':>9} {'ort us':>9} {'faster':>6} {'GF/s':>7} {'ort':>7}")
    for model, layers in MODELS.items():
        chosen = [
            layer
            for layer in distinct(layers())
            if not options.parts or any(part in f"{model} {layer.case.name}" for part in options.parts)
        ]
        totals = [0.0, 0.0, 0]
        for layer in chosen:
            ours, other = measure(layer, options.threads)
            print(line(layer.case.name, layer.count, ours, other, layer.work), flush=True)
            for index, value in enumerate((ours, other, layer.work)):
                totals[index] += layer.count * value
        if chosen:
            print(line(f"{model}: all", 1, totals[0], totals[1], int(totals[2])), flush=True)


if __name__ == "__main__":
    main()
