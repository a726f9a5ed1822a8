"""Disks that are full or for reading, and folders of others: one clear message, and the model runs all the same."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from onnx import helper
from small_models import model, tensor

import onnxsmith
from onnxsmith.cache import open_cache

# Argument 1 is the path of a model that negates [N]; what is logged goes to standard error.
SCRIPT = """
import sys, onnxsmith
session = onnxsmith.InferenceSession(sys.argv[1])
assert session.run(None, {"x": [-1.0, 2.0]})[0].tolist() == [1, -2]
"""
LIMITED = "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (12_000, 12_000))\n"


def namespace() -> list[str]:
    """A command that runs another with mounts of its own; skips the test where that is not allowed."""
    for options in (["--mount"], ["--map-root-user", "--mount"]):
        command = ["unshare", *options]
        if shutil.which("unshare") and not subprocess.run([*command, "true"], capture_output=True).returncode:
            return command
    pytest.skip("needs unshare(1), and leave to make a mount namespace")


@pytest.fixture
def negative(tmp_path) -> Path:
    path = tmp_path / "negative.onnx"
    path.write_bytes(model([helper.make_node("Neg", ["x"], ["y"])], [tensor("x", ["N"])], [tensor("y", ["N"])]))
    return path


def run(command: list[str], script: str, path: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    # One worker: the models are small, and starting a worker takes a second.
    script = script.replace("sys.argv[1])", "sys.argv[1], options)").replace(
        "session =", "options = onnxsmith.SessionOptions()\noptions.add_session_config_entry("
        "'onnxsmith.compile.workers', '1')\nsession ="
    )  # fmt: skip
    return subprocess.run(
        [*command, sys.executable, "-c", script, str(path)],
        capture_output=True,
        text=True,
        env={**os.environ, **environment},
    )


def check(done: subprocess.CompletedProcess[str], *messages: str) -> None:
    """It succeeded, and said one thing, which has all of `messages`."""
    assert done.returncode == 0, done.stderr
    assert len(done.stderr.splitlines()) == bool(messages), done.stderr
    assert all(message in done.stderr for message in messages), done.stderr


def test_full_disk(negative, tmp_path):
    full = tmp_path / "full"
    full.mkdir()
    mount = f'mount -t tmpfs -o size=16k tmpfs {full} && exec "$@"'
    done = run([*namespace(), "sh", "-c", mount, "sh"], SCRIPT, negative, ONNXSMITH_CACHE_DIR=str(full / "cache"))
    check(done, "The compiled model is not kept", str(full / "cache"), "No space left on device")


def test_disk_for_reading(negative, tmp_path, monkeypatch, relu_model, cache_folder):
    cache, other = tmp_path / "cache", tmp_path / "relu.onnx"
    onnxsmith.InferenceSession(relu_model)  # its kernels and the native core need not be compiled again
    cache.mkdir(mode=0o700)
    shutil.copytree(Path(cache_folder, "kernels"), cache / "kernels")
    other.write_bytes(relu_model)
    monkeypatch.setenv("ONNXSMITH_CACHE_DIR", str(cache))
    options = onnxsmith.SessionOptions()
    options.add_session_config_entry("onnxsmith.compile.workers", "1")
    onnxsmith.InferenceSession(negative, options)
    mount = f'mount --bind {cache} {cache} && mount -o remount,bind,ro {cache} && exec "$@"'
    command = [*namespace(), "sh", "-c", mount, "sh"]
    check(run(command, "import onnxsmith.compile_process as p; p.call = None\n" + SCRIPT, negative))
    positive = SCRIPT.replace("[1, -2]", "[0, 2]")
    check(run(command, positive, other), "The compiled model is not kept", str(cache), "Read-only file system")


def test_folder_of_another_user(tmp_path, caplog):
    if os.geteuid():
        pytest.skip("only root can give a folder away")
    cache = tmp_path / "cache"
    cache.mkdir(mode=0o700)
    os.chown(cache, 12345, 12345)
    assert open_cache(cache) is None
    assert f"The cache folder '{cache}' is not used" in caplog.text and "it belongs to user 12345" in caplog.text


def test_no_room_anywhere(negative, tmp_path):
    temporary = tmp_path / "tmp"
    temporary.mkdir()
    environment = {"ONNXSMITH_CACHE_DIR": str(tmp_path / "cache"), "TMPDIR": str(temporary)}
    done = run([], LIMITED + SCRIPT, negative, **environment)
    assert "Fail: [ONNXRuntimeError] : 1 : FAIL : There is no room for the compiled model" in done.stderr
    assert f"{temporary}: File too large" in done.stderr and "set TMPDIR or ONNXSMITH_CACHE_DIR" in done.stderr
    assert [*temporary.iterdir(), *(tmp_path / "cache" / "tmp").iterdir()] == []
