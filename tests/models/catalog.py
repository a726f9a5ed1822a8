"""Every architecture of this package at its test size, and values to feed it."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from tests.models import attention, convolutional, recurrent


@dataclass(frozen=True)
class SmallModel:
    """A model to compare engines on; `sizes` lists the values that its symbols take, one mapping a run."""

    name: str
    build: Callable[[], onnx.ModelProto]
    sizes: tuple[Mapping[str, int], ...] = field(default=({},))

    @functools.cached_property
    def proto(self) -> onnx.ModelProto:
        return self.build()

    def feeds(self, seed: int = 0) -> list[dict[str, NDArray[Any]]]:
        """One feed for each of `sizes`."""
        return [make_feed(self.proto, sizes, seed) for sizes in self.sizes]


MODELS = (
    SmallModel("resnet18", convolutional.resnet18),
    SmallModel(
        "resnet18-batch",
        functools.partial(convolutional.resnet18, batch="batch"),
        ({"batch": 3}, {"batch": 1}),
    ),
    SmallModel("resnet50", convolutional.resnet50),
    SmallModel("mobilenet_v2", convolutional.mobilenet_v2),
    SmallModel("mobilenet_v3", convolutional.mobilenet_v3),
    SmallModel("efficientnet", convolutional.efficientnet),
    SmallModel("densenet", convolutional.densenet),
    SmallModel("vgg", convolutional.vgg),
    SmallModel("convnext", convolutional.convnext),
    SmallModel("vit", attention.vit),
    SmallModel("swin", attention.swin),
    SmallModel("bert", functools.partial(attention.bert, batch=1, tokens=16)),
    SmallModel("bert-symbolic", attention.bert, ({"batch": 2, "sequence": 9}, {"batch": 1, "sequence": 16})),
    SmallModel("gpt2", attention.gpt2, ({"tokens": 12}, {"tokens": 5})),
    SmallModel("lstm", recurrent.lstm),
    SmallModel("lstm-bidirectional", functools.partial(recurrent.lstm, bidirectional=True)),
    SmallModel("gru", recurrent.gru),
    SmallModel("gru-bidirectional", functools.partial(recurrent.gru, bidirectional=True)),
)
BY_NAME = {model.name: model for model in MODELS}


def make_feed(proto: onnx.ModelProto, sizes: Mapping[str, int], seed: int) -> dict[str, NDArray[Any]]:
    """Normal floats, images with coarse structure, small token numbers, masks that hide some last tokens."""
    rng = np.random.default_rng(seed)
    feed: dict[str, NDArray[Any]] = {}
    for value in proto.graph.input:
        tensor = value.type.tensor_type
        shape = [sizes[dim.dim_param] if dim.dim_param else dim.dim_value for dim in tensor.shape.dim]
        if value.name == "attention_mask":
            feed[value.name] = np.sort(rng.random(shape) > 0.25, axis=1)[:, ::-1].astype(np.int64)
            feed[value.name][:, 0] = 1
        elif tensor.elem_type == onnx.TensorProto.INT64:
            feed[value.name] = rng.integers(0, 2 if value.name == "token_type_ids" else 100, shape)
        elif len(shape) == 4:
            feed[value.name] = images(rng, *shape)
        else:
            feed[value.name] = rng.standard_normal(shape).astype(np.float32)
    return feed


def images(rng: np.random.Generator, count: int, channels: int, height: int, width: int) -> NDArray[np.float32]:
    """Normal, with most of the variance in patches of 8x8: pooling would see the same in all white noise."""
    patches = rng.standard_normal((count, channels, -(-height // 8), -(-width // 8))).repeat(8, 2).repeat(8, 3)
    fine = rng.standard_normal((count, channels, height, width))
    return (0.8 * patches[:, :, :height, :width] + 0.6 * fine).astype(np.float32)
