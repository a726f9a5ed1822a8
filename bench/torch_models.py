"""Builds the vision, transformer and recurrent models in torch and exports them to ONNX."""

from __future__ import annotations

import functools
import logging
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from bench.catalog import ZooModel, images, token_ids
from bench.liveness import assert_alive, calibrate_batch_norms, enliven

OPSET = 17
IMAGE_SIZE = 224
HIDDEN = 256
STEPS = 64


@dataclass(frozen=True)
class Exportable:
    """A live model with what the exporter needs to know about its border."""

    module: nn.Module
    inputs: tuple[Tensor, ...]
    input_names: tuple[str, ...]
    output_names: tuple[str, ...]
    dynamic_axes: Mapping[str, Mapping[int, str]]


def export(model: ZooModel, path: Path) -> None:
    """Builds `model`, checks that every weight matters, and writes it to `path`."""
    torch.manual_seed(0)
    exportable = BUILDERS[model.family](model)
    assert_alive(exportable.module, exportable.inputs)
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            exportable.module,
            exportable.inputs,
            str(path),
            input_names=list(exportable.input_names),
            output_names=list(exportable.output_names),
            dynamic_axes={name: dict(axes) for name, axes in exportable.dynamic_axes.items()},
            opset_version=OPSET,
            dynamo=False,
        )


def timm_model(model: ZooModel) -> Exportable:
    declare_torchvision_operators()
    import timm

    module = timm.create_model(model.name, pretrained=False, exportable=True)
    enliven(module, seed=1)
    calibrate_batch_norms(module, [torch.from_numpy(images(8, 3, IMAGE_SIZE, seed=2))])
    picture = torch.from_numpy(images(1, 3, IMAGE_SIZE, seed=0))
    return Exportable(module, (picture,), ("image",), ("logits",), {})


@functools.cache
def declare_torchvision_operators() -> None:
    """Lets timm and transformers import a torchvision whose compiled part does not load.

    Beside a CPU build of torch it does not, and torchvision then fails at import, where it registers fake
    kernels for two operators that its compiled part would have declared.
    """
    for name in ("nms", "qnms"):
        torch.library.define(f"torchvision::{name}", "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")


class Outputs(nn.Module):
    """A transformers model with positional inputs and a tuple of tensors as its result."""

    def __init__(self, model: nn.Module, input_names: tuple[str, ...], output_names: tuple[str, ...]) -> None:
        super().__init__()
        self.model = model
        self.input_names = input_names
        self.output_names = output_names

    def forward(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        result = self.model(**dict(zip(self.input_names, inputs, strict=True)))
        return tuple(result[name] for name in self.output_names)


@dataclass(frozen=True)
class Transformer:
    """A model of the transformers library at its default size, named by its classes; `length` in tokens."""

    config: str
    model: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    length: int


BERT = Transformer(
    "BertConfig",
    "BertModel",
    ("input_ids", "attention_mask", "token_type_ids"),
    ("last_hidden_state", "pooler_output"),
    128,
)
TRANSFORMERS = {
    "bert-base": BERT,
    "bert-base-symbolic": BERT,
    "distilbert": Transformer(
        "DistilBertConfig", "DistilBertModel", ("input_ids", "attention_mask"), ("last_hidden_state",), 128
    ),
    "gpt2": Transformer("GPT2Config", "GPT2LMHeadModel", ("input_ids", "attention_mask"), ("logits",), 64),
}
# The axes that are symbolic where a model has symbols.
DYNAMIC_AXES = {
    "input_ids": {0: "batch", 1: "sequence"},
    "attention_mask": {0: "batch", 1: "sequence"},
    "token_type_ids": {0: "batch", 1: "sequence"},
    "last_hidden_state": {0: "batch", 1: "sequence"},
    "pooler_output": {0: "batch"},
}


def transformer_model(model: ZooModel) -> Exportable:
    declare_torchvision_operators()
    import transformers

    logging.getLogger("transformers").setLevel(logging.ERROR)
    kind = TRANSFORMERS[model.name]
    config = getattr(transformers, kind.config)(attn_implementation="eager")
    config.use_cache = False
    module = Outputs(getattr(transformers, kind.model)(config), kind.inputs, kind.outputs).eval()
    enliven(module, seed=1)
    ids = torch.from_numpy(token_ids(1, kind.length, seed=0))
    kinds = torch.from_numpy(token_ids(1, kind.length, seed=1, vocabulary=2))
    inputs = (ids, torch.ones_like(ids), kinds)[: len(kind.inputs)]
    return Exportable(module, inputs, kind.inputs, kind.outputs, DYNAMIC_AXES if model.sizes else {})


class DecodeStep(nn.Module):
    """One token through a decoder: (ids [1, 1], keys and values of each layer [1, heads, past, width]) to the logits
    and the keys and values with the token's own."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, ids: Tensor, *past: Tensor) -> tuple[Tensor, ...]:
        from transformers import DynamicCache

        cache = DynamicCache()
        for layer in range(len(past) // 2):
            cache.update(past[2 * layer], past[2 * layer + 1], layer)
        result = self.model(input_ids=ids, past_key_values=cache, use_cache=True)
        present = [tensor for layer in result.past_key_values.layers for tensor in (layer.keys, layer.values)]
        return (result.logits, *present)


def decoder_model(model: ZooModel) -> Exportable:
    declare_torchvision_operators()
    import transformers

    logging.getLogger("transformers").setLevel(logging.ERROR)
    config = transformers.GPT2Config(attn_implementation="eager")
    module = DecodeStep(transformers.GPT2LMHeadModel(config)).eval()
    enliven(module, seed=1)
    generator = torch.Generator().manual_seed(0)
    shape = (1, config.n_head, model.sizes["past"], config.n_embd // config.n_head)
    past = tuple(torch.randn(shape, generator=generator) for _ in range(2 * config.n_layer))
    numbers = range(config.n_layer)
    before = tuple(f"{kind}.{number}" for number in numbers for kind in ("past_key", "past_value"))
    after = tuple(name.replace("past", "present") for name in before)
    axes = {name: {2: "past"} for name in before}
    ids = torch.from_numpy(token_ids(1, 1, seed=0))
    return Exportable(module, (ids, *past), ("input_ids", *before), ("logits", *after), axes)


class FirstOutput(nn.Module):
    """A recurrent network's sequence of outputs [steps, batch, hidden], without the final states."""

    def __init__(self, recurrent: nn.LSTM | nn.GRU) -> None:
        super().__init__()
        self.recurrent = recurrent

    def forward(self, sequence: Tensor) -> Tensor:
        result: Tensor = self.recurrent(sequence)[0]
        return result


def recurrent_model(model: ZooModel) -> Exportable:
    kind = {"lstm": nn.LSTM, "gru": nn.GRU}[model.name]
    module = FirstOutput(kind(HIDDEN, HIDDEN, num_layers=2)).eval()
    enliven(module, seed=1)
    sequence = torch.randn(STEPS, 1, HIDDEN, generator=torch.Generator().manual_seed(0))
    return Exportable(module, (sequence,), ("sequence",), ("output",), {})


BUILDERS = {
    "timm": timm_model,
    "transformer": transformer_model,
    "decoder": decoder_model,
    "recurrent": recurrent_model,
}
