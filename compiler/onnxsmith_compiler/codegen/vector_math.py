"""Elementary functions of printed kernels, by name: `<function>_f32` and `<function>_f64`."""

from __future__ import annotations

from onnxsmith_compiler.codegen import vector_math_f32 as f32
from onnxsmith_compiler.codegen import vector_math_f64 as f64
from onnxsmith_compiler.codegen import vector_math_power as power
from onnxsmith_compiler.codegen import vector_math_remainder as remainder
from onnxsmith_compiler.codegen import vector_math_trig as trig
from onnxsmith_compiler.codegen.kernel_function import Helper

_FLOAT32 = (
    f32.exp_f32, f32.exp2_f32, f32.expm1_f32, f32.log_f32, f32.log1p_f32, f32.log2_f32, f32.log10_f32,
    power.pow_f32, f32.rsqrt_f32, f32.sigmoid_f32, f32.softplus_f32, f32.erf_f32,
    f32.sinh_f32, f32.cosh_f32, f32.tanh_f32, f64.asinh_f32, f64.acosh_f32, f64.atanh_f32,
    f32.asin_f32, f32.acos_f32, f32.atan_f32, trig.sin_f32, trig.cos_f32, trig.tan_f32,
    remainder.fmod_f32, remainder.float_mod_f32,
)  # fmt: skip
_FLOAT64 = (
    f64.exp_f64, f64.exp2_f64, f64.expm1_f64, f64.log_f64, f64.log1p_f64, f64.log2_f64, f64.log10_f64,
    power.pow_f64, f64.rsqrt_f64, f64.sigmoid_f64, f64.softplus_f64, f64.erf_f64,
    f64.sinh_f64, f64.cosh_f64, f64.tanh_f64, f64.asinh_f64, f64.acosh_f64, f64.atanh_f64,
    f64.asin_f64, f64.acos_f64, f64.atan_f64, trig.sin_f64, trig.cos_f64, trig.tan_f64,
    remainder.fmod_f64, remainder.float_mod_f64,
)  # fmt: skip

VECTOR_MATH: dict[str, Helper] = {function.name: function for function in (*_FLOAT32, *_FLOAT64)}
"""Every elementary function of its whole domain; each is callable in plain Python too."""

PARTIAL_MATH: dict[str, Helper] = {f32.exp_negative_f32.name: f32.exp_negative_f32}
"""Functions of a part of their domain, for less."""
