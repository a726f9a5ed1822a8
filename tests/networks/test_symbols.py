"""Networks with symbolic sizes: one program serves all of them, and a batch does not change its rows."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import onnx
import onnxruntime
import pytest

from tests.compiling import Array, Compiler, executor_of, run_named
from tests.models import attention, convolutional
from tests.models.catalog import make_feed

TOLERANCE = 1e-4


@dataclass(frozen=True)
class Symbolic:
    """A network whose symbols are `batch` and perhaps others, which take the values `others`."""

    name: str
    build: Callable[[], onnx.ModelProto]
    others: Sequence[Mapping[str, int]] = ({},)


def _batched(build: Callable[..., onnx.ModelProto]) -> Callable[[], onnx.ModelProto]:
    return functools.partial(build, batch="batch")


NETWORKS = (
    Symbolic("bert", attention.bert, ({"sequence": 1}, {"sequence": 7}, {"sequence": 16}, {"sequence": 33})),
    *(
        Symbolic(build.__name__, _batched(build))
        for build in (
            convolutional.resnet18,
            convolutional.resnet50,
            convolutional.mobilenet_v2,
            convolutional.mobilenet_v3,
            convolutional.efficientnet,
            convolutional.densenet,
            convolutional.vgg,
            convolutional.convnext,
        )
    ),
)


@pytest.mark.parametrize("network", NETWORKS, ids=lambda network: network.name)
def test_one_program_for_all_sizes(network: Symbolic, compiler: Compiler) -> None:
    proto = network.build()
    compiled = compiler.compile(proto)
    assert len(compiled.program.segments) == 1, "every size follows from the inputs' shapes"
    one, two = executor_of(compiled, threads=1), executor_of(compiled, threads=2)
    peer = onnxruntime.InferenceSession(proto.SerializeToString(), providers=["CPUExecutionProvider"])
    for others in network.others:
        rows: dict[int, list[Array]] = {}
        for batch in (5, 1, 2):
            feed = make_feed(proto, {"batch": batch, **others}, seed=0)
            feed = {name: _first_rows(proto, others, name, batch) for name in feed}
            found = run_named(one, feed)
            for result, shared in zip(found, run_named(two, feed), strict=True):
                assert result.tobytes() == shared.tobytes(), "the number of threads changes the result"
            for result, reference in zip(found, peer.run(None, feed), strict=True):
                assert result.shape == reference.shape
                assert np.abs(result - reference).max() < TOLERANCE * np.abs(reference).max()
            rows[batch] = found
        for batch in (1, 2):
            for large, small in zip(rows[5], rows[batch], strict=True):
                assert large[:batch].tobytes() == small.tobytes(), f"a batch of {batch} has other bits than in 5"


def _first_rows(proto: onnx.ModelProto, others: Mapping[str, int], name: str, batch: int) -> Array:
    """The first rows of the largest batch, so that all batches begin alike."""
    return make_feed(proto, {"batch": 5, **others}, seed=0)[name][:batch]
