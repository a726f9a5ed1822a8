"""The models that the benchmark runs: their names, files, and the inputs they are fed.

Nothing here imports torch: the benchmark reads finished ONNX files, which `bench.zoo` makes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

DEFAULT_FOLDER = Path(__file__).resolve().parent.parent / "build" / "zoo"

Array = NDArray[Any]
Feed = dict[str, Array]


@dataclass(frozen=True)
class ZooModel:
    """One row of the benchmark: an ONNX file, and the sizes that its symbolic dimensions take.

    `family` names what builds the file ("timm", "transformer", "decoder", "recurrent", "digits"); `file` is its name
    where that is not the row's.
    """

    name: str
    family: str
    sizes: Mapping[str, int] = field(default_factory=dict)
    file: str = ""

    def path(self, folder: Path) -> Path:
        """Where the ONNX file is, or will be, in the zoo's folder."""
        return folder / f"{self.file or self.name}.onnx"


TIMM_NAMES = (
    "resnet50",
    "resnet18",
    "mobilenetv2_100",
    "mobilenetv3_large_100",
    "efficientnet_b0",
    "densenet121",
    "convnext_tiny",
    "vgg16",
    "vit_small_patch16_224",
    "vit_base_patch16_224",
    "swin_tiny_patch4_window7_224",
)
TRANSFORMER_NAMES = ("bert-base", "distilbert", "gpt2")
RECURRENT_NAMES = ("lstm", "gru")
DIGITS_NAMES = ("digits-linear", "digits-mlp", "digits-forest", "digits-boosting", "digits-svc")
DIGITS_ROWS = 1797

MODELS = (
    *(ZooModel(name, "timm") for name in TIMM_NAMES),
    *(ZooModel(name, "transformer") for name in TRANSFORMER_NAMES),
    ZooModel("bert-base-symbolic", "transformer", {"batch": 1, "sequence": 100}),
    ZooModel("gpt2-decode", "decoder", {"past": 128}),
    *(ZooModel(name, "recurrent") for name in RECURRENT_NAMES),
    *(ZooModel(name, "digits", {"batch": 1}) for name in DIGITS_NAMES),
    *(ZooModel(f"{name}, {DIGITS_ROWS} rows", "digits", {"batch": DIGITS_ROWS}, name) for name in DIGITS_NAMES),
)
# The kernels of many layers are the same in models of one family: what is compiled before, with an empty cache.
RELATIVES = {
    "resnet18": "resnet50",
    "mobilenetv3_large_100": "mobilenetv2_100",
    "vit_small_patch16_224": "vit_base_patch16_224",
    "distilbert": "bert-base",
    "bert-base-symbolic": "bert-base",
    "gpt2-decode": "gpt2",
    "gru": "lstm",
}
BY_NAME = {model.name: model for model in MODELS}


def select(names: Sequence[str]) -> list[ZooModel]:
    """The models called `names`, or all of them; KeyError lists what there is."""
    unknown = sorted(set(names) - set(BY_NAME))
    if unknown:
        raise KeyError(f"no bench model is called {', '.join(unknown)}; there are: {', '.join(BY_NAME)}")
    return [BY_NAME[name] for name in names] if names else list(MODELS)


def images(count: int, channels: int, size: int, seed: int) -> NDArray[np.float32]:
    """[count, channels, size, size] normal images with both coarse and fine structure.

    White noise alone averages out over a large image, so that a network sees the same thing in every
    image; most of the variance is therefore in a 7x7 grid of patches.
    """
    rng = np.random.default_rng(seed)
    patch = -(-size // 7)
    coarse = rng.standard_normal((count, channels, 7, 7)).repeat(patch, 2).repeat(patch, 3)
    fine = rng.standard_normal((count, channels, size, size))
    return (0.8 * coarse[:, :, :size, :size] + 0.6 * fine).astype(np.float32)


def token_ids(batch: int, length: int, seed: int, vocabulary: int = 30000) -> NDArray[np.int64]:
    """[batch, length] tokens."""
    return np.random.default_rng(seed).integers(0, vocabulary, (batch, length))


def digits(rows: int) -> NDArray[np.float32]:
    """The first rows of scikit-learn's digits, [rows, 64] with values 0 to 16."""
    from sklearn.datasets import load_digits

    data: NDArray[np.float64] = load_digits().data
    return data[:rows].astype(np.float32)


def make_feed(model: ZooModel, inputs: Sequence[tuple[str, Sequence[int | str]]], seed: int = 0) -> Feed:
    """Values for the model's `inputs`, given as (name, declared shape) pairs."""
    feed: Feed = {}
    for name, declared in inputs:
        shape = [size if isinstance(size, int) else model.sizes[size] for size in declared]
        if name == "input_ids":
            feed[name] = token_ids(shape[0], shape[1], seed)
        elif name == "attention_mask":
            feed[name] = np.ones(shape, np.int64)
        elif name == "token_type_ids":
            feed[name] = token_ids(shape[0], shape[1], seed, vocabulary=2)
        elif model.family == "timm":
            feed[name] = images(shape[0], shape[1], shape[2], seed)
        elif model.family == "digits":
            feed[name] = digits(shape[0])
        else:
            feed[name] = np.random.default_rng(seed).standard_normal(shape).astype(np.float32)
    return feed
