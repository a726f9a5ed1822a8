"""Brings untrained torch networks to life, and proves that they are.

An untrained network is a poor test: zero biases and scales, layer scales of 1e-6 and batch norms that
have seen nothing leave whole branches dead, which an exporter then shares or a compiler folds away.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn

SMALLEST_CHANGE = 1e-3
SMALLEST_CHANGE_BY_INPUT = 0.03
# A bias on the keys of an attention adds the same number to every score of a query, and softmax is
# blind to that: no key bias can change an output.
WITHOUT_EFFECT = ("key.bias", "k_lin.bias")

# Of transformers' BERT and DistilBERT: separate queries and keys, ends of residual branches.
GAINS = (
    ("query.weight", 2.0),
    ("key.weight", 2.0),
    ("q_lin.weight", 2.0),
    ("k_lin.weight", 2.0),
    ("output.dense.", 0.25),
    ("out_lin.", 0.25),
    ("ffn.lin2.", 0.25),
)
# Drawn at 1e-6 and 0.02 by their makers, of order 1 after training.
TOKENS_AND_TABLES = ("cls_token", "relative_position_bias_table")


class DeadWeightError(Exception):
    """A weight tensor that the output does not depend on."""


def enliven(model: nn.Module, seed: int) -> None:
    """Draws every parameter but embeddings anew.

    Scales come from U(0.5, 1.5), biases from N(0, 0.3), matrices from N(0, 1 / sqrt(fan in)), convolutions
    twice that variance, for the relu that most often follows. A deep transformer with layer norms after
    its residuals would make all tokens alike, and then nothing that its attention does could matter:
    its queries and keys are wider, its residual branches weaker.
    """
    generator = torch.Generator().manual_seed(seed)
    deviations = _matrix_deviations(model)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            gain = next((gain for part, gain in GAINS if part in name), 1.0)
            if parameter.dim() == 1 and "bias" in name.rsplit(".", 1)[-1]:
                parameter.normal_(0.0, 0.3 * gain, generator=generator)
            elif parameter.dim() == 1:
                parameter.uniform_(0.5, 1.5, generator=generator)
            elif name in deviations:
                parameter.normal_(0.0, gain * deviations[name], generator=generator)
            elif name.endswith(TOKENS_AND_TABLES):
                parameter.normal_(0.0, 1.0, generator=generator)


def _matrix_deviations(model: nn.Module) -> dict[str, float]:
    """The standard deviation to draw each weight matrix and each convolution's weights with, by name."""
    deviations = {}
    for name, module in model.named_modules():
        if isinstance(module, nn.Linear):
            deviations[f"{name}.weight"] = module.in_features**-0.5
        elif isinstance(module, nn.Conv2d):
            deviations[f"{name}.weight"] = (2 / module.weight[0].numel()) ** 0.5
    return deviations


def calibrate_batch_norms(model: nn.Module, inputs: Sequence[Tensor]) -> None:
    """Sets batch norms' running statistics from one pass over `inputs`; leaves the model in eval mode."""
    model.eval()
    norms = [module for module in model.modules() if isinstance(module, nn.BatchNorm2d)]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None
        norm.train()
    with torch.no_grad():
        model(*inputs)
    model.eval()


def assert_alive(model: nn.Module, inputs: Sequence[Tensor]) -> None:
    """Shuffles the first input of more than one element, then one weight tensor at a time.

    Raises DeadWeightError where the output hardly moves. `inputs` are restored.
    """
    expected = flat_output(model, inputs)
    if not torch.isfinite(expected).all():
        raise DeadWeightError("the output is not finite")
    scale = expected.abs().max()
    generator = torch.Generator().manual_seed(0)
    live = [("the input", next(x for x in inputs if x.numel() > 1), SMALLEST_CHANGE_BY_INPUT)]
    for name, parameter in model.named_parameters():
        if not name.endswith(WITHOUT_EFFECT):
            live.append((name, parameter.detach(), SMALLEST_CHANGE))
    for name, tensor, smallest in live:
        with shuffled(tensor, generator):
            change = (flat_output(model, inputs) - expected).abs().max() / scale
        if not change > smallest:
            raise DeadWeightError(
                f"shuffling {name} {tuple(tensor.shape)} changes the output by {change:.2g} of its scale; "
                f"in a live network it changes by more than {smallest}"
            )


def flat_output(model: nn.Module, inputs: Sequence[Tensor]) -> Tensor:
    """All tensors that the model returns, as one 1-D tensor."""
    with torch.no_grad():
        return torch.cat([tensor.flatten() for tensor in _tensors(model(*inputs))])


def _tensors(value: object) -> Iterator[Tensor]:
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, dict):
        for item in value.values():
            yield from _tensors(item)
    elif isinstance(value, (tuple, list)):
        for item in value:
            yield from _tensors(item)


@contextmanager
def shuffled(tensor: Tensor, generator: torch.Generator) -> Iterator[None]:
    """Within the block, the tensor's elements are in another, random order."""
    original = tensor.clone()
    order = torch.randperm(original.numel(), generator=generator)
    tensor.copy_(original.flatten()[order].view_as(original))
    try:
        yield
    finally:
        tensor.copy_(original)
