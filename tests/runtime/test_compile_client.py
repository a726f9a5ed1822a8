"""The way from a model to its program: cache, compile process, and what may go wrong between them."""

from __future__ import annotations

import hashlib
import io
import os
import signal
import subprocess
import sys
import threading
import time
import warnings
from dataclasses import astuple

import numpy as np
import pytest
from onnx import helper
from small_models import model, tensor

import onnxsmith
from onnxsmith import compile_client, compile_process, protocol, source
from onnxsmith.cache import open_cache
from onnxsmith.compile_client import Model, find_program
from onnxsmith.errors import EngineError, Fail, InvalidArgument, InvalidProtobuf
from onnxsmith.options import Settings, settings
from onnxsmith_compiler.worker import Request


@pytest.fixture
def fresh(tmp_path) -> Settings:
    """Settings with an empty cache of the test's own."""
    return Settings(str(tmp_path / "cache"))


def compile_process_id() -> int:
    return compile_process._SERVICE._process._process.pid


class TestProtocol:
    def test_messages_come_through(self):
        stream = io.BytesIO()
        sent = [({"kind": "a", "text": "\u00fc\ud800"}, b""), ({"kind": "b"}, b"\0" * 1000), ({}, b"x")]
        for message, data in sent:
            protocol.send(stream, message, data)
        stream.seek(0)
        assert [protocol.receive(stream) for _ in sent] == sent
        assert protocol.receive(stream) is None

    def test_broken_stream_is_an_error(self):
        stream = io.BytesIO()
        protocol.send(stream, {"kind": "a"}, b"data")
        for length in range(1, len(stream.getvalue())):
            with pytest.raises(EOFError):
                protocol.receive(io.BytesIO(stream.getvalue()[:length]))

    @pytest.mark.parametrize("junk", [b"\xff" * 40, b"\2" + b"\0" * 15 + b"[]", b"\2" + b"\0" * 15 + b"{x"])
    def test_junk_is_an_error(self, junk):
        with pytest.raises(ValueError):
            protocol.receive(io.BytesIO(junk))


class TestCompileProcess:
    def test_serves_many_models(self, relu_model, add_model, fresh):
        find_program(Model(None, relu_model), {}, fresh)
        first = compile_process_id()
        find_program(Model(None, add_model), {}, fresh)
        with pytest.raises(InvalidProtobuf):
            find_program(Model(None, b"junkjunk"), {}, fresh)
        find_program(Model(None, relu_model), {"optimization_level": 0}, fresh)
        assert compile_process_id() == first

    @pytest.mark.parametrize("is_large", [False, True])
    def test_is_started_before_a_large_model_is_read(self, add_model, fresh, tmp_path, monkeypatch, is_large):
        path = tmp_path / "m.onnx"
        path.write_bytes(add_model)
        os.utime(path, (1000, 1000))
        read_digest, running = source.read_digest, []

        def read(name):
            running.append(compile_process._SERVICE._process is not None)
            return read_digest(name)

        monkeypatch.setattr(source, "read_digest", read)
        monkeypatch.setattr(compile_client, "_LONG_READ_BYTES", len(add_model) + (0 if is_large else 1))
        compile_process._SERVICE.close()
        assert find_program(Model(str(path), None), {}, fresh).key is not None
        assert running == [is_large]

    def test_a_killed_process_is_replaced(self, relu_model, fresh):
        find_program(Model(None, relu_model), {}, fresh)
        first = compile_process_id()
        os.kill(first, signal.SIGKILL)
        time.sleep(0.1)
        with pytest.raises(EngineError, match="killed by signal 9"):
            find_program(Model(None, relu_model), {"optimization_level": 0}, fresh)
        find_program(Model(None, relu_model), {"optimization_level": 0}, fresh)
        assert compile_process_id() != first

    def test_a_process_that_left_when_idle_is_replaced_unnoticed(self, relu_model, fresh):
        find_program(Model(None, relu_model), {}, fresh)
        first = compile_process_id()
        serve = "from onnxsmith_compiler.worker import serve; serve(sys.stdin.buffer, sys.stdout.buffer, 0.2)"
        idle = subprocess.Popen(
            [sys.executable, "-c", f"import sys; {serve}"], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        assert idle.wait(20) == 0
        process = compile_process._SERVICE._process
        process._process.kill()
        process._process.wait()
        process._process = idle
        find_program(Model(None, relu_model), {"optimization_level": 0}, fresh)
        assert compile_process_id() not in (first, idle.pid)

    def test_time_limit(self, fresh):
        nodes = [
            helper.make_node(kind, [f"x{i}"], [f"x{i + 1}"])
            for i, kind in enumerate(["Relu", "Neg", "Exp", "Sqrt"] * 5)
        ]
        data = model(nodes, [tensor("x0", ["N"])], [tensor("x20", ["N"])])
        limited = Settings(fresh.cache_dir, compile_seconds=0.01)
        with pytest.raises(Fail, match=r"longer than the 0\.01 seconds"):
            find_program(Model(None, data), {}, limited)
        find_program(Model(None, data), {}, fresh)

    def test_progress_is_heard(self, relu_model, fresh):
        heard = []
        find_program(Model(None, relu_model), {}, fresh, lambda *stage: heard.append(stage))
        assert heard
        assert all(isinstance(stage, str) and done >= 0 for stage, done, _ in heard)

    def test_interrupted_conversation_does_not_disturb_the_next(self, relu_model, fresh):
        def interrupt(stage: str, done: int, total: int) -> None:
            raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            find_program(Model(None, relu_model), {}, fresh, interrupt)
        assert find_program(Model(None, relu_model), {}, fresh).path.is_dir()

    def test_threads_share_it(self, fresh):
        models = [
            model([helper.make_node("Relu", ["x"], ["y"])], [tensor("x", [n])], [tensor("y", [n])])
            for n in (3, 4, 5, 3)
        ]
        found = []
        threads = [
            threading.Thread(target=lambda data=data: found.append(find_program(Model(None, data), {}, fresh).key))
            for data in models
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(found) == 4
        assert len(set(found)) == 3

    @pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
    def test_a_forked_child_starts_its_own(self, relu_model, fresh):
        find_program(Model(None, relu_model), {}, fresh)
        first = compile_process_id()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)
            child = os.fork()
        if child == 0:
            status = 1
            try:
                find_program(Model(None, relu_model), {"optimization_level": 0}, fresh)
                status = int(compile_process_id() == first)
                compile_process._SERVICE.close()
            finally:
                os._exit(status)
        assert os.waitpid(child, 0)[1] == 0
        find_program(Model(None, relu_model), {"optimization_level": 1}, fresh)
        assert compile_process_id() == first

    def test_compiling_is_logged(self, relu_model, fresh, caplog):
        with caplog.at_level("INFO", "onnxsmith"):
            find_program(Model(None, relu_model), {}, fresh)
            find_program(Model(None, relu_model), {}, fresh)
        assert len(caplog.records) == 1
        assert "Compiled the model given as bytes in" in caplog.text

    @pytest.mark.parametrize(
        "options, sentence",
        [
            ({"speed": "11"}, "no option 'speed'"),
            ({"workers": "many"}, "'workers' cannot be 'many'"),
            ({"precision": "int8"}, "'precision' cannot be 'int8': it is one of fp32, bf16"),
        ],
    )
    def test_options_it_does_not_know_are_refused(self, relu_model, fresh, options, sentence):
        with pytest.raises(InvalidArgument, match=sentence):
            find_program(Model(None, relu_model), options, fresh)


class TestCache:
    def test_second_time_nothing_is_compiled(self, relu_model, fresh, monkeypatch, tmp_path):
        path = tmp_path / "relu.onnx"
        path.write_bytes(relu_model)
        first = find_program(Model(str(path), None), {}, fresh)
        monkeypatch.setattr(compile_process, "call", lambda *call: pytest.fail("was compiled"))
        assert find_program(Model(str(path), None), {}, fresh) == first
        assert find_program(Model(None, relu_model), {}, fresh) == first
        copy = tmp_path / "copy.onnx"
        copy.write_bytes(relu_model)
        assert find_program(Model(str(copy), None), {}, fresh) == first

    def test_a_program_larger_than_the_cache_stays_while_it_is_open(self, relu_model, tmp_path, monkeypatch):
        monkeypatch.setenv("ONNXSMITH_CACHE_DIR", str(tmp_path / "cache"))
        monkeypatch.setenv("ONNXSMITH_CACHE_BYTES", "1000")
        session = onnxsmith.InferenceSession(relu_model)
        cache = open_cache(tmp_path / "cache", 1000)
        cache.prune()
        assert [entry.store for entry in cache.entries()] == ["programs"]
        del session
        cache.prune()
        assert cache.entries() == []

    def test_options_make_another_program(self, relu_model, fresh):
        keys = {
            find_program(Model(None, relu_model), options, fresh).key
            for options in ({}, {"optimization_level": 0}, {"dimensions": {"N": 3}})
        }
        assert len(keys) == 3

    @pytest.mark.parametrize("file", ["code.so", "program.json", "manifest.json", "weights.safetensors"])
    @pytest.mark.parametrize("damage", ["truncated", "gone", "changed"])
    def test_damaged_program_is_compiled_anew(self, relu_model, cache_folder, file, damage):
        if (file, damage) == ("weights.safetensors", "changed"):
            pytest.skip("weights are mapped, not read: their contents are checked on demand")
        chosen = settings()
        onnxsmith.InferenceSession(relu_model)
        (entry,) = [
            entry
            for entry in open_cache(cache_folder).programs.entries()
            if entry.key == find_program(Model(None, relu_model), {"optimization_level": 99}, chosen).key
        ]
        path = entry.path / file
        content = path.read_bytes()
        path.unlink()
        if damage == "truncated":
            path.write_bytes(content[:-1])
        elif damage == "changed":
            path.write_bytes(content[: len(content) // 2] + b"\x01" + content[len(content) // 2 + 1 :])
        session = onnxsmith.InferenceSession(relu_model)
        assert session.run(None, {"x": [-1.0, 2.0]})[0].tolist() == [0, 2]
        assert path.read_bytes() == content

    def test_process_that_ends_at_once_leaves_its_program_on_the_disk(self, relu_model, tmp_path):
        path, folder = tmp_path / "model.onnx", tmp_path / "cache"
        path.write_bytes(relu_model)
        script = f"import onnxsmith; onnxsmith.InferenceSession({str(path)!r})"
        environment = os.environ | {"ONNXSMITH_CACHE_DIR": str(folder)}
        subprocess.run([sys.executable, "-c", script], env=environment, check=True)
        (entry,) = open_cache(folder).programs.entries()
        assert (entry.path / "sealed").exists()

    def test_processes_compile_one_model_once(self, tmp_path):
        data = model(
            [helper.make_node("Relu", ["x"], ["a"]), helper.make_node("Neg", ["a"], ["y"])],
            [tensor("x", ["N"])],
            [tensor("y", ["N"])],
        )
        (tmp_path / "model.onnx").write_bytes(data)
        script = (
            "import sys; from onnxsmith.compile_client import Model, find_program\n"
            "from onnxsmith.options import settings\n"
            "stages = set()\n"
            "find_program(Model(sys.argv[1], None), {}, settings(), lambda stage, *_: stages.add(stage))\n"
            "print('compiling kernels' in stages)\n"
        )
        started = [
            subprocess.Popen(
                [sys.executable, "-c", script, str(tmp_path / "model.onnx")],
                stdout=subprocess.PIPE,
                text=True,
                env=os.environ | {"ONNXSMITH_CACHE_DIR": str(tmp_path / "cache")},
            )
            for _ in range(3)
        ]
        assert sorted(process.communicate()[0] for process in started) == ["False\n", "False\n", "True\n"]

    def test_unsafe_folder_is_not_used(self, relu_model, tmp_path, monkeypatch, caplog):
        folder = tmp_path / "open"
        folder.mkdir()
        folder.chmod(0o777)
        monkeypatch.setenv("ONNXSMITH_CACHE_DIR", str(folder))
        session = onnxsmith.InferenceSession(relu_model)
        assert [record.levelname for record in caplog.records] == ["WARNING"]
        assert "others may write" in caplog.text
        assert session.run(None, {"x": [-1.0]})[0] == [0]
        assert list(folder.iterdir()) == []

    def test_model_that_changes_is_compiled_anew(self, tmp_path, relu_model):
        path = tmp_path / "model.onnx"
        path.write_bytes(relu_model)
        assert onnxsmith.InferenceSession(path).run(None, {"x": [-1.0]})[0] == [0]
        data = model([helper.make_node("Neg", ["x"], ["y"], name="relu")], [tensor("x", ["N"])], [tensor("y", ["N"])])
        path.write_bytes(data)
        assert onnxsmith.InferenceSession(path).run(None, {"x": [-1.0]})[0] == [1]


class TestReadOnce:
    """The compile process takes the session's word for what is in a file that has not changed since."""

    def test_the_session_says_what_it_read(self, fresh, tmp_path, monkeypatch):
        path = tmp_path / "m.onnx"
        path.write_bytes(b"no model")
        os.utime(path, (1000, 1000))
        requests = []

        def call(request, *others):
            requests.append(request)
            raise InvalidProtobuf("no model")

        monkeypatch.setattr(compile_process, "call", call)
        for _ in range(2):
            with pytest.raises(InvalidProtobuf):
                find_program(Model(str(path), None), {}, fresh)
            os.utime(path)  # written so recently that a further write may not show
        digest = hashlib.sha256(b"no model").hexdigest()
        assert [request["own"] for request in requests] == [[*requests[0]["own"][:-1], digest], None]
        assert requests[0]["own"][3:] == [len(b"no model"), 1000 * 10**9, digest]

    def test_and_is_believed_of_that_file_alone(self, tmp_path):
        path = tmp_path / "m.onnx"
        path.write_bytes(b"model")
        before = source.stamp(str(path))
        request = Request({"own": [*astuple(before), "what it read"]}, b"", io.BytesIO())
        assert request.own_digest(before) == "what it read"
        path.write_bytes(b"another model")
        digest = hashlib.sha256(b"another model").hexdigest()
        assert request.own_digest(source.stamp(str(path))) == digest
        assert Request({}, b"", io.BytesIO()).own_digest(before) == digest


class TestExternalData:
    @pytest.fixture
    def path(self, tmp_path):
        """y = x + w, w in a file of its own."""
        (tmp_path / "w.bin").write_bytes(np.array([1, 2, 3], np.float32).tobytes())
        weight = helper.make_tensor("w", 1, [3], [0, 0, 0])
        weight.ClearField("float_data")
        weight.data_location = 1
        weight.external_data.add(key="location", value="w.bin")
        path = tmp_path / "model.onnx"
        path.write_bytes(
            model([helper.make_node("Add", ["x", "w"], ["y"])], [tensor("x", [3])], [tensor("y", [3])], [weight])
        )
        for file in tmp_path.iterdir():
            os.utime(file, (1000, 1000))
        return path

    def run(self, path) -> list[float]:
        return onnxsmith.InferenceSession(path).run(None, {"x": [0.0, 0.0, 0.0]})[0].tolist()

    def test_change_is_noticed(self, path):
        assert self.run(path) == self.run(path) == [1, 2, 3]
        (path.parent / "w.bin").write_bytes(np.array([4, 5, 6], np.float32).tobytes())
        assert self.run(path) == [4, 5, 6]

    def test_missing_file_has_a_name(self, path):
        (path.parent / "w.bin").unlink()
        with pytest.raises(Exception, match=r"w\.bin"):
            self.run(path)


class TestReplacedInitializers:
    @pytest.fixture
    def data(self) -> bytes:
        """y = x + w."""
        weight = helper.make_tensor("w", 1, [3], [1, 2, 3])
        return model([helper.make_node("Add", ["x", "w"], ["y"])], [tensor("x", [3])], [tensor("y", [3])], [weight])

    def run(self, source, **initializers) -> list[float]:
        options = onnxsmith.SessionOptions()
        for name, value in initializers.items():
            options.add_initializer(name, value)
        session = onnxsmith.InferenceSession(source, options)
        return session.run(None, {"x": [0.0, 0.0, 0.0]})[0].tolist()

    @pytest.mark.parametrize("as_file", [False, True])
    def test_each_value_makes_its_own_program(self, data, as_file, tmp_path):
        source = tmp_path / "model.onnx" if as_file else data
        if as_file:
            source.write_bytes(data)
        values = [np.array([4, 5, 6], np.float32), np.array([7, 8, 9], np.float32)]
        for value in [*values, *values]:
            assert self.run(source, w=value) == value.tolist()
            assert self.run(source, w=onnxsmith.OrtValue.ortvalue_from_numpy(value)) == value.tolist()
        assert self.run(source) == [1, 2, 3]

    def test_second_time_nothing_is_compiled(self, data, monkeypatch):
        value = np.array([2, 4, 8], np.float32)
        self.run(data, w=value)
        monkeypatch.setattr(compile_process, "call", lambda *call: pytest.fail("was compiled"))
        assert self.run(data, w=value) == [2, 4, 8]

    def test_external_file_is_not_needed(self, tmp_path):
        weight = helper.make_tensor("w", 1, [3], [0, 0, 0])
        weight.ClearField("float_data")
        weight.data_location = 1
        weight.external_data.add(key="location", value="gone.bin")
        path = tmp_path / "model.onnx"
        path.write_bytes(
            model([helper.make_node("Add", ["x", "w"], ["y"])], [tensor("x", [3])], [tensor("y", [3])], [weight])
        )
        assert self.run(path, w=np.array([1, 0, 1], np.float32)) == [1, 0, 1]
        with pytest.raises(Exception, match=r"gone\.bin"):
            self.run(path)

    @pytest.mark.parametrize(
        "name, value, sentence",
        [
            ("q", np.zeros(3, np.float32), "no initializer 'q'"),
            ("w", np.zeros(2, np.float32), r"'w' is FLOAT\[3\]; its replacement is FLOAT\[2\]"),
            ("w", np.zeros(3), r"'w' is FLOAT\[3\]; its replacement is DOUBLE\[3\]"),
        ],
    )
    def test_what_does_not_fit_is_refused(self, data, name, value, sentence):
        with pytest.raises(InvalidArgument, match=sentence):
            self.run(data, **{name: value})
        options = onnxsmith.SessionOptions()
        options.add_external_initializers(["w"], [np.zeros(3, np.float32)])
        with pytest.raises(RuntimeError, match="already been added: w"):
            options.add_initializer("w", np.zeros(3, np.float32))
