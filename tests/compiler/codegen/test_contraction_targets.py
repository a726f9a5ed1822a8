"""The contraction templates compile for machines other than this one, and keep their sums in registers there."""

from __future__ import annotations

import re

import pytest

from onnxsmith_compiler.codegen import llvm_backend
from onnxsmith_compiler.codegen.attention_form import AttentionForm
from onnxsmith_compiler.codegen.attention_source import attention_source
from onnxsmith_compiler.codegen.conv_source import ConvForm, conv_source
from onnxsmith_compiler.codegen.depthwise_source import DepthwiseForm, depthwise_form
from onnxsmith_compiler.codegen.depthwise_tile import depthwise_shape
from onnxsmith_compiler.codegen.epilogue import Mask, masked_score, store_epilogue
from onnxsmith_compiler.codegen.matmul_source import MatmulForm, matmul_source
from onnxsmith_compiler.codegen.numba_adapter import Compiler
from onnxsmith_compiler.codegen.source import KernelSource
from onnxsmith_compiler.codegen.target import Target
from onnxsmith_compiler.codegen.tile_shapes import tile_shape
from onnxsmith_compiler.ir.dtype import FLOAT32

VECTOR_ON_STACK = re.compile(r"v?mov[ua]p[sd]\s+%[xyz]mm.*\(%rsp\)|st[rp]\s+q.*\[sp")
TARGETS = [Target.generic_x86_64("v2"), Target.generic_x86_64("v3"), Target.generic_aarch64()]


def _sources(target: Target) -> list[KernelSource]:
    tile = tile_shape(target, "float32")
    epilogue = store_epilogue(FLOAT32, dense=True)
    return [
        matmul_source(MatmulForm(tile, last_columns=None, batch_axes=1), epilogue),
        conv_source(ConvForm(tile, (3, 3), merged=True, last_columns=tile.columns), epilogue),
        attention_source(
            AttentionForm(tile, "float16", 2, 0.5, causal=True), masked_score(FLOAT32, 2, [Mask("float32")])
        ),
    ]


@pytest.mark.parametrize("target", TARGETS, ids=lambda target: target.cpu)
def test_templates_compile(target: Target) -> None:
    compiler = Compiler(target)
    for source in _sources(target):
        assert compiler.compile_kernel(source, "kernel").startswith(b"\x7fELF")


@pytest.mark.parametrize("target", TARGETS, ids=lambda target: target.cpu)
@pytest.mark.parametrize("window", [0, 3, 7])
def test_depthwise_sums_stay_in_registers(target: Target, window: int) -> None:
    if window:
        form = depthwise_form(target, "float32", 64, (window, window), (1, 1), (1, 1))
    else:
        form = DepthwiseForm(depthwise_shape(target, "float32"), (3, 3), None)
    module = Compiler(target).kernel_module(form.source(store_epilogue(FLOAT32)), "kernel")
    assembly = llvm_backend.emit_assembly(module, target)
    parts = [part for part in re.split(r"\n(?=\S+:)", assembly) if part.lstrip('"').startswith("onnxsmith.depthwise")]
    assert parts
    for part in parts:
        # A last vector that is not full is put together on the stack where there are no masked loads.
        if ".partial" not in part.splitlines()[0]:
            assert VECTOR_ON_STACK.findall(part) == []
