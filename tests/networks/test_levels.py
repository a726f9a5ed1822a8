"""Whole networks without graph passes and without fusion: each level means the same."""

from __future__ import annotations

import numpy as np
import onnxruntime
import pytest

from onnxsmith_compiler.options import CompileOptions
from tests.compiling import Compiler, executor_of, run_named
from tests.models.catalog import MODELS, SmallModel

TOLERANCE = 1e-4
"""Of the output's scale: rounding differences of two orders of evaluation through a deep network."""


@pytest.mark.parametrize("model", MODELS, ids=lambda model: model.name)
def test_levels_agree(model: SmallModel, compiler: Compiler) -> None:
    peer = onnxruntime.InferenceSession(model.proto.SerializeToString(), providers=["CPUExecutionProvider"])
    levels = {
        level: executor_of(compiler.compile(model.proto, CompileOptions(optimization_level=level)), threads=2)
        for level in (0, 1)
    }
    for feed in model.feeds():
        expected = peer.run(None, feed)
        for level, executor in levels.items():
            for result, reference in zip(run_named(executor, feed), expected, strict=True):
                assert (result.dtype, result.shape) == (reference.dtype, reference.shape), f"level {level}"
                error = np.abs(result - reference).max() / np.abs(reference).max()
                assert error < TOLERANCE, f"level {level} is off by {error:.1e} of the scale"
