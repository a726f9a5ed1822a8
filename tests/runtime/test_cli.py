"""The `onnxsmith` program, run as a user runs it."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import numpy as np
import pytest
from onnx import TensorProto, helper
from small_models import model, tensor

import onnxsmith
from onnxsmith import InferenceSession, SessionOptions, compile_process
from onnxsmith.commands.bench import measure, summarize
from onnxsmith.commands.verify import compare
from onnxsmith.version import __version__


def call(*arguments: object, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "onnxsmith.cli", *map(str, arguments)],
        capture_output=True,
        text=True,
        env=os.environ | {"TERM": "dumb", "COLUMNS": "200"} | environment,
    )


def printed(*arguments: object, **environment: str):
    """What a command prints as JSON, and nothing else; it must succeed in silence."""
    done = call(*arguments, "--format", "json", **environment)
    assert (done.returncode, done.stderr) == (0, ""), done.stderr
    return json.loads(done.stdout)


@pytest.fixture(scope="module")
def path(add_model, tmp_path_factory):
    path = tmp_path_factory.mktemp("models") / "add.onnx"
    path.write_bytes(add_model)
    return path


def test_version_and_help():
    assert call("--version").stdout.strip() == __version__
    done = call("--help")
    assert done.returncode == 0
    for command in ("compile", "run", "inspect", "profile", "bench", "verify", "cache"):
        assert command in done.stdout


class TestRun:
    def test_random_inputs_are_seeded_and_outputs_are_saved(self, path, tmp_path):
        results = []
        for number, seed in enumerate((1, 1, 2)):
            file = tmp_path / f"{number}.npz"
            (row,) = printed("run", path, "--random", "--seed", seed, "--dim", "N=4", "-o", file)
            assert (row["output"], row["type"], row["shape"]) == ("z", "float32", "[4, 3]")
            results.append(np.load(file)["z"])
            assert row["max"] == pytest.approx(results[-1].max())
        np.testing.assert_array_equal(results[0], results[1])
        assert not np.array_equal(results[0], results[2])

    def test_inputs_from_files(self, path, tmp_path):
        x = np.arange(6, dtype=np.float32).reshape(2, 3)
        np.save(tmp_path / "x.npy", x)
        np.savez(tmp_path / "both.npz", x=x, y=-x)
        for inputs in (
            [f"x={tmp_path / 'x.npy'}", f"y={tmp_path / 'x.npy'}"],
            [tmp_path / "both.npz", f"y={tmp_path / 'x.npy'}"],
        ):
            call("run", path, *inputs, "-o", tmp_path / "z.npz")
            np.testing.assert_array_equal(np.load(tmp_path / "z.npz")["z"], x + x)

    def test_single_input_needs_no_name(self, relu_model, tmp_path):
        (tmp_path / "relu.onnx").write_bytes(relu_model)
        np.save(tmp_path / "x.npy", np.array([-1, 2], np.float32))
        (row,) = printed("run", tmp_path / "relu.onnx", tmp_path / "x.npy")
        assert (row["min"], row["max"]) == (0, 2)

    def test_table_goes_to_standard_output(self, path):
        done = call("run", path, "--random")
        assert (done.returncode, done.stderr) == (0, "")
        assert "float32" in done.stdout

    @pytest.mark.parametrize(
        "arguments, sentence",
        [
            (["--random", "--dim", "N"], "NAME=VALUE"),
            (["--random", "--dim", "N=x"], "'x' is no size"),
            (["--random", "--dim", "M=2"], "no symbol 'M'"),
            (["--random", "--level", "7"], "--level"),
            (["nothing.npy"], "write NAME=nothing.npy"),
            (["x=nothing.npy"], "cannot be read"),
            (["--no-such-flag"], "No such option"),
        ],
    )
    def test_wrong_usage_is_status_2(self, path, arguments, sentence):
        done = call("run", path, *arguments)
        assert done.returncode == 2
        assert sentence in " ".join(done.stderr.split())

    def test_what_the_model_refuses_is_one_line_and_status_1(self, path, tmp_path):
        done = call("run", path)
        assert done.returncode == 1
        assert done.stderr.startswith("onnxsmith: Required inputs (['x', 'y']) are missing")
        done = call("run", tmp_path / "gone.onnx", "--random")
        assert done.returncode == 1
        assert done.stderr.count("\n") == 1
        assert "NO_SUCHFILE" in done.stderr


class TestCompile:
    def test_program_is_found_by_a_session_that_may_not_compile(self, path, tmp_path):
        cache = str(tmp_path / "cache")
        (row,) = printed("compile", path, "--dim", "N=5", ONNXSMITH_CACHE_DIR=cache)
        assert sorted(file.name for file in os.scandir(row["program"])) != []
        again = printed("compile", path, "--dim", "N=5", ONNXSMITH_CACHE_DIR=cache)[0]
        assert again["program"] == row["program"]
        assert again["seconds"] < row["seconds"]

    def test_without_a_cache_it_is_wrong_usage(self, path):
        done = call("compile", path, ONNXSMITH_CACHE="off")
        assert done.returncode == 2
        assert "cache is off" in done.stderr

    def test_a_cache_that_keeps_nothing_is_an_error(self, path, tmp_path):
        (tmp_path / "open").mkdir()
        (tmp_path / "open").chmod(0o777)
        done = call("compile", path, ONNXSMITH_CACHE_DIR=str(tmp_path / "open"))
        assert done.returncode == 2
        assert "others may write to it" in done.stderr and "the cache keeps nothing" in done.stderr

    def test_tuned_program_is_found_by_a_session_that_asks_for_it(self, tmp_path, monkeypatch):
        weights = helper.make_tensor("w", TensorProto.FLOAT, (64, 96), np.ones(64 * 96, np.float32))
        product = model(
            [helper.make_node("MatMul", ["x", "w"], ["y"])], [tensor("x", [50, 64])], [tensor("y", [50, 96])], [weights]
        )
        path = tmp_path / "product.onnx"
        path.write_bytes(product)
        cache = str(tmp_path / "cache")
        printed("compile", path, "--tune", ONNXSMITH_CACHE_DIR=cache)
        stores = {row["store"]: row["entries"] for row in printed("cache", "info", ONNXSMITH_CACHE_DIR=cache)}
        assert stores["tilings"] == 1
        monkeypatch.setenv("ONNXSMITH_CACHE_DIR", cache)
        monkeypatch.setattr(compile_process, "call", lambda *_: pytest.fail("compiles"))
        options = SessionOptions()
        options.add_session_config_entry("onnxsmith.compile.tune", "true")
        InferenceSession(path, options)
        printed("cache", "clear", ONNXSMITH_CACHE_DIR=cache)
        assert printed("cache", "info", ONNXSMITH_CACHE_DIR=cache)[-1]["entries"] == 0

    def test_unknown_option_of_the_compiler_lists_the_known_ones(self, path):
        done = call("compile", path, "--option", "speed=11")
        assert done.returncode == 1
        assert "no option 'speed'" in done.stderr
        assert "optimization_level" in done.stderr


class TestInspect:
    def test_tables(self, path):
        described = printed("inspect", path, "--dim", "N=7")
        assert [row["name"] for row in described["inputs"]] == ["x", "y"]
        assert described["inputs"][0]["shape"] == [7, 3]
        assert described["outputs"][0]["declared shape"] == ["N", 3]
        assert described["symbols"] == [{"symbol": "N", "from": "dimension 0 of input 'x'", "size": 7}]
        assert "add" in described["steps"][0]["nodes"]
        assert described["steps"][0]["tiles"] >= 1
        assert described["memory"][0]["what"] == "weights"

    def test_sizes_that_are_not_given_are_open(self, path):
        assert printed("inspect", path)["outputs"][0]["shape"] == [None, 3]
        assert "dimension 0 of input 'x'" in call("inspect", path).stdout

    def test_dumps_of_the_compiler(self, path):
        listed = call("inspect", path, "--dump", "list").stdout.split()
        assert "kernels" in listed
        for what in listed:
            done = call("inspect", path, "--dump", what)
            assert (done.returncode, done.stderr) == (0, "")
        assert "def kernel(" in call("inspect", path, "--dump", "kernels").stdout
        assert "N" in call("inspect", path, "--dump", "import").stdout
        assert "N" not in call("inspect", path, "--dump", "import", "--dim", "N=4").stdout
        done = call("inspect", path, "--dump", "nonsense")
        assert done.returncode == 1
        assert "kernels" in done.stderr


class TestVerify:
    @pytest.mark.parametrize("reference", ["onnxruntime", "onnx"])
    def test_agreement_is_status_0(self, path, reference):
        (row,) = printed("verify", path, "--against", reference, "--dim", "N=3")
        assert row["agrees"] is True
        assert row["max error"] == 0

    def test_mismatch_is_status_1(self, tmp_path):
        data = model([helper.make_node("Exp", ["x"], ["y"])], [tensor("x", [1000])], [tensor("y", [1000])])
        (tmp_path / "exp.onnx").write_bytes(data)
        done = call("verify", tmp_path / "exp.onnx", "--rtol", 0, "--atol", 0, "--format", "json")
        assert done.returncode == 1
        assert json.loads(done.stdout)[0]["agrees"] is False

    @pytest.mark.parametrize(
        "result, reference, agrees",
        [
            ([1.0, 2.0], [1.0, 2.0], True),
            ([1.0, 2.0], [1.0, 2.1], False),
            ([1.0, np.nan], [1.0, np.nan], True),
            ([1.0, 0.0], [1.0, np.nan], False),
            ([np.nan, 0.0], [1.0, 0.0], False),
            ([np.inf, 0.0], [-np.inf, 0.0], False),
            ([1.0], [1.0, 1.0], False),
            ([], [], True),
        ],
    )
    def test_compare_floats(self, result, reference, agrees):
        row = compare("y", np.array(result), np.array(reference), 1e-3, 1e-5)
        assert row["agrees"] is agrees

    def test_compare_other_types(self):
        assert compare("y", np.array([1, 2]), np.array([1, 2]), 0, 0)["agrees"]
        assert not compare("y", np.array([1, 2]), np.array([1, 3]), 0, 0)["agrees"]
        assert not compare("y", np.array([1, 2]), np.array([1.0, 2.0]), 0, 0)["agrees"]
        words = np.array(["a", "b"], object)
        assert compare("y", words, words.copy(), 0, 0)["agrees"]


class TestProfile:
    def test_steps_as_json(self, path):
        told = printed("profile", path, "--dim", "N=5", "--repeats", 2, "--threads", 1)
        (row,) = told["steps"]
        assert (row["kernel"], row["nodes"], row["step"]) == ("map", ["add"], 0)
        assert (row["flops"], row["bytes"]) == (15, 3 * 4 * 15)
        assert row["% of time"] == 100
        assert row["seconds"] > 0 and told["run ms"] > 0
        assert (told["threads"], told["flops"], told["bytes"]) == (1, 15, 180)
        machine = told["machine"]
        assert machine["peak GFLOP/s"] > 0
        assert machine["bandwidth GB/s"] == max(stream["rate"] for stream in machine["streams"]) / 1e9

    def test_table_and_files(self, path, tmp_path):
        page, trace = tmp_path / "page.html", tmp_path / "trace.json"
        done = call("profile", path, "--repeats", 3, "--by-kernel", "--html", page, "--trace", trace)
        assert (done.returncode, done.stderr) == (0, "")
        for word in ("add.onnx", "map", "add", "GFLOP/s", "% of roofline"):
            assert word in done.stdout
        assert "<title>add.onnx" in page.read_text()
        events = json.loads(trace.read_text())
        assert [event["name"] for event in events] == ["add_kernel_time", "model_run"] * 3
        assert events[0]["args"]["flops"] == 3

    def test_inputs_from_files(self, relu_model, tmp_path):
        (tmp_path / "relu.onnx").write_bytes(relu_model)
        np.save(tmp_path / "x.npy", np.zeros(50, np.float32))
        (row,) = printed("profile", tmp_path / "relu.onnx", tmp_path / "x.npy", "--repeats", 1, "--by-kernel")[
            "kernels"
        ]
        assert (row["steps"], row["flops"], row["bytes"]) == (1, 50, 400)

    def test_wrong_usage_and_refused_models(self, path, tmp_path):
        assert call("profile", path, "--repeats", 0).returncode == 2
        assert call("profile", path, "--dim", "M=2").returncode == 2
        assert call("profile", tmp_path / "gone.onnx").returncode == 1


class TestBench:
    def test_beside_onnxruntime_with_cold_start(self, path):
        rows = printed("bench", path, "--seconds", 0.05, "--engine", "onnxsmith", "--engine", "onnxruntime", "--cold")
        assert [row["runtime"] for row in rows] == ["onnxsmith", "onnxruntime"]
        for row in rows:
            assert 0 < row["min"] <= row["p50"] <= row["p90"] <= row["p99"]
            assert row["cold import"] > 0 and row["cold session"] > 0 and row["cold first run"] > 0

    def test_unknown_engine_is_wrong_usage(self, path):
        assert call("bench", path, "--engine", "abacus").returncode == 2

    def test_calls_take_turns_and_the_first_of_a_turn_is_not_timed(self):
        order = []
        samples = measure({name: (lambda name=name: order.append(name)) for name in "ab"}, 0.0)
        assert order[:2] == ["a", "a"]
        assert order.count("a") == len(samples["a"]) + 1
        first, second = summarize({"a": [1e-3, 3e-3], "b": [4e-3, 4e-3]})
        assert (first["p50"], first["times the first"]) == (2.0, 1.0)
        assert (second["p50"], second["times the first"]) == (4.0, 2.0)


class TestCache:
    def test_info_prune_and_clear(self, path, tmp_path):
        cache = {"ONNXSMITH_CACHE_DIR": str(tmp_path / "cache")}
        assert printed("cache", "info", **cache)[-1]["entries"] == 0
        printed("compile", path, **cache)
        info = {row["store"]: row for row in printed("cache", "info", **cache)}
        assert info["programs"]["entries"] == 1
        assert info["all"]["bytes"] == sum(
            info[store]["bytes"] for store in ("kernels", "programs", "sources", "tilings")
        )
        assert printed("cache", "prune", **cache)[0]["entries"] == 0
        assert printed("cache", "prune", "--bytes", info["all"]["bytes"] - 1, **cache)[0]["entries"] >= 1
        left = printed("cache", "info", **cache)[-1]
        assert printed("cache", "prune", **cache, ONNXSMITH_CACHE_BYTES=str(left["bytes"] - 1))[0]["entries"] >= 1
        printed("cache", "clear", **cache)
        assert printed("cache", "info", **cache)[-1]["entries"] == 0

    def test_no_cache_is_wrong_usage(self):
        assert call("cache", "info", ONNXSMITH_CACHE="off").returncode == 2


class TestCompileToPackage:
    def test_folder_zip_and_wheel(self, path, tmp_path):
        for arguments, name in (
            (["-o", tmp_path / "my_model"], "my_model"),
            (["-o", tmp_path / "my_model.zip"], "my_model.zip"),
            (["-o", tmp_path / "my_model", "--wheel", "--package-version", "1.5"], "my_model-1.5-py3-none-"),
        ):
            (row,) = printed("compile", path, *arguments)
            assert row["program"].startswith(str(tmp_path / name)) and row["bytes"] > 10_000
            assert row["c_functions"] == "my_model.h"
            (z,) = onnxsmith.load(row["program"], verify=True).run(None, {"x": np.ones((2, 3), np.float32)} | Y)
            assert z.tolist() == [[3, 3, 3]] * 2

    def test_targets_that_are_refused(self, path, tmp_path):
        done = call("compile", path, "--target", "aarch64-linux")
        assert (done.returncode, done.stdout) == (2, "") and "name one with --output" in done.stderr
        done = call("compile", path, "-o", tmp_path / "add", "--target", "aarch64-beos")
        assert done.returncode == 1 and "There is no target 'aarch64-beos'" in done.stderr

    def test_a_name_that_cannot_be_imported_is_one_line(self, path, tmp_path):
        done = call("compile", path, "-o", tmp_path / "my-model")
        assert done.returncode == 1 and "my_model" in done.stderr and "Traceback" not in done.stderr


Y = {"y": np.full((2, 3), 2, np.float32)}
