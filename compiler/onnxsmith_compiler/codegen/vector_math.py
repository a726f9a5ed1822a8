"""Elementary functions of printed kernels, by name: `<function>_f32` and `<function>_f64`."""

from __future__ import annotations

from onnxsmith_compiler.codegen import vector_math_f32 as f32
from onnxsmith_compiler.codegen.kernel_function import Helper

VECTOR_MATH: dict[str, Helper] = {
    function.name: function
    for function in (
        f32.exp_f32,
        f32.log_f32,
        f32.sigmoid_f32,
        f32.tanh_f32,
        f32.erf_f32,
        f32.pow_f32,
    )
}
"""Every elementary function; each is callable in plain Python too."""
