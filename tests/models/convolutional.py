"""Convolutional networks. Defaults run in a few milliseconds; the papers' sizes are arguments."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import onnx

from tests.models.builder import Net, Value, concat

Activation = Callable[[Value], Value]


@dataclass(frozen=True)
class Gate:
    """The two activations of squeeze and excite."""

    squeeze: Activation
    excite: Activation


MOBILE_GATE = Gate(Value.relu, Value.hard_sigmoid)
EFFICIENT_GATE = Gate(Value.silu, Value.sigmoid)


def classify(net: Net, features: Value, classes: int) -> onnx.ModelProto:
    """Pools [n, c, h, w] over the map, adds a linear classifier, and finishes the model."""
    net.output("logits", features.global_average().flatten().gemm(classes))
    return net.model()


def resnet18(
    width: int = 8,
    size: int = 64,
    batch: int | str = 1,
    blocks: Sequence[int] = (2, 2, 2, 2),
    classes: int = 10,
) -> onnx.ModelProto:
    """He et al. 2015, basic blocks. The paper: width 64, size 224."""
    net = Net("resnet18")
    x = resnet_stem(net, width, size, batch)
    for stage, count in enumerate(blocks):
        for index in range(count):
            x = basic_block(x, width << stage, stride=2 if stage and not index else 1)
    return classify(net, x, classes)


def resnet50(
    width: int = 8,
    size: int = 64,
    batch: int | str = 1,
    blocks: Sequence[int] = (3, 4, 6, 3),
    classes: int = 10,
) -> onnx.ModelProto:
    """He et al. 2015, bottleneck blocks. The paper: width 64, size 224."""
    net = Net("resnet50")
    x = resnet_stem(net, width, size, batch)
    for stage, count in enumerate(blocks):
        for index in range(count):
            x = bottleneck(x, width << stage, stride=2 if stage and not index else 1)
    return classify(net, x, classes)


def resnet_stem(net: Net, width: int, size: int, batch: int | str) -> Value:
    image = net.input("image", (batch, 3, size, size))
    return image.conv(width, 7, stride=2).batch_norm().relu().max_pool(3, 2, 1)


def basic_block(x: Value, channels: int, stride: int) -> Value:
    y = x.conv(channels, 3, stride).batch_norm().relu().conv(channels, 3).batch_norm(gain=0.5)
    return (y + shortcut(x, channels, stride)).relu()


def bottleneck(x: Value, channels: int, stride: int) -> Value:
    y = x.conv(channels, 1).batch_norm().relu().conv(channels, 3, stride).batch_norm().relu()
    y = y.conv(channels * 4, 1).batch_norm(gain=0.5)
    return (y + shortcut(x, channels * 4, stride)).relu()


def shortcut(x: Value, channels: int, stride: int) -> Value:
    if stride == 1 and x.size(1) == channels:
        return x
    return x.conv(channels, 1, stride).batch_norm()


def mobilenet_v2(width: int = 8, size: int = 64, batch: int | str = 1, classes: int = 10) -> onnx.ModelProto:
    """Sandler et al. 2018: inverted residuals with ReLU6. The paper: width 32, size 224, 17 blocks."""
    net = Net("mobilenet_v2")
    x = net.input("image", (batch, 3, size, size)).conv(width, 3, stride=2).batch_norm().relu6()
    for expansion, channels, stride in (
        (1, 8, 1),
        (6, 12, 2),
        (6, 12, 1),
        (6, 16, 2),
        (6, 16, 1),
        (6, 24, 1),
    ):
        x = inverted_residual(x, expansion, channels * width // 8, 3, stride, Value.relu6)
    return classify(net, x.conv(width * 8, 1).batch_norm().relu6(), classes)


def mobilenet_v3(width: int = 8, size: int = 64, batch: int | str = 1, classes: int = 10) -> onnx.ModelProto:
    """Howard et al. 2019: squeeze and excite with hard sigmoid, hard swish. The paper: width 16, size 224."""
    net = Net("mobilenet_v3")
    x = net.input("image", (batch, 3, size, size)).conv(width, 3, stride=2).batch_norm().hard_swish()
    x = inverted_residual(x, 1, width, 3, 1, Value.relu)
    x = inverted_residual(x, 4, width * 2, 3, 2, Value.relu)
    x = inverted_residual(x, 3, width * 2, 5, 1, Value.relu, MOBILE_GATE)
    x = inverted_residual(x, 6, width * 4, 5, 2, Value.hard_swish, MOBILE_GATE)
    x = inverted_residual(x, 3, width * 4, 5, 1, Value.hard_swish, MOBILE_GATE)
    return classify(net, x.conv(width * 8, 1).batch_norm().hard_swish(), classes)


def efficientnet(width: int = 8, size: int = 64, batch: int | str = 1, classes: int = 10) -> onnx.ModelProto:
    """Tan and Le 2019: inverted residuals with SiLU and squeeze and excite. The paper: width 32, size 224."""
    net = Net("efficientnet")
    x = net.input("image", (batch, 3, size, size)).conv(width, 3, stride=2).batch_norm().silu()
    for expansion, channels, kernel, stride in (
        (1, 8, 3, 1),
        (6, 12, 3, 2),
        (6, 12, 3, 1),
        (6, 16, 5, 2),
        (6, 16, 5, 1),
    ):
        x = inverted_residual(x, expansion, channels * width // 8, kernel, stride, Value.silu, EFFICIENT_GATE)
    return classify(net, x.conv(width * 8, 1).batch_norm().silu(), classes)


def inverted_residual(
    x: Value,
    expansion: int,
    channels: int,
    kernel: int,
    stride: int,
    activation: Activation,
    gate: Gate | None = None,
) -> Value:
    """Pointwise up, depthwise, pointwise down; with `gate`, squeeze and excite before the last."""
    y = x if expansion == 1 else activation(x.conv(x.size(1) * expansion, 1).batch_norm())
    y = activation(y.depthwise(kernel, stride).batch_norm())
    if gate is not None:
        squeezed = gate.squeeze(y.mean((2, 3), keepdims=True).conv(max(8, x.size(1) // 4), 1, bias=True))
        y = y * gate.excite(squeezed.conv(y.size(1), 1, bias=True))
    y = y.conv(channels, 1).batch_norm()
    return y + x if stride == 1 and x.size(1) == channels else y


def densenet(
    growth: int = 6,
    size: int = 64,
    batch: int | str = 1,
    blocks: Sequence[int] = (3, 4, 3),
    classes: int = 10,
) -> onnx.ModelProto:
    """Huang et al. 2016. DenseNet-121: growth 32, size 224, blocks (6, 12, 24, 16)."""
    net = Net("densenet")
    x = net.input("image", (batch, 3, size, size)).conv(2 * growth, 7, stride=2).batch_norm().relu().max_pool(3, 2, 1)
    for block, layers in enumerate(blocks):
        for _ in range(layers):
            y = x.batch_norm().relu().conv(4 * growth, 1).batch_norm().relu().conv(growth, 3)
            x = concat([x, y], axis=1)
        if block < len(blocks) - 1:
            x = x.batch_norm().relu().conv(x.size(1) // 2, 1).average_pool(2, 2)
    return classify(net, x.batch_norm().relu(), classes)


def vgg(
    width: int = 8, size: int = 64, batch: int | str = 1, blocks: Sequence[int] = (2, 2, 3), classes: int = 10
) -> onnx.ModelProto:
    """Simonyan and Zisserman 2014. VGG-16: width 64, size 224, blocks (2, 2, 3, 3, 3)."""
    net = Net("vgg")
    x = net.input("image", (batch, 3, size, size))
    for block, layers in enumerate(blocks):
        for _ in range(layers):
            x = x.conv(min(width << block, 8 * width), 3, bias=True).relu()
        x = x.max_pool(2, 2)
    net.output("logits", x.flatten().gemm(8 * width).relu().gemm(8 * width).relu().gemm(classes))
    return net.model()


def convnext(
    width: int = 8, size: int = 64, batch: int = 1, blocks: Sequence[int] = (1, 1, 2, 1), classes: int = 10
) -> onnx.ModelProto:
    """Liu et al. 2022, channels last for layer norms. ConvNeXt-T: width 96, size 224, blocks (3, 3, 9, 3)."""
    net = Net("convnext")
    x = channels_first_norm(net.input("image", (batch, 3, size, size)).conv(width, 4, 4, 0, bias=True))
    for stage, count in enumerate(blocks):
        if stage:
            x = channels_first_norm(x).conv(width << stage, 2, 2, 0, bias=True)
        for _ in range(count):
            y = x.depthwise(7, bias=True).transpose(0, 2, 3, 1).layer_norm()
            y = y.linear(4 * x.size(1)).gelu().linear(x.size(1)) * net.scale(x.size(1))
            x = y.transpose(0, 3, 1, 2) + x
    pooled = channels_first_norm(x.global_average())
    net.output("logits", pooled.flatten().gemm(classes))
    return net.model()


def channels_first_norm(x: Value) -> Value:
    """A layer norm over the channels of [n, c, h, w]."""
    return x.transpose(0, 2, 3, 1).layer_norm().transpose(0, 3, 1, 2)
