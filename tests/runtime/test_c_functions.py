"""C functions of compiled models, called through ctypes and beside the same model's session."""

from __future__ import annotations

import threading
from collections.abc import Callable
from ctypes import c_int64
from pathlib import Path

import numpy as np
import pytest
from c_model import PARALLEL, RESULT, Buffer, CContext, CModel, Memory, texts
from onnx import TensorProto, helper
from small_models import model, tensor

import onnxsmith
from onnxsmith.errors import InvalidArgument
from onnxsmith.program import Program, Segment, Tensor
from onnxsmith_compiler.codegen import c_layout

WEIGHT = np.linspace(-1, 1, 256, dtype=np.float32).reshape(16, 16)
FLOAT, INT64 = TensorProto.FLOAT, TensorProto.INT64
# Rows enough for a run to be shared by threads.
MANY = 20_000


def weighted_model() -> bytes:
    """y = relu(x @ w) @ w of [N, 16], z = [x; bias], whose bias [2, 16] may be left out."""
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["h"]),
        helper.make_node("Relu", ["h"], ["r"]),
        helper.make_node("MatMul", ["r", "w"], ["y"]),
        helper.make_node("Concat", ["x", "bias"], ["z"], axis=0),
    ]
    return model(
        nodes,
        [tensor("x", ["N", 16]), tensor("bias", [2, 16])],
        [tensor("y", ["N", 16]), tensor("z", [None, 16])],
        [
            helper.make_tensor("w", FLOAT, WEIGHT.shape, WEIGHT.tobytes(), raw=True),
            helper.make_tensor("bias", FLOAT, (2, 16), WEIGHT[:2].tobytes(), raw=True),
        ],
    )


def indexed_model() -> bytes:
    """y = table[i] + b, repeated as often as an input says; table [T, 4], i [N], b [M, 4]."""
    nodes = [
        helper.make_node("Gather", ["table */", "i"], ["rows"], name="pick"),
        helper.make_node("Add", ["rows", "b"], ["sum"], name="add"),
        helper.make_node("Tile", ["sum", "times"], ["y"], name="as told"),
    ]
    inputs = [
        tensor("table */", ["T", 4]), tensor("i", ["N"], INT64), tensor("b", ["M", 4]), tensor("times", [2], INT64)
    ]  # fmt: skip
    return model(nodes, inputs, [tensor("y", [None, None])])


def compiled(data: bytes, folder: Path, **options: object) -> tuple[CModel, onnxsmith.InferenceSession]:
    made = onnxsmith.compile(data, folder, target="native", **options)
    return CModel(made, made.name), onnxsmith.load(made)


@pytest.fixture(scope="module")
def weighted(tmp_path_factory) -> tuple[CModel, onnxsmith.InferenceSession]:
    return compiled(weighted_model(), tmp_path_factory.mktemp("c") / "weighted")


@pytest.fixture(scope="module")
def indexed(tmp_path_factory) -> tuple[CModel, onnxsmith.InferenceSession]:
    return compiled(indexed_model(), tmp_path_factory.mktemp("c") / "indexed")


@pytest.fixture(scope="module")
def nonzero(tmp_path_factory) -> tuple[CModel, onnxsmith.InferenceSession]:
    """y [1, ?] = where x [N] is not zero, as a chain of steps in memory of its own; n = -x."""
    nodes = [
        helper.make_node("NonZero", ["x"], ["i"]),
        helper.make_node("CumSum", ["i", "one"], ["sums"]),
        helper.make_node("CumSum", ["sums", "one"], ["y"]),
        helper.make_node("Neg", ["x"], ["n"]),
    ]
    outputs = [tensor("y", [1, None], INT64), tensor("n", ["N"])]
    data = model(nodes, [tensor("x", ["N"])], outputs, [helper.make_tensor("one", INT64, (), [1])])
    return compiled(data, tmp_path_factory.mktemp("c") / "nonzero")


def rows(count: int) -> np.ndarray:
    return np.random.default_rng(count).standard_normal((count, 16)).astype(np.float32)


class TestQueries:
    def test_what_it_tells_of_the_model(self, weighted):
        c_model, _ = weighted
        assert c_model.version() == c_layout.INTERFACE_VERSION
        assert list(texts(c_model.input_name)) == ["x", "bias"] and c_model.input_count() == 2
        assert list(texts(c_model.output_name)) == ["y", "z"] and c_model.output_count() == 2
        assert list(texts(c_model.symbol_name)) == ["N"] and c_model.symbol_count() == 1
        assert [c_model.input_rank(0), c_model.input_type(1)] == [2, FLOAT]
        assert [c_model.input_dim(0, axis) for axis in range(2)] == [-1, 16]
        assert [c_model.output_dim(1, axis) for axis in range(2)] == [c_layout.COMPUTED, 16]

    def test_integers_and_strange_names(self, indexed):
        c_model, _ = indexed
        assert list(texts(c_model.input_name)) == ["table */", "i", "b", "times"]
        assert [c_model.input_type(number) for number in range(4)] == [FLOAT, INT64, FLOAT, INT64]

    @pytest.mark.parametrize("number", [-1, 2, 1 << 30])
    def test_numbers_of_nothing(self, weighted, number):
        c_model, _ = weighted
        none = -RESULT["NO_SUCH_INDEX"]
        context = c_model.context(3)
        for kind in ("input", "output"):
            functions = {name: getattr(c_model, f"{kind}_{name}") for name in ("name", "type", "rank", "dim", "bytes")}
            assert functions["name"](number) is None
            assert functions["type"](number) == functions["rank"](number) == none
            assert functions["dim"](number, 0) == functions["dim"](0, number) == c_layout.COMPUTED
            assert functions["bytes"](context.memory.address, number) == none
        assert c_model.symbol_name(number) is None
        assert c_model.output_shape(context.memory.address, number, None) == RESULT["NO_SUCH_INDEX"]
        assert c_model.output_shape(context.memory.address, 0, None) == RESULT["NULL_POINTER"]

    def test_error_texts(self, weighted):
        c_model, _ = weighted
        assert {c_model.error_text(code).decode() for code, _, _ in c_layout.RESULTS} == {
            text for _, _, text in c_layout.RESULTS
        }
        assert c_model.error_text(-1) == c_model.error_text(99) == b"no such code"


class TestRuns:
    @pytest.mark.parametrize("count", [0, 1, 7, 300])
    def test_symbolic_sizes(self, weighted, count):
        c_model, session = weighted
        context = c_model.context(count)
        assert context.shape("output", 1) == (count + 2, 16)
        x, bias, outputs = rows(count), rows(2), context.outputs("float32", "float32")
        assert context.run([x, bias], outputs) == c_layout.DONE
        for mine, its in zip(outputs, session.run(None, {"x": x, "bias": bias}), strict=True):
            np.testing.assert_array_equal(mine, its)

    def test_an_input_left_out(self, weighted):
        c_model, session = weighted
        context = c_model.context(1)
        outputs = context.outputs("float32", "float32")
        assert context.run([rows(1), None], outputs) == c_layout.DONE
        np.testing.assert_array_equal(outputs[1], session.run(["z"], {"x": rows(1)})[0])

    def test_one_context_for_many_sizes_and_workspaces(self, weighted):
        c_model, session = weighted
        context = CContext(c_model)
        for count in (5, 2, 9):
            assert context.plan(count) == c_layout.DONE
            for _ in range(2):
                assert context.bind() == c_layout.DONE
                outputs = context.outputs("float32", "float32")
                assert context.run([rows(count), None], outputs) == c_layout.DONE
                np.testing.assert_array_equal(outputs[0], session.run(["y"], {"x": rows(count)})[0])

    def test_many_contexts_at_once(self, weighted):
        c_model, session = weighted
        expected = {count: session.run(["y"], {"x": rows(count)})[0] for count in range(100, 104)}
        wrong = []

        def repeat(count: int) -> None:
            context = c_model.context(count)
            for _ in range(50):
                outputs = context.outputs("float32", "float32")
                if context.run([rows(count), None], outputs) or (outputs[0] != expected[count]).any():
                    wrong.append(count)

        threads = [threading.Thread(target=repeat, args=(count,)) for count in expected]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert not wrong

    def test_sizes_that_an_input_holds(self, indexed):
        c_model, session = indexed
        assert c_model.symbol_count() > 3
        feed = {
            "table */": np.arange(20, dtype=np.float32).reshape(5, 4),
            "i": np.array([4, 0, -1], np.int64),
            "b": np.ones((3, 4), np.float32),
            "times": np.array([2, 1], np.int64),
        }
        sizes = sizes_of(c_model, T=5, N=3, M=3, others=(2, 1))
        context = c_model.context(*sizes)
        (y,) = context.outputs("float32")
        assert context.run(list(feed.values()), [y]) == c_layout.DONE
        np.testing.assert_array_equal(y, session.run(None, feed)[0])
        feed["times"] = np.array([1, 2], np.int64)
        assert context.run(list(feed.values()), [y]) == RESULT["OTHER_SIZES"]
        feed |= {"times": np.array([2, 1], np.int64), "i": np.array([4, 5, 0], np.int64)}
        assert context.run(list(feed.values()), [y]) == RESULT["INDEX_OUT_OF_BOUNDS"]
        where, value, limit = context.failure()
        assert "pick" in where and (value, limit) == (5, 5)

    def test_random_numbers_begin_at_a_seed(self, tmp_path):
        node = helper.make_node("RandomUniform", [], ["y"], shape=[64])
        c_model, _ = compiled(model([node], [], [tensor("y", [64])]), tmp_path / "dice")

        def draw(seed: int | None) -> list[list[float]]:
            context = c_model.context()
            if seed is not None:
                assert c_model.seed(context.memory.address, seed) == c_layout.DONE
            drawn = []
            for _ in range(2):
                outputs = context.outputs("float32")
                assert context.run([], outputs) == c_layout.DONE
                drawn.append(outputs[0].tolist())
            return drawn

        first = draw(None)
        assert first == draw(None) == draw(0) and first[0] != first[1]
        assert draw(1) == draw(1) != first


def sizes_of(c_model: CModel, others: tuple[int, ...], **named: int) -> list[int]:
    """Sizes in the symbols' order: those `named`, and `others` for the rest."""
    rest = iter(others)
    return [named[name] if name in named else next(rest) for name in texts(c_model.symbol_name)]


def join(threads: list[threading.Thread]) -> None:
    for thread in threads:
        thread.join()


def started(task: Callable[..., None], argument: int, indices: range) -> list[threading.Thread]:
    threads = [threading.Thread(target=task, args=(argument, index)) for index in indices]
    for thread in threads:
        thread.start()
    return threads


@pytest.fixture(scope="module")
def run_lent(weighted) -> Callable[[Callable[..., None]], int]:
    """Runs the weighted model on threads that a function lends, and checks the results; how many were asked for."""
    c_model, session = weighted
    x = rows(MANY)
    expected = session.run(["y"], {"x": x})[0]
    context = c_model.context(MANY, threads=3)

    def run(lend: Callable[..., None]) -> int:
        calls = []

        def parallel(state: int, count: int, task: Callable[..., None], argument: int) -> None:
            calls.append(count)
            lend(count, task, argument)

        outputs = context.outputs("float32", "float32")
        assert context.run([x, None], outputs, PARALLEL(parallel)) == c_layout.DONE
        np.testing.assert_array_equal(outputs[0], expected)
        assert len(calls) == 1
        return calls[0]

    return run


class TestLentThreads:
    """However threads are lent, the results are those of one thread."""

    def test_at_the_same_time(self, run_lent):
        for _ in range(20):
            count = run_lent(lambda count, task, argument: join(started(task, argument, range(count))))
        assert 2 <= count <= 3

    def test_one_after_another(self, run_lent):
        def lend(count: int, task: Callable[..., None], argument: int) -> None:
            for index in reversed(range(count)):
                task(argument, index)

        run_lent(lend)

    def test_none(self, run_lent):
        run_lent(lambda count, task, argument: None)

    def test_more_than_were_asked_for(self, run_lent):
        run_lent(lambda count, task, argument: join(started(task, argument, range(count + 4))))

    def test_threads_that_are_not_waited_for(self, run_lent):
        left = []
        for _ in range(20):
            run_lent(lambda count, task, argument: left.extend(started(task, argument, range(count))))
            join(left)

    def test_a_run_too_short_to_share(self, weighted):
        c_model, _ = weighted
        context = c_model.context(1, threads=2)
        calls = []
        parallel = PARALLEL(lambda *arguments: calls.append(1))
        assert context.run([rows(1), None], context.outputs("float32", "float32"), parallel) == c_layout.DONE
        assert not calls

    def test_a_fault_in_a_lent_thread(self, indexed):
        c_model, _ = indexed
        count = 50_000
        context = c_model.context(*sizes_of(c_model, T=5, N=count, M=1, others=(1, 1)), threads=2)
        indices = np.zeros(count, np.int64)
        indices[-1] = 9
        inputs = [np.zeros((5, 4), np.float32), indices, np.ones((1, 4), np.float32), np.array([1, 1], np.int64)]
        calls = []

        def parallel(state: int, count: int, task: Callable[..., None], argument: int) -> None:
            calls.append(count)
            join(started(task, argument, range(count)))

        outputs = context.outputs("float32")
        assert context.run(inputs, outputs, PARALLEL(parallel)) == RESULT["INDEX_OUT_OF_BOUNDS"]
        assert context.failure()[1:] == (9, 5) and calls == [2]


class TestErrors:
    """Whatever is passed, a code comes back."""

    def test_contexts(self, weighted):
        c_model, _ = weighted
        sizes = (np.array([3], np.int64)).ctypes.data
        memory = Memory(c_model.context_size(1))
        at, size = memory.address, memory.size
        for threads in (0, -1, 513):
            assert c_model.context_size(threads) == -RESULT["BAD_THREADS"]
            assert c_model.plan(at, size, threads, sizes) == RESULT["BAD_THREADS"]
        assert c_model.plan(None, size, 1, sizes) == RESULT["NULL_POINTER"]
        assert c_model.plan(at, size, 1, None) == RESULT["NULL_POINTER"]
        assert c_model.plan(at + 8, size, 1, sizes) == RESULT["MISALIGNED"]
        assert c_model.plan(at, size - 1, 1, sizes) == RESULT["CONTEXT_TOO_SMALL"]
        assert c_model.plan(at, size, 2, sizes) == RESULT["CONTEXT_TOO_SMALL"]
        for function in (c_model.workspace_size, lambda where: c_model.output_bytes(where, 0)):
            assert function(None) == -RESULT["NULL_POINTER"]
            assert function(at) == -RESULT["NOT_PLANNED"]
        assert c_model.run(at, None, None) == RESULT["NOT_PLANNED"]
        assert c_model.seed(at, 1) == RESULT["NOT_PLANNED"]
        assert c_model.last_failure(at, None) == RESULT["NOT_PLANNED"]
        assert c_model.plan(at, size, 1, sizes) == c_layout.DONE
        assert c_model.run(at, None, None) == RESULT["NOT_BOUND"]
        assert c_model.last_failure(at, None) == RESULT["NULL_POINTER"]

    def test_a_context_that_was_moved(self, weighted):
        c_model, _ = weighted
        context = c_model.context(3)
        other = CContext(c_model)
        other.memory._room[:] = 0
        size, source = context.memory.size, context.memory
        target = other.memory
        view = target._room[target.address - target._room.ctypes.data :][:size]
        view[:] = source._room[source.address - source._room.ctypes.data :][:size]
        assert other.run([rows(3), None], []) == RESULT["NOT_PLANNED"]

    @pytest.mark.parametrize("count", [-1, -(1 << 63), 1 << 58, (1 << 63) - 1])
    def test_impossible_sizes(self, weighted, count):
        context = CContext(weighted[0])
        assert context.plan(count) == RESULT["IMPOSSIBLE_SIZES"]
        assert context.bind() == RESULT["NOT_PLANNED"]
        assert context.plan(3) == context.bind() == c_layout.DONE

    def test_sizes_that_disagree(self, indexed):
        c_model, _ = indexed
        context = CContext(c_model)
        assert context.plan(*sizes_of(c_model, T=5, N=3, M=2, others=(2, 1))) == RESULT["SIZES_DISAGREE"]
        assert context.failure() == ("add", 3, 2)

    def test_weights(self, weighted):
        c_model, _ = weighted
        context = CContext(c_model)
        context.plan(3)
        workspace = Memory(c_model.workspace_size(context.memory.address))

        def bind(weights: int | None, size: int) -> int:
            return c_model.bind(context.memory.address, weights, size, workspace.address, workspace.size)

        at, size = c_model.weights.address, c_model.weights.size
        assert bind(None, size) == RESULT["NULL_POINTER"]
        assert bind(at, size - 1) == RESULT["WRONG_WEIGHTS"]
        assert bind(workspace.address, size) == RESULT["WRONG_WEIGHTS"]
        moved = Memory(size + 8)
        skipped = moved.address - moved._room.ctypes.data + 8
        whole = c_model.weights
        moved._room[skipped : skipped + size] = whole._room[whole.address - whole._room.ctypes.data :][:size]
        assert bind(moved.address + 8, size) == RESULT["MISALIGNED"]
        assert bind(at, size) == c_layout.DONE

    def test_workspaces(self, weighted):
        c_model, _ = weighted
        context = CContext(c_model)
        context.plan(300)
        need = c_model.workspace_size(context.memory.address)
        assert need > 0
        at, weights = Memory(need + 64).address, c_model.weights

        def bind(workspace: int | None, size: int) -> int:
            return c_model.bind(context.memory.address, weights.address, weights.size, workspace, size)

        assert bind(at, need - 1) == RESULT["WORKSPACE_TOO_SMALL"]
        assert context.failure()[1:] == (need - 1, need)
        assert bind(None, need) == RESULT["NULL_POINTER"]
        assert bind(at + 32, need) == RESULT["MISALIGNED"]
        assert bind(at, need) == c_layout.DONE

    def test_buffers(self, weighted):
        c_model, _ = weighted
        context = c_model.context(3)
        x, (y, z) = rows(3), context.outputs("float32", "float32")
        assert context.run([x[:2], None], [y, z]) == RESULT["INPUT_TOO_SMALL"]
        assert context.failure() == ("x", 128, 192)
        assert context.run([x, None], [y, z[:4]]) == RESULT["OUTPUT_TOO_SMALL"]
        assert context.failure() == ("z", 256, 320)
        assert context.run([None, None], [y, z]) == RESULT["NULL_POINTER"]
        assert context.failure()[0] == "x"
        assert context.run([x, None], [None, z]) == RESULT["NULL_POINTER"]
        assert context.failure()[0] == "y"
        assert c_model.run(context.memory.address, None, None) == RESULT["NULL_POINTER"]
        odd = (Buffer * 2)(Buffer(x.ctypes.data + 1, x.nbytes), Buffer(None, 0))
        outputs = (Buffer * 2)(Buffer(y.ctypes.data, y.nbytes), Buffer(z.ctypes.data, z.nbytes))
        assert c_model.run(context.memory.address, odd, outputs) == RESULT["MISALIGNED"]
        assert (y == 77).all() and (z == 77).all()
        assert context.run([x, None], [y, z]) == c_layout.DONE

    def test_a_context_that_runs_already(self, weighted):
        c_model, _ = weighted
        context = c_model.context(MANY, threads=2)
        x, outputs = rows(MANY), context.outputs("float32", "float32")
        found = []

        def parallel(*arguments: object) -> None:
            found.append(context.run([x, None], outputs))

        assert context.run([x, None], outputs, PARALLEL(parallel)) == c_layout.DONE
        assert found == [RESULT["BUSY"]]


class TestSizesThatARunComputes:
    def test_they_are_known_after_the_run(self, nonzero):
        c_model, session = nonzero
        assert list(texts(c_model.symbol_name)) == ["N"] and c_model.output_dim(0, 1) == c_layout.COMPUTED
        context = c_model.context(1000)
        address = context.memory.address
        unknown = RESULT["SIZE_NOT_KNOWN"]
        context.workspace = Memory(1 << 16)
        weights = c_model.weights
        bound = (weights.address, weights.size, context.workspace.address, context.workspace.size)
        assert c_model.bind(address, *bound) == c_layout.DONE
        room, negative = np.zeros((1, 1000), np.int64), np.zeros(1000, np.float32)
        for count in (0, 1, 999, 3):
            x = np.zeros(1000, np.float32)
            x[1 : 1 + count] = 1
            assert c_model.output_bytes(address, 0) in (-unknown, 0, 8, 7992)
            assert context.run([x], [room, negative]) == c_layout.DONE
            assert context.shape("output", 0) == (1, count) and c_model.output_bytes(address, 0) == 8 * count
            y, n = session.run(None, {"x": x})
            np.testing.assert_array_equal(room[:, :count], y)
            np.testing.assert_array_equal(negative, n)
        assert context.plan(1000) == c_layout.DONE
        assert c_model.output_bytes(address, 0) == -unknown
        assert c_model.output_shape(address, 0, (c_int64 * 2)()) == unknown

    def test_memory_that_is_too_small_for_them(self, nonzero):
        c_model, session = nonzero
        x = np.ones(20_000, np.float32)
        context = c_model.context(len(x), threads=2)
        negative = np.zeros_like(x)
        small, large = np.zeros((1, 5), np.int64), np.zeros((1, len(x)), np.int64)
        before = context.workspace.size
        assert context.run([x], [large, negative]) == RESULT["WORKSPACE_TOO_SMALL"]
        assert context.failure()[1] == before
        assert context.bind() == c_layout.DONE and context.workspace.size > before
        assert context.run([x], [small, negative]) == RESULT["OUTPUT_TOO_SMALL"]
        assert context.failure() == ("y", small.nbytes, large.nbytes)
        parallel = PARALLEL(lambda state, count, task, argument: join(started(task, argument, range(count))))
        assert context.run([x], [large, negative], parallel) == c_layout.DONE
        np.testing.assert_array_equal(large, session.run(["y"], {"x": x})[0])


class TestPackages:
    def test_a_program_that_only_python_runs(self):
        border = {"inputs": (Tensor("x", "string", ("N",), (0,)),), "outputs": (), "symbols": ("N",)}
        rest = {"slots": (0,), "segments": (Segment((), (), ()),), "buffers": (), "kernels": (), "weight_bytes": 0}
        rest |= {"overridable": {}, "in_place": (), "metadata": {}, "custom_metadata": {}}
        program = Program(**border, **rest, input_symbols=((0, 0),))
        assert program.why_no_c_functions == "its strings are objects of Python"

    def test_a_name_of_its_own(self, tmp_path, relu_model):
        made = onnxsmith.compile(relu_model, tmp_path / "one", target="native", interface="other")
        # The one library is what Python loads too.
        assert [path.name for path in sorted(made.iterdir()) if path.suffix in (".so", ".h")] == [
            "libother.so",
            "other.h",
        ]
        assert onnxsmith.load(made, verify=True).run(None, {"x": np.array([-1, 2], np.float32)})[0].tolist() == [0, 2]
        context = CModel(made, "other").context(2)
        (y,) = context.outputs("float32")
        assert context.run([np.array([-1, 2], np.float32)], [y]) == c_layout.DONE and y.tolist() == [0, 2]

    @pytest.mark.parametrize("name", ["no name", "os", "3d"])
    def test_names_that_functions_cannot_have(self, tmp_path, relu_model, name):
        with pytest.raises(InvalidArgument, match=f"'interface' cannot be '{name}'"):
            onnxsmith.compile(relu_model, tmp_path / "one", target="native", interface=name)

    @pytest.mark.parametrize("name", ["core", "c"])
    def test_names_that_parts_of_the_library_have(self, tmp_path, relu_model, name):
        context = CModel(onnxsmith.compile(relu_model, tmp_path / name, target="native"), name).context(2)
        (y,) = context.outputs("float32")
        assert context.run([np.array([-1, 2], np.float32)], [y]) == c_layout.DONE and y.tolist() == [0, 2]
