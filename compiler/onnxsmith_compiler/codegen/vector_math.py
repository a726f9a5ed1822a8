"""Elementary functions of printed kernels, by name: `<function>_f32` and `<function>_f64`."""

from __future__ import annotations

from onnxsmith_compiler.codegen import vector_math_f32 as f32
from onnxsmith_compiler.codegen import vector_math_trig as trig
from onnxsmith_compiler.codegen.kernel_function import Helper

_FLOAT32 = (
    f32.exp_f32, f32.exp2_f32, f32.expm1_f32, f32.log_f32, f32.log1p_f32, f32.log2_f32, f32.log10_f32,
    f32.pow_f32, f32.rsqrt_f32, f32.sigmoid_f32, f32.softplus_f32, f32.erf_f32,
    f32.sinh_f32, f32.cosh_f32, f32.tanh_f32, f32.asin_f32, f32.acos_f32, f32.atan_f32,
    trig.sin_f32, trig.cos_f32, trig.tan_f32,
)  # fmt: skip
_FLOAT64 = (trig.sin_f64, trig.cos_f64, trig.tan_f64)

VECTOR_MATH: dict[str, Helper] = {function.name: function for function in (*_FLOAT32, *_FLOAT64)}
"""Every elementary function; each is callable in plain Python too."""
