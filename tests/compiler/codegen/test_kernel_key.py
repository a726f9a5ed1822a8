"""Kernel keys change with all that changes the code, and with nothing else."""

from __future__ import annotations

import dataclasses
import subprocess
import sys

import pytest

from onnxsmith_compiler.codegen import kernel_key as module
from onnxsmith_compiler.codegen.kernel_key import compiler_digest, kernel_key, kernel_symbol
from onnxsmith_compiler.codegen.source import KernelSource, Parameter
from onnxsmith_compiler.codegen.target import Target

TARGET = Target.generic_x86_64("v3")
SOURCE = KernelSource("a", "def kernel(ctx, x, begin, end):\n    return 0\n", (Parameter("x", "float32*"),))


@pytest.mark.parametrize(
    "other",
    [
        dataclasses.replace(SOURCE, text=SOURCE.text.replace("0", "1")),
        dataclasses.replace(SOURCE, parameters=(Parameter("x", "float16*"),)),
        dataclasses.replace(SOURCE, parameters=(Parameter("x", "float32*", noalias=True),)),
    ],
)
def test_source_is_in_the_key(other: KernelSource) -> None:
    assert kernel_key(other, TARGET) != kernel_key(SOURCE, TARGET)


@pytest.mark.parametrize(
    "change",
    [{"cpu": "znver4"}, {"features": "+avx2"}, {"vector_bits": 128}, {"triple": "x86_64-pc-linux-musl"}],
)
def test_target_is_in_the_key(change: dict[str, object]) -> None:
    assert kernel_key(SOURCE, dataclasses.replace(TARGET, **change)) != kernel_key(SOURCE, TARGET)  # type: ignore[arg-type]


def test_label_caches_and_cores_are_not() -> None:
    other = dataclasses.replace(TARGET, cores=64, l3=1 << 30)
    assert kernel_key(dataclasses.replace(SOURCE, label="b"), other) == kernel_key(SOURCE, TARGET)


def test_compiler_is_in_the_key(monkeypatch: pytest.MonkeyPatch) -> None:
    before = kernel_key(SOURCE, TARGET)
    monkeypatch.setattr(module, "compiler_digest", lambda: "another")
    assert kernel_key(SOURCE, TARGET) != before


def test_digest_reads_the_intrinsics() -> None:
    names = {name.rpartition("/")[2] for name, text in module._sources() if text}
    assert {"intrinsics.py", "numba_adapter.py", "narrow_float.py", "scalar.py", "dtype.py"} <= names
    assert len(compiler_digest()) == 64


def test_symbol_is_a_c_name() -> None:
    assert kernel_symbol(kernel_key(SOURCE, TARGET)).isidentifier()


def test_keys_are_the_same_in_every_process_and_need_no_numba() -> None:
    program = (
        "import sys\n"
        "from onnxsmith_compiler.codegen.kernel_key import kernel_key\n"
        "from onnxsmith_compiler.codegen.source import KernelSource, Parameter\n"
        "from onnxsmith_compiler.codegen.target import Target\n"
        f"print(kernel_key({SOURCE!r}, Target.generic_x86_64('v3')), 'numba' in sys.modules)\n"
    )
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert run.stdout.split() == [kernel_key(SOURCE, TARGET), "False"]
