"""InferenceSession: everything that existing code does with onnxruntime's, side by side with it."""

from __future__ import annotations

import gc
import json
import os
import pathlib
import pickle
import subprocess
import sys
import threading
import time
import warnings

import ml_dtypes
import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper
from small_models import model, tensor

import onnxsmith
from onnxsmith.errors import EPFail, Fail, InvalidArgument, NoSuchFile, NotImplemented

CPU = ["CPUExecutionProvider"]


@pytest.fixture(scope="module")
def add(add_model):
    return onnxsmith.InferenceSession(add_model)


@pytest.fixture(scope="module")
def relu(relu_model):
    return onnxsmith.InferenceSession(relu_model)


def both(data: bytes):
    return onnxsmith.InferenceSession(data), onnxruntime.InferenceSession(data, providers=CPU)


class TestConstruction:
    def test_from_bytes_str_and_path(self, add_model, tmp_path, random):
        path = tmp_path / "add.onnx"
        path.write_bytes(add_model)
        x, y = random(2, 3), random(2, 3)
        for source in (add_model, str(path), path, pathlib.PurePath(path)):
            (z,) = onnxsmith.InferenceSession(source).run(None, {"x": x, "y": y})
            np.testing.assert_array_equal(z, x + y)

    @pytest.mark.parametrize("source", [3, None, bytearray(b"x"), [b"x"]])
    def test_other_types_are_refused_as_by_onnxruntime(self, source):
        with pytest.raises(TypeError) as ours:
            onnxsmith.InferenceSession(source)
        with pytest.raises(TypeError) as theirs:
            onnxruntime.InferenceSession(source)
        assert str(ours.value) == str(theirs.value)

    @pytest.mark.parametrize("content", [b"junkjunk", b"", "truncated"])
    @pytest.mark.parametrize("as_file", [False, True])
    def test_what_is_no_model_has_onnxruntimes_class(self, content, as_file, add_model, tmp_path):
        source = add_model[:50] if content == "truncated" else content
        if as_file:
            path = tmp_path / "bad.onnx"
            path.write_bytes(source)
            source = str(path)
        with pytest.raises(Exception) as theirs:
            onnxruntime.InferenceSession(source, providers=CPU)
        with pytest.raises(Exception) as ours:
            onnxsmith.InferenceSession(source)
        assert type(ours.value).__name__ == type(theirs.value).__name__
        assert str(ours.value).split(" : ")[:3] == str(theirs.value).split(" : ")[:3]

    def test_missing_file_is_named(self, tmp_path):
        with pytest.raises(NoSuchFile, match=r"3 : NO_SUCHFILE : .*gone\.onnx"):
            onnxsmith.InferenceSession(tmp_path / "gone.onnx")

    def test_options_of_another_type_are_refused(self, relu_model):
        with pytest.raises(TypeError, match="SessionOptions"):
            onnxsmith.InferenceSession(relu_model, onnxruntime.SessionOptions())

    def test_unknown_keyword_is_mentioned(self, relu_model):
        with pytest.warns(UserWarning, match="'sess_option'"):
            onnxsmith.InferenceSession(relu_model, sess_option=1)

    def test_unsupported_option_is_refused(self, relu_model):
        options = onnxsmith.SessionOptions()
        options.optimized_model_filepath = "optimised.onnx"
        with pytest.raises(NotImplemented, match="optimized_model_filepath"):
            onnxsmith.InferenceSession(relu_model, options)

    def test_free_dimension_is_fixed(self, add_model, random):
        options = onnxsmith.SessionOptions()
        options.add_free_dimension_override_by_name("N", 2)
        session = onnxsmith.InferenceSession(add_model, options)
        assert [argument.shape for argument in (*session.get_inputs(), *session.get_outputs())] == [[2, 3]] * 3
        session.run(None, {"x": random(2, 3), "y": random(2, 3)})
        with pytest.raises(InvalidArgument, match="index: 0 Got: 3 Expected: 2"):
            session.run(None, {"x": random(3, 3), "y": random(3, 3)})

    @pytest.mark.parametrize("level", list(onnxsmith.GraphOptimizationLevel))
    def test_every_optimization_level_gives_the_same(self, level, add_model, random):
        options = onnxsmith.SessionOptions()
        options.graph_optimization_level = level
        x = random(4, 3)
        (z,) = onnxsmith.InferenceSession(add_model, options).run(None, {"x": x, "y": x})
        np.testing.assert_array_equal(z, x + x)


class TestProviders:
    def test_default_is_cpu(self, relu):
        assert relu.get_providers() == CPU
        assert relu.get_provider_options() == {"CPUExecutionProvider": {}}
        assert onnxsmith.get_device() == onnxruntime.get_device()
        assert set(onnxsmith.get_available_providers()) <= set(onnxsmith.get_all_providers())
        assert set(onnxsmith.get_all_providers()) <= set(onnxruntime.get_all_providers())

    def test_missing_device_is_an_error(self, relu_model):
        for providers in (["CUDAExecutionProvider"], [("CUDAExecutionProvider", {"device_id": 0})], ["Nope"]):
            with pytest.raises(EPFail, match="not available here"):
                onnxsmith.InferenceSession(relu_model, providers=providers)

    def test_missing_device_with_a_named_fallback_is_a_warning(self, relu_model):
        with pytest.warns(UserWarning, match="'CUDAExecutionProvider' is not available"):
            session = onnxsmith.InferenceSession(
                relu_model, providers=["CUDAExecutionProvider", "CPUExecutionProvider"]
            )
        assert session.get_providers() == CPU
        with pytest.warns(UserWarning, match="runs on CPUExecutionProvider"):
            onnxsmith.InferenceSession(relu_model, providers=["CUDAExecutionProvider"], enable_fallback=True)

    def test_options_of_providers(self, relu_model):
        given = [("CPUExecutionProvider", {"a": 1})]
        session = onnxsmith.InferenceSession(relu_model, providers=given)
        assert session.get_provider_options() == {"CPUExecutionProvider": {"a": "1"}}
        session = onnxsmith.InferenceSession(relu_model, None, CPU, [{"a": 2}])
        assert session.get_provider_options() == {"CPUExecutionProvider": {"a": "2"}}

    @pytest.mark.parametrize(
        "providers, options",
        [(CPU, [{}, {}]), ("CPUExecutionProvider", None), ([("CPUExecutionProvider",)], None), (CPU, [1])],
    )
    def test_malformed_arguments(self, relu_model, providers, options):
        with pytest.raises(ValueError, match="provider"):
            onnxsmith.InferenceSession(relu_model, None, providers, options)

    def test_set_providers_keeps_the_session_usable(self, relu_model, random):
        session = onnxsmith.InferenceSession(relu_model)
        session.set_providers(CPU)
        x = random(5)
        np.testing.assert_array_equal(session.run(None, {"x": x})[0], np.maximum(x, 0))
        with pytest.raises(EPFail):
            session.set_providers(["CUDAExecutionProvider"])
        assert session.run(None, {"x": x})[0].shape == (5,)


class TestGetters:
    def test_inputs_and_outputs_are_described_as_by_onnxruntime(self):
        data = model(
            [helper.make_node("Identity", ["x"], ["y"]), helper.make_node("Identity", ["s"], ["t"])],
            [tensor("x", ["N", None, 3]), tensor("s", [], TensorProto.INT64)],
            [tensor("y", ["N", None, 3]), tensor("t", [], TensorProto.INT64)],
        )
        ours, theirs = both(data)
        for mine, their in zip(
            ours.get_inputs() + ours.get_outputs(), theirs.get_inputs() + theirs.get_outputs(), strict=True
        ):
            assert (mine.name, mine.type, mine.shape) == (their.name, their.type, their.shape)
            assert str(mine) == str(their)

    def test_metadata(self):
        proto = onnx.load_from_string(
            model(
                [helper.make_node("Relu", ["x"], ["y"])],
                [tensor("x", ["N"])],
                [tensor("y", ["N"])],
                producer_name="me",
                domain="org.example",
                doc_string="about",
                model_version=7,
            )
        )
        helper.set_model_props(proto, {"author": "somebody"})
        ours, theirs = (session.get_modelmeta() for session in both(proto.SerializeToString()))
        for name in ("producer_name", "graph_name", "domain", "description", "graph_description", "version"):
            assert getattr(ours, name) == getattr(theirs, name), name
        assert ours.custom_metadata_map == theirs.custom_metadata_map == {"author": "somebody"}

    def test_session_options_and_time(self, relu_model):
        options = onnxsmith.SessionOptions()
        session = onnxsmith.InferenceSession(relu_model, options)
        assert session.get_session_options() is options
        assert isinstance(session.get_profiling_start_time_ns(), int)


class TestRun:
    def test_outputs_by_name(self):
        data = model(
            [helper.make_node("Relu", ["x"], ["y"]), helper.make_node("Neg", ["x"], ["z"])],
            [tensor("x", ["N"])],
            [tensor("y", ["N"]), tensor("z", ["N"])],
        )
        ours, theirs = both(data)
        feed = {"x": np.array([-1, 2, np.nan, -np.inf], np.float32)}
        for names in (None, [], ["z"], ["z", "y"], ("y", "z"), ["y", "y", "z", "y"]):
            found, expected = ours.run(names, feed), theirs.run(names, feed)
            assert len(found) == len(expected)
            for mine, their in zip(found, expected, strict=True):
                np.testing.assert_array_equal(mine, their)

    def test_repeated_output_names_give_arrays_of_their_own(self, relu):
        first, second = relu.run(["y", "y"], {"x": np.ones(3, np.float32)})
        first[0] = 5
        assert second[0] == 1

    def test_results_are_the_callers_own(self, relu, random):
        x = random(8)
        kept = x.copy()
        first = relu.run(None, {"x": x})[0]
        copy = first.copy()
        second = relu.run(None, {"x": -x})[0]
        np.testing.assert_array_equal(first, copy)
        np.testing.assert_array_equal(x, kept)
        assert not np.shares_memory(first, second)
        assert not np.shares_memory(first, x)
        assert first.flags.writeable

    def test_result_that_is_an_input_is_a_copy(self, random):
        data = model([helper.make_node("Identity", ["x"], ["y"])], [tensor("x", ["N"])], [tensor("y", ["N"])])
        x = random(4)
        y = onnxsmith.InferenceSession(data).run(None, {"x": x})[0]
        y[0] = 7
        assert x[0] != 7

    def test_results_outlive_the_session(self, relu_model, random):
        session = onnxsmith.InferenceSession(relu_model)
        x = random(1000)
        y = session.run(None, {"x": x})[0]
        del session
        gc.collect()
        np.testing.assert_array_equal(y, np.maximum(x, 0))

    @pytest.mark.parametrize(
        "value",
        [
            [[1.0, -2.0, 3.0]],
            [[1, -2, 3]],
            ((1, -2, 3),),
            [np.array([1, -2, 3], np.float32)],
            np.array([[1, -2, 3]], ">f4"),
            np.asfortranarray(np.arange(6, dtype=np.float32).reshape(2, 3)),
            np.arange(12, dtype=np.float32).reshape(2, 6)[:, ::2],
            np.arange(6, dtype=np.float32)[::-1].reshape(2, 3),
            np.frombuffer(b"\0" + np.arange(3, dtype=np.float32).tobytes(), np.float32, offset=1).reshape(1, 3),
            np.broadcast_to(np.float32(2), (4, 3)),
            np.matrix([[1, 2, 3]], np.float32),
            np.zeros((0, 3), np.float32),
            memoryview(np.ones((2, 3), np.float32)),
        ],
        ids=lambda value: type(value).__name__,
    )
    def test_feeds_of_any_form(self, add, value):
        array = np.asarray(value, np.float32)
        array = array if array.ndim == 2 else np.asarray(value, np.float32)
        (z,) = add.run(None, {"x": value, "y": np.ones_like(array)})
        np.testing.assert_array_equal(z, np.asarray(array, np.float32) + 1)

    def test_objects_that_know_how_to_be_arrays(self, relu):
        class Wrapped:
            def __array__(self, dtype=None, copy=None):
                return np.array([-1, 1], np.float32)

        for value in (Wrapped(), onnxruntime.OrtValue.ortvalue_from_numpy(np.array([-1, 1], np.float32))):
            np.testing.assert_array_equal(relu.run(None, {"x": value})[0], [0, 1])

    def test_scalars(self):
        data = model([helper.make_node("Neg", ["x"], ["y"])], [tensor("x", [])], [tensor("y", [])])
        session = onnxsmith.InferenceSession(data)
        for value in (2.0, 2, np.float32(2), np.array(2, np.float32), [2.0], np.array([2], np.float32)):
            (y,) = session.run(None, {"x": value})
            assert isinstance(y, np.ndarray)
            assert (y.shape, y.dtype, y) == ((), np.float32, -2)

    def test_sizes_may_change_from_run_to_run(self, add, random):
        for size in (1, 7, 3, 0, 7, 100, 1):
            x, y = random(size, 3), random(size, 3)
            np.testing.assert_array_equal(add.run(None, {"x": x, "y": y})[0], x + y)

    def test_many_shapes_do_not_keep_growing(self, relu, random):
        for size in range(1, 200):
            assert relu.run(None, {"x": random(size)})[0].shape == (size,)

    def test_threads_may_run_one_session_at_once(self, add):
        wrong = []

        def work(seed: int) -> None:
            generator = np.random.default_rng(seed)
            for _ in range(200):
                x = generator.standard_normal((generator.integers(1, 50), 3)).astype(np.float32)
                if not np.array_equal(add.run(None, {"x": x, "y": x})[0], x + x):
                    wrong.append(seed)

        threads = [threading.Thread(target=work, args=(seed,)) for seed in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert wrong == []

    def test_run_options(self, relu):
        options = onnxsmith.RunOptions()
        options.logid = "run 1"
        assert relu.run(None, {"x": [1.0]}, options)[0] == [1]
        options.terminate = True
        with pytest.raises(Fail, match="Exiting due to terminate flag being set to true"):
            relu.run(None, {"x": [1.0]}, options)
        with pytest.raises(TypeError, match="RunOptions"):
            relu.run(None, {"x": [1.0]}, {})

    def test_run_async_calls_back_with_results_or_the_error(self, relu):
        heard = []
        done = threading.Event()

        def callback(results, user_data, message):
            heard.append((results, user_data, message))
            done.set()

        relu.run_async(None, {"x": np.array([-1, 1], np.float32)}, callback, "mine")
        assert done.wait(10)
        done.clear()
        relu.run_async(None, {"x": np.array([1.0])}, callback, "mine")
        assert done.wait(10)
        (results, user_data, message), (nothing, _, problem) = heard
        np.testing.assert_array_equal(results[0], [0, 1])
        assert (user_data, message, nothing) == ("mine", "", [])
        assert "Unexpected input data type" in problem


X = np.ones((2, 3), np.float32)
REFUSED_FEEDS = [  # what is fed, and what the message must say
    ({"x": X}, "Required inputs (['y']) are missing from input feed (['x'])"),
    ({"x": X, "y": X, "q": X}, "Invalid input name: q"),
    (
        {"x": X.astype(np.float64), "y": X},
        "Actual: (tensor(double)) , expected: (tensor(float)) for input: x",
    ),
    (
        {"x": X, "y": X.astype(np.float16)},
        "Actual: (tensor(float16)) , expected: (tensor(float)) for input: y",
    ),
    (
        {"x": X, "y": np.array([["a"]])},
        "Actual: (tensor(string)) , expected: (tensor(float)) for input: y",
    ),
    ({"x": X[0], "y": X}, "Invalid rank for input: x Got: 1 Expected: 2"),
    ({"x": X, "y": np.array(1, np.float32)}, "Invalid rank for input: y Got: 0 Expected: 2"),
    ({"x": X, "y": X[:, :2]}, "index: 1 Got: 2 Expected: 3"),
]


class TestRefusedFeeds:
    @pytest.mark.parametrize("feed, sentence", REFUSED_FEEDS, ids=[sentence for _, sentence in REFUSED_FEEDS])
    def test_same_class_and_code_and_a_sentence_that_names_the_input(self, add, add_model, feed, sentence):
        theirs = onnxruntime.InferenceSession(add_model, providers=CPU)
        with pytest.raises(Exception) as expected:
            theirs.run(None, feed)
        with pytest.raises(Exception) as caught:
            add.run(None, feed)
        assert type(caught.value).__name__ == type(expected.value).__name__
        assert str(caught.value).split(" : ")[:-1][:3] == str(expected.value).split(" : ")[:-1][:3]
        assert sentence in str(caught.value)

    def test_unknown_output(self, add):
        with pytest.raises(InvalidArgument, match="Invalid output name:nah"):
            add.run(["nah"], {"x": X, "y": X})
        with pytest.raises(TypeError, match=r"\['z'\]"):
            add.run("z", {"x": X, "y": X})

    @pytest.mark.parametrize("value", [[1, "a"], [[1], [1, 2]], object(), None, {}])
    def test_value_that_is_no_tensor_names_the_input(self, relu, value):
        with pytest.raises(InvalidArgument, match="Input 'x'"):
            relu.run(None, {"x": value})

    @pytest.mark.parametrize("dtype", [np.complex64, "M8[D]", ml_dtypes.bfloat16])
    def test_other_dtypes_are_named(self, relu, dtype):
        with pytest.raises(InvalidArgument, match="Unexpected input data type"):
            relu.run(None, {"x": np.zeros(2, dtype)})

    def test_a_refused_feed_does_not_disturb_the_next(self, add):
        with pytest.raises(InvalidArgument):
            add.run(None, {"x": X[:, :2], "y": X})
        np.testing.assert_array_equal(add.run(None, {"x": X, "y": X})[0], X * 2)

    def test_index_out_of_bounds_names_the_node(self):
        data = model(
            [helper.make_node("Gather", ["x", "i"], ["y"], name="lookup")],
            [tensor("x", ["N"]), tensor("i", ["M"], TensorProto.INT64)],
            [tensor("y", ["M"])],
        )
        ours, theirs = both(data)
        feed = {"x": np.ones(3, np.float32), "i": np.array([1, 7])}
        for session in (ours, theirs):
            with pytest.raises(Exception, match=r"idx=7 must be within the inclusive range \[-3,2\]") as caught:
                session.run(None, feed)
            assert type(caught.value).__name__ == "InvalidArgument"
            assert "lookup" in str(caught.value)


class TestDisagreeingSymbols:
    """onnxruntime lets two inputs disagree on a symbol; so does a program compiled without the equality."""

    @pytest.fixture
    def broadcast(self):
        nodes = [helper.make_node("Relu", ["x"], ["a"]), helper.make_node("Neg", ["y"], ["b"])]
        return model(
            nodes,
            [tensor("x", ["N", 3]), tensor("y", ["N", 3])],
            [tensor("a", ["N", 3]), tensor("b", ["N", 3])],
        )

    def test_one_warning_names_the_symbol_and_both_inputs(self, broadcast, random):
        session = onnxsmith.InferenceSession(broadcast)
        x, y = random(2, 3), random(5, 3)
        with pytest.warns(UserWarning, match="Inputs 'x' and 'y' disagree on the size 'N'"):
            a, b = session.run(None, {"x": x, "y": y})
        np.testing.assert_array_equal(a, np.maximum(x, 0))
        np.testing.assert_array_equal(b, -y)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            a, b = session.run(None, {"x": y, "y": x})
            np.testing.assert_array_equal(b, -x)
            a, b = session.run(None, {"x": x, "y": x})
            np.testing.assert_array_equal(a, np.maximum(x, 0))


@pytest.fixture(scope="module")
def models_with_an_initializer():
    """z = x + w, whose w is an input and an initializer, by IR version."""
    weight = numpy_helper.from_array(np.array([1, 2, 3], np.float32), "w")
    return {
        ir: model(
            [helper.make_node("Add", ["x", "w"], ["z"])],
            [tensor("x", ["N", 3]), tensor("w", [3])],
            [tensor("z", ["N", 3])],
            [weight],
            ir=ir,
            opset=8,
        )
        for ir in (3, 8)
    }


class TestOverridableInitializers:
    def test_described_as_by_onnxruntime(self, models_with_an_initializer):
        for ir in (3, 8):
            ours, theirs = both(models_with_an_initializer[ir])
            for getter in ("get_inputs", "get_overridable_initializers"):
                expected = [str(argument) for argument in getattr(theirs, getter)()]
                assert [str(argument) for argument in getattr(ours, getter)()] == expected

    def test_a_feed_replaces_the_value_for_one_run(self, models_with_an_initializer, random):
        session = onnxsmith.InferenceSession(models_with_an_initializer[8])
        x, w = random(2, 3), random(3)
        for _ in range(2):
            np.testing.assert_array_equal(session.run(None, {"x": x})[0], x + np.float32([1, 2, 3]))
            np.testing.assert_array_equal(session.run(None, {"x": x, "w": w})[0], x + w)
        with pytest.raises(InvalidArgument, match="invalid dimensions for input: w"):
            session.run(None, {"x": x, "w": random(4)})

    def test_constant_below_ir_4(self, models_with_an_initializer, random):
        session = onnxsmith.InferenceSession(models_with_an_initializer[3])
        with pytest.raises(InvalidArgument, match="Invalid input name: w"):
            session.run(None, {"x": random(2, 3), "w": random(3)})


class TestProfile:
    def test_chrome_trace_of_steps_and_runs(self, add_model, tmp_path, random):
        options = onnxsmith.SessionOptions()
        options.enable_profiling = True
        options.profile_file_prefix = str(tmp_path / "profile")
        session = onnxsmith.InferenceSession(add_model, options)
        x = random(2, 3)
        for _ in range(2):
            np.testing.assert_array_equal(session.run(None, {"x": x, "y": x})[0], x + x)
        path = session.end_profiling()
        assert session.end_profiling() == ""
        np.testing.assert_array_equal(session.run(None, {"x": x, "y": x})[0], x + x)
        events = json.loads(pathlib.Path(path).read_text())
        assert [event["name"] for event in events] == [
            "session_initialization",
            *["add_kernel_time", "model_run"] * 2,
        ]
        for event in events:
            assert event["ph"] == "X"
            assert event["ts"] >= 0 and event["dur"] >= 0 and event["pid"] == os.getpid()
        node, run = events[1], events[2]
        assert (node["cat"], run["cat"]) == ("Node", "Session")
        assert node["args"]["provider"] == "CPUExecutionProvider"
        assert node["args"]["nodes"] == ["add"]
        assert run["ts"] <= node["ts"] and node["dur"] <= run["dur"]

    def test_begins_when_the_session_is_made(self, relu_model):
        before = time.time_ns()
        session = onnxsmith.InferenceSession(relu_model)
        assert before <= session.get_profiling_start_time_ns() <= time.time_ns()
        assert session.end_profiling() == ""


class TestCopies:
    def test_pickle(self, relu_model, random):
        options = onnxsmith.SessionOptions()
        options.intra_op_num_threads = 1
        session = pickle.loads(pickle.dumps(onnxsmith.InferenceSession(relu_model, options, CPU)))
        x = random(5)
        np.testing.assert_array_equal(session.run(None, {"x": x})[0], np.maximum(x, 0))
        assert session.get_session_options().intra_op_num_threads == 1

    @pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
    def test_usable_after_a_fork(self, relu_model, random):
        session = onnxsmith.InferenceSession(relu_model)
        x = random(100_000)
        expected = session.run(None, {"x": x})[0]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)
            child = os.fork()
        if child == 0:
            found = session.run(None, {"x": x})[0]
            os._exit(0 if np.array_equal(found, expected) else 1)
        assert os.waitpid(child, 0)[1] == 0
        np.testing.assert_array_equal(session.run(None, {"x": x})[0], expected)


class TestProcess:
    SCRIPT = (
        "import sys, numpy, onnxsmith\n"
        "session = onnxsmith.InferenceSession(sys.argv[1])\n"
        "assert session.run(None, {'x': numpy.ones(3, 'float32')})[0].tolist() == [1, 1, 1]\n"
        "print(*(name for name in ('numba', 'llvmlite', 'onnx', 'onnxsmith_compiler', 'typer', 'rich',"
        " 'filelock', 'platformdirs', 'ml_dtypes') if name in sys.modules))\n"
    )

    @pytest.fixture
    def path(self, relu_model, tmp_path):
        path = tmp_path / "relu.onnx"
        path.write_bytes(relu_model)
        return str(path)

    def test_session_imports_nothing_of_the_compiler(self, path, tmp_path):
        done = subprocess.run(
            [sys.executable, "-c", self.SCRIPT, path],
            capture_output=True,
            text=True,
            env=os.environ | {"ONNXSMITH_CACHE_DIR": str(tmp_path / "cache")},
        )
        assert (done.returncode, done.stderr) == (0, "")
        assert done.stdout.split() == []

    def test_script_on_standard_input_without_a_cache(self, path):
        done = subprocess.run(
            [sys.executable, "-", path],
            input=self.SCRIPT,
            capture_output=True,
            text=True,
            env=os.environ | {"ONNXSMITH_CACHE": "off"},
        )
        assert (done.returncode, done.stderr) == (0, "")

    def test_without_a_cache_nothing_stays_behind(self, relu_model, tmp_path, monkeypatch):
        monkeypatch.setenv("ONNXSMITH_CACHE", "off")
        monkeypatch.setenv("TMPDIR", str(tmp_path))
        monkeypatch.setattr("tempfile.tempdir", None)
        session = onnxsmith.InferenceSession(relu_model)
        assert list(tmp_path.iterdir()) == []
        assert session.run(None, {"x": [-1.0]})[0] == [0]


def test_module_functions(capsys):
    assert onnxsmith.get_version_string() == onnxsmith.__version__
    assert "onnxsmith" in onnxsmith.get_build_info()
    onnxsmith.print_debug_info()
    assert onnxsmith.__version__ in capsys.readouterr().out
    for bad in (-1, 5):
        with pytest.raises(RuntimeError, match="Invalid logging severity"):
            onnxsmith.set_default_logger_severity(bad)
    onnxsmith.set_default_logger_severity(2)
    onnxsmith.set_default_logger_verbosity(0)
