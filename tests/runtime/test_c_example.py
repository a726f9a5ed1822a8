"""The C program of the examples, built with the system's compiler."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
from onnx import TensorProto, helper
from small_models import model, tensor

import onnxsmith
from onnxsmith_compiler.codegen import c_layout

EXAMPLE = Path(__file__).parents[2] / "examples" / "c" / "run.c"
COMPILER = shutil.which(os.environ.get("CC", "cc"))
CPP_COMPILER = shutil.which(os.environ.get("CXX", "c++"))
STRICT = ("-Wall", "-Wextra", "-Wpedantic", "-Werror")

needs_a_compiler = pytest.mark.skipif(COMPILER is None, reason="there is no C compiler (cc, or $CC)")


def two_outputs_model() -> bytes:
    """p = softmax(x @ w), of x [N, 32]; i = argmax of it."""
    weights = np.random.default_rng(0).standard_normal((32, 32)).astype(np.float32)
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["h"]),
        helper.make_node("Softmax", ["h"], ["p"]),
        helper.make_node("ArgMax", ["p"], ["i"], axis=1),
    ]
    return model(
        nodes,
        [tensor("x", ["N", 32])],
        [tensor("p", ["N", 32]), tensor("i", ["N", 1], TensorProto.INT64)],
        [helper.make_tensor("w", TensorProto.FLOAT, weights.shape, weights.tobytes(), raw=True)],
    )


@pytest.fixture(scope="module")
def package(tmp_path_factory) -> Path:
    return onnxsmith.compile(two_outputs_model(), tmp_path_factory.mktemp("example") / "my_model", target="native")


@pytest.fixture(scope="module")
def program(package) -> Path:
    """The example, built for the package."""
    made = package.parent / "run"
    link = [f"-I{package}", f"-L{package}", "-lmy_model", f"-Wl,-rpath,{package}", "-pthread"]
    command = [COMPILER, "-std=c11", "-D_DEFAULT_SOURCE", *STRICT, EXAMPLE, *link, "-o", made]
    subprocess.run(list(map(str, command)), check=True)
    return made


def run(program: Path, package: Path, *arguments: int, data: bytes = b"") -> subprocess.CompletedProcess[bytes]:
    command = [program, package / "weights.safetensors", *arguments]
    return subprocess.run(list(map(str, command)), input=data, capture_output=True)


@needs_a_compiler
class TestExample:
    @pytest.mark.parametrize("threads", [1, 2])
    def test_it_gives_what_python_gives(self, program, package, threads):
        session = onnxsmith.load(package)
        for count in (1, 5, 4000):
            x = np.random.default_rng(count).standard_normal((count, 32)).astype(np.float32)
            done = run(program, package, threads, count, data=x.tobytes())
            assert done.returncode == 0, done.stderr
            assert done.stdout == b"".join(array.tobytes() for array in session.run(None, {"x": x}))

    def test_it_says_what_is_wrong(self, program, package):
        done = run(program, package, 1, -2)
        assert (done.returncode, done.stdout) == (1, b"")
        assert b"error 10: a tensor would have a negative size" in done.stderr and b"(the model: 0, 0)" in done.stderr
        assert b"error 4: the number of threads" in run(program, package, 0, 1).stderr
        assert b"usage" in run(program, package, 1).stderr
        (package.parent / "weights.safetensors").write_bytes(b"other")
        assert b"error 11: the weights are not those" in run(program, package.parent, 1, 1).stderr


@needs_a_compiler
def test_the_header_alone(package, tmp_path):
    """It is C99 by itself, and its constants are those of the library."""
    checks = "".join(f'_Static_assert(MY_MODEL_{name} == {code}, "");\n' for code, name, _ in c_layout.RESULTS)
    source = tmp_path / "alone.c"
    source.write_text(f'#include "my_model.h"\n#include "my_model.h"\n{checks}int main(void) {{ return 0; }}\n')
    command = [COMPILER, "-std=c11", *STRICT, f"-I{package}", "-fsyntax-only", str(source)]
    subprocess.run(command, check=True)


@pytest.mark.skipif(CPP_COMPILER is None, reason="there is no C++ compiler (c++, or $CXX)")
def test_the_header_in_cpp(package, tmp_path):
    source = tmp_path / "alone.cpp"
    source.write_text('#include "my_model.h"\nint main() { return my_model_version() - MY_MODEL_VERSION; }\n')
    link = [f"-L{package}", "-lmy_model", f"-Wl,-rpath,{package}"]
    command = [CPP_COMPILER, "-std=c++17", *STRICT, f"-I{package}", str(source), *link, "-o", str(tmp_path / "alone")]
    subprocess.run(command, check=True)
    subprocess.run([str(tmp_path / "alone")], check=True)
