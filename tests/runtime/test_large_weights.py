"""A weight of more than 2 GiB, from external data to the cache and into packages."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
from onnx import TensorProto, helper
from small_models import model, tensor

import onnxsmith

ROWS, COLUMNS = 25_000, 24_000
BYTES = ROWS * COLUMNS * 4
# (row, column, value) of the elements that are not zero: at both ends, and beside what 31 bits of bytes reach.
ELEMENTS = [(0, 0, 1.0), (12_345, 7, 2.0), (2**29 // COLUMNS, 2**29 % COLUMNS, 3.0), (ROWS - 1, COLUMNS - 1, 4.0)]
BIAS = np.linspace(-1, 1, COLUMNS, dtype=np.float32)


@pytest.fixture
def path(tmp_path) -> Path:
    """y = x @ w + bias of [N, 25000], with w in a sparse file."""
    if shutil.disk_usage(tmp_path).free < 5 * BYTES:
        pytest.skip(f"needs {5 * BYTES} bytes of disk")
    if os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") < 4 * BYTES:
        pytest.skip(f"needs {4 * BYTES} bytes of free memory")
    with open(tmp_path / "w.bin", "wb") as file:
        file.truncate(BYTES)
        for row, column, value in ELEMENTS:
            file.seek((row * COLUMNS + column) * 4)
            file.write(np.float32(value).tobytes())
    weight = TensorProto(name="w", data_type=TensorProto.FLOAT, dims=[ROWS, COLUMNS])
    weight.data_location = TensorProto.EXTERNAL
    for key, value in {"location": "w.bin", "offset": 0, "length": BYTES}.items():
        weight.external_data.add(key=key, value=str(value))
    bias = helper.make_tensor("b", TensorProto.FLOAT, [COLUMNS], BIAS.tobytes(), raw=True)
    nodes = [helper.make_node("MatMul", ["x", "w"], ["p"]), helper.make_node("Add", ["p", "b"], ["y"])]
    (tmp_path / "large.onnx").write_bytes(
        model(nodes, [tensor("x", ["N", ROWS])], [tensor("y", ["N", COLUMNS])], [weight, bias])
    )
    return tmp_path / "large.onnx"


def check(session: onnxsmith.InferenceSession) -> None:
    x = np.arange(1, ROWS + 1, dtype=np.float32)[None]
    expected = BIAS[None].copy()
    for row, column, value in ELEMENTS:
        expected[0, column] += x[0, row] * value
    np.testing.assert_array_equal(session.run(None, {"x": x})[0], expected)


@pytest.mark.slow
def test_every_form(path, tmp_path, monkeypatch):
    monkeypatch.setenv("ONNXSMITH_CACHE_DIR", str(tmp_path / "cache"))
    check(onnxsmith.InferenceSession(path))
    folder = onnxsmith.compile(path, tmp_path / "large", target="native")
    check_header(folder / "weights.safetensors")
    check(onnxsmith.load(folder, verify=True))
    shutil.rmtree(folder)
    archive = onnxsmith.compile(path, tmp_path / "large.zip", target="native")
    shutil.rmtree(tmp_path / "cache")
    check(onnxsmith.load(archive, verify=True))
    with zipfile.ZipFile(archive) as opened:  # as others read it
        assert opened.getinfo("large/weights.safetensors").file_size > BYTES
    if sys.version_info >= (3, 13):  # from then on Python imports from such files
        code = "import large\nprint(large.session.get_inputs()[0].shape)"
        environment = {**os.environ, "PYTHONPATH": str(archive)}
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment)
        assert done.stdout == f"['N', {ROWS}]\n", done.stderr


def check_header(path: Path) -> None:
    with open(path, "rb") as file:
        header = json.loads(file.read(int.from_bytes(file.read(8), "little")))
    (entry,) = header.values()
    assert entry["data_offsets"] == [0, entry["shape"][0]] and entry["shape"][0] > BYTES
