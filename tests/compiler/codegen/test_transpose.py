from __future__ import annotations

import numpy as np
import pytest
from contraction_harness import HOST, CompiledKernel, run_uncompiled

from onnxsmith_compiler.codegen.source import KernelSource, Parameter
from onnxsmith_compiler.codegen.transpose import TRANSPOSES, transpose_name


@pytest.mark.parametrize(
    ("dtype", "size"),
    [("float32", 16), ("float32", 4), ("int32", 8), ("float64", 8), ("float64", 2), ("int16", 16), ("bool", 8)],
)
def test_square_in_a_larger_matrix(dtype: str, size: int) -> None:
    if size * np.dtype(dtype).itemsize * 8 > HOST.vector_bits:
        pytest.skip("wider than this machine's vectors")
    name = transpose_name(dtype, size)
    assert name in TRANSPOSES
    parameters = (Parameter("a", f"{dtype}*"), Parameter("b", f"{dtype}*"))
    text = f"def kernel(ctx, a, b, begin, end):\n    {name}(a, 21, b, 33)\n    return 0\n"
    source = KernelSource(name, text, parameters)
    a = np.arange(size * 21).reshape(size, 21).astype(dtype)
    for run in (CompiledKernel(source), lambda *rest: run_uncompiled(source, *rest)):
        b = np.zeros((size, 33), dtype)
        assert run((a, b), 1, 64) == 0
        np.testing.assert_array_equal(b[:, :size], a[:, :size].T)
        assert (b[:, size:] == 0).all()
