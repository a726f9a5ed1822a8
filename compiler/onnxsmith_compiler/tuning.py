"""Measured choices of how the steps of a model are cut into tiles.

Steps that run one kernel with the same sizes are a *layer*. All layers try their alternatives at once: the first
version of the model has the first alternative of each, and so on. The best are measured again beside what the compiler
had chosen, and the best of these once more, since the best of many noisy times is often only lucky. Winners are kept
by layer, so that no model with that layer measures it again.
"""

from __future__ import annotations

import hashlib
import json
import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from onnxsmith_compiler.codegen.kernel_key import kernel_key
from onnxsmith_compiler.codegen.kernel_text import PrintedKernel, PrintedStep
from onnxsmith_compiler.codegen.target import Target
from onnxsmith_compiler.workers import Store

Steps = tuple[PrintedStep, ...]
Times = Sequence[Sequence[Sequence[Sequence[float]]]]
"""Seconds by round, version of the model, number of threads, and step."""
Measure = Callable[[Sequence[Steps]], Times]
"""Measures versions of the same steps. What is in one round was measured at about the same time."""

WORTHWHILE = 0.97
"""The part of the chosen kernel's time that another one must stay below to take its place."""
_KEPT = (3, 1)
"""How many candidates of a layer are measured once more after the first and the second measurement."""
_CLEAR = 0.75
"""The part of the rounds in which a winner must have been faster."""


@dataclass(frozen=True, eq=False)
class Layer:
    """Steps, by number, that do the same work, each with its candidates: the compiler's own choice first.

    `key` names the work and the machine: the SHA-256 of the kernel, its sizes, and what schedules are sized by.
    """

    key: str
    candidates: dict[int, tuple[PrintedKernel, ...]] = field(default_factory=dict)

    @property
    def sizes(self) -> list[list[int]]:
        """The integer arguments of each candidate."""
        return [_sizes(kernel) for kernel in next(iter(self.candidates.values()))]


def tune(steps: Steps, target: Target, measure: Measure, store: Store | None) -> Steps:
    """The steps with the fastest kernels, from `store` or measured; `measure` is called only if some are unknown."""
    layers = find_layers(steps, target)
    choices = {layer: known for layer in layers if (known := _stored(layer, store)) is not None}
    unknown = [layer for layer in layers if layer not in choices]
    if unknown:
        found = _search(_with(steps, choices), unknown, measure)
        for layer, choice in found.items():
            _keep(layer, choice, store)
        choices |= found
    return _with(steps, choices)


def find_layers(steps: Sequence[PrintedStep], target: Target) -> list[Layer]:
    """The layers whose sizes are all known and that have alternatives."""
    layers: dict[str, Layer] = {}
    for number, step in enumerate(steps):
        others = step.alternatives() if _is_fixed(step.kernel) else ()
        if others:
            key = _layer_key(step.kernel, target)
            layers.setdefault(key, Layer(key)).candidates[number] = (step.kernel, *others)
    return list(layers.values())


def _search(steps: Steps, layers: Sequence[Layer], measure: Measure) -> dict[Layer, int]:
    """The number of each layer's fastest candidate: 0 where none is clearly worthwhile."""
    contenders = {layer: list(range(1, len(layer.sizes))) for layer in layers}
    for kept in _KEPT:
        ratios = _compare(steps, contenders, measure)
        contenders = {
            layer: [number for number, _ in sorted(own.items(), key=_median_ratio) if _is_faster(own[number])][:kept]
            for layer, own in ratios.items()
        }
    ratios = _compare(steps, contenders, measure)
    winners = {layer: number for layer, own in ratios.items() for number in own if _is_clearly_faster(own[number])}
    return dict.fromkeys(layers, 0) | winners


def _compare(
    steps: Steps, contenders: Mapping[Layer, Sequence[int]], measure: Measure
) -> dict[Layer, dict[int, list[float]]]:
    """For each layer and contender its time over that of the first candidate, round by round."""
    most = max(map(len, contenders.values()))
    if most == 0:
        return {layer: {} for layer in contenders}
    versions = [
        _with(steps, {layer: own[place] for layer, own in contenders.items() if place < len(own)})
        for place in range(most)
    ]
    times = measure([steps, *versions])
    return {
        layer: {number: [_ratio(layer, round, place) for round in times] for place, number in enumerate(own, 1)}
        for layer, own in contenders.items()
    }


def _ratio(layer: Layer, times: Sequence[Sequence[Sequence[float]]], version: int) -> float:
    """The layer's time in a version over that in the first one: the mean over the numbers of threads.

    Where one number of threads makes it slower, that one: nobody pays for what others gain.
    """

    def seconds(step_times: Sequence[float]) -> float:
        return sum(step_times[number] for number in layer.candidates)

    ratios = [seconds(own) / seconds(first) for own, first in zip(times[version], times[0], strict=True)]
    return max(ratios) if max(ratios) > 1 else statistics.mean(ratios)


def _median_ratio(contender: tuple[int, Sequence[float]]) -> float:
    return statistics.median(contender[1])


def _is_faster(ratios: Sequence[float]) -> bool:
    return statistics.median(ratios) < WORTHWHILE


def _is_clearly_faster(ratios: Sequence[float]) -> bool:
    return _is_faster(ratios) and sum(ratio < 1 for ratio in ratios) >= _CLEAR * len(ratios)


def _with(steps: Steps, choices: Mapping[Layer, int]) -> Steps:
    """The steps, those of each layer with the candidate of that number."""
    kernels = {
        number: candidates[choice]
        for layer, choice in choices.items()
        for number, candidates in layer.candidates.items()
    }
    return tuple(
        replace(step, kernel=kernels[number]) if number in kernels else step for number, step in enumerate(steps)
    )


def _stored(layer: Layer, store: Store | None) -> int | None:
    """The candidate that was measured to be the fastest; None where it is not known, or no candidate any more."""
    data = None if store is None else store.get(layer.key)
    if data is None:
        return None
    try:
        return layer.sizes.index(json.loads(data))
    except ValueError:
        return None


def _keep(layer: Layer, choice: int, store: Store | None) -> None:
    if store is not None:
        store.put(layer.key, json.dumps(layer.sizes[choice]).encode())


def _is_fixed(kernel: PrintedKernel) -> bool:
    return all(isinstance(size, int) for size in (*_dims(kernel), kernel.tiles, kernel.cost, kernel.scratch))


def _sizes(kernel: PrintedKernel) -> list[int]:
    return [size for size in _dims(kernel) if isinstance(size, int)]


def _dims(kernel: PrintedKernel) -> Iterable[object]:
    pairs = zip(kernel.source.parameters, kernel.arguments, strict=True)
    return (argument for parameter, argument in pairs if parameter.type == "int64")


def _layer_key(kernel: PrintedKernel, target: Target) -> str:
    content = [kernel_key(kernel.source, target), _sizes(kernel), target.l1, target.l2, target.l3, target.cores]
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()
