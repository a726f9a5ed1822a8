import threading
import weakref

import numpy as np
import pytest
from hand_programs import (
    Draft,
    chain_program,
    input_,
    make_executor,
    positives_program,
    slot,
    sum_program,
    waiting_program,
    weight,
)

from onnxsmith import executor as executor_module
from onnxsmith import native_layout as abi
from onnxsmith.artifact import Opcode
from onnxsmith.executor import Executor
from onnxsmith.faults import (
    ExecutionFault,
    InputMismatch,
    OutputMismatch,
    OutputSizeFault,
    PlanFault,
)


def numbers(*shape: int, start: float = 1) -> np.ndarray:
    return np.arange(start, start + np.prod(shape), dtype=np.float32).reshape(shape)


@pytest.fixture(params=["native arrays", "public attributes"])
def sums(request, monkeypatch) -> Executor:
    """x + y, as run by native code that reads arrays itself, and by the documented fallback."""
    if request.param == "public attributes":
        monkeypatch.setattr(executor_module, "native_arrays", lambda: False)
        monkeypatch.setattr(executor_module, "address_of", lambda array: array.ctypes.data)
    return make_executor(sum_program())


@pytest.mark.parametrize("n", [0, 1, 10, 63, 64, 65, 1000])
def test_sizes_are_bound_from_the_inputs(sums: Executor, n: int) -> None:
    x, y = numbers(n), numbers(n, start=7)
    for _ in range(3):
        (z,) = sums.run([x, y])
        np.testing.assert_array_equal(z, x + y)


def test_results_are_new_arrays(sums: Executor) -> None:
    x = numbers(5)
    (first,) = sums.run([x, x])
    (second,) = sums.run((x, x))
    first[:] = 0
    np.testing.assert_array_equal(second, x + x)


def test_changing_sizes_back_and_forth(sums: Executor) -> None:
    for n in [3, 200, 3, 70, 200, 0, 3]:
        x = numbers(n)
        np.testing.assert_array_equal(sums.run([x, x])[0], x + x)


def test_inputs_that_need_a_copy(sums: Executor) -> None:
    wide = numbers(20)
    packed = np.zeros(5, dtype=[("skip", np.int8), ("value", np.float32)])
    packed["value"] = numbers(5)
    read_only = numbers(5)
    read_only.setflags(write=False)
    for x in (wide[::4], wide[10:5:-1], packed["value"], read_only, wide[:5]):
        np.testing.assert_array_equal(sums.run([x, x])[0], x + x)


def test_scalars() -> None:
    draft = Draft()
    one = draft.constant(1)
    x, y = draft.input("x", []), draft.output("y", [])
    draft.step("add", [x, x, y, slot(one)], one)
    executor = make_executor(draft.program())
    for _ in range(2):
        (result,) = executor.run([np.array(3, np.float32)])
        assert result.shape == () and result == 6


@pytest.mark.parametrize(
    ("inputs", "index", "reason", "axis", "actual", "expected"),
    [
        ([numbers(3)], 2, "count", None, 1, 2),
        ([numbers(3), np.zeros(3)], 1, "dtype", None, np.dtype(np.float64), np.dtype(np.float32)),
        ([numbers(3), numbers(3).astype(">f4")], 1, "dtype", None, np.dtype(">f4"), np.dtype(np.float32)),
        ([[1.0], numbers(1)], 0, "dtype", None, list, np.dtype(np.float32)),
        ([numbers(3, 1), numbers(3)], 0, "rank", None, 2, 1),
        ([numbers(3), numbers(4)], 1, "symbol", 0, 4, 3),
    ],
)
def test_inputs_that_do_not_fit(sums: Executor, inputs, index, reason, axis, actual, expected) -> None:
    x = numbers(3)
    sums.run([x, x])
    with pytest.raises(InputMismatch) as caught:
        sums.run(inputs)
    fault = caught.value
    assert (fault.index, fault.reason, fault.axis) == (index, reason, axis)
    assert (fault.actual, fault.expected) == (actual, expected)
    assert fault.symbol == ("n" if reason == "symbol" else None)
    np.testing.assert_array_equal(sums.run([x, x])[0], x + x)


def test_a_fixed_dimension_is_checked() -> None:
    draft = Draft("n")
    n, two = 0, draft.constant(2)
    count = draft.compute(Opcode.MUL, n, two)
    x, y = draft.input("x", [n, two]), draft.output("y", [n, two])
    draft.step("add", [x, x, y, slot(count)], draft.tiles(count))
    executor = make_executor(draft.program())
    np.testing.assert_array_equal(executor.run([numbers(5, 2)])[0], 2 * numbers(5, 2))
    with pytest.raises(InputMismatch, match="input 0, dimension 1: dimension is 3, expected 2"):
        executor.run([numbers(5, 3)])
    np.testing.assert_array_equal(executor.run([numbers(2, 2)])[0], 2 * numbers(2, 2))


def test_steps_share_the_arena() -> None:
    executor = make_executor(chain_program(8))
    x = numbers(100_000)
    for n in (100_000, 17, 100_000):
        np.testing.assert_array_equal(executor.run([x[:n]])[0], x[:n] * 256)
    assert 800_000 <= executor.idle_bytes() < 900_000  # two buffers of seven


def test_weights_and_offsets() -> None:
    weights = np.zeros(256, np.uint8)
    weights[128:].view(np.float32)[:] = numbers(32)
    draft = Draft()
    draft.weight_bytes = weights.nbytes
    n, eight = draft.constant(8), draft.constant(8 * 4)
    draft.input("x", [draft.constant(16)])
    y = draft.output("y", [n])
    draft.step("add", [input_(0, eight), weight(128), y, slot(n)], draft.tiles(n))
    executor = make_executor(draft.program(), weights=weights)
    x = numbers(16)
    np.testing.assert_array_equal(executor.run([x])[0], x[8:] + numbers(8))
    with pytest.raises(ValueError, match="256 bytes of weights"):
        make_executor(draft.program(), weights=weights[:100])


def test_initializers_that_a_feed_may_override() -> None:
    weights = np.zeros(128, np.uint8)
    weights[64:80].view(np.float32)[:] = [1, 2, 3, 4]
    draft = Draft()
    draft.weight_bytes = weights.nbytes
    n = draft.constant(4)
    x, bias, y = draft.input("x", [n]), draft.input("bias", [n]), draft.output("y", [n])
    draft.overridable["bias"] = 64
    draft.step("add", [x, bias, y, slot(n)], draft.tiles(n))
    executor = make_executor(draft.program(), weights=weights)
    x = numbers(4)
    for _ in range(2):
        np.testing.assert_array_equal(executor.run([x, None])[0], [2, 4, 6, 8])
        np.testing.assert_array_equal(executor.run_feed({"x": x})[0], [2, 4, 6, 8])
        np.testing.assert_array_equal(executor.run_feed({"x": x, "bias": 10 * x})[0], 11 * x)
    assert executor.run_feed({"bias": x}) is None
    assert executor.run_feed({"x": x, "other": x}) is None
    assert not executor.defaults["bias"].flags.writeable


def test_feeds_by_name(sums: Executor) -> None:
    x, y = numbers(4), numbers(4, start=9)
    for _ in range(2):
        np.testing.assert_array_equal(sums.run_feed({"y": y, "x": x})[0], x + y)
    for feed in ({"x": x}, {"x": x, "z": y}, {"x": x, "y": y, "z": y}, {"x": x, "y": [1.0] * 4}, {}):
        assert sums.run_feed(feed) is None


def test_faults_carry_their_facts() -> None:
    draft = Draft("m", "n")
    m, n = 0, 1
    data, index = draft.input("data", [m]), draft.input("index", [n], "int64")
    y = draft.output("y", [n])
    draft.step("add", [data, data, data, slot(draft.constant(0))], draft.constant(1))
    draft.step("gather", [data, index, y, slot(m), slot(n)], draft.tiles(n))
    executor = make_executor(draft.program())
    data = numbers(7)
    good = np.array([6, 0, 3], np.int64)
    for _ in range(2):
        np.testing.assert_array_equal(executor.run([data, good])[0], data[good])
        with pytest.raises(ExecutionFault) as caught:
            executor.run([data, np.array([1, 7, -1], np.int64)])
        fault = caught.value
        assert (fault.step, fault.code, fault.value, fault.limit) == (1, 1, 7, 7)


def test_a_size_that_only_the_run_can_tell() -> None:
    executor = make_executor(positives_program())
    generator = np.random.default_rng(0)
    for n in (8, 8, 1000, 0, 300):
        x = generator.standard_normal(n).astype(np.float32)
        for _ in range(2):
            np.testing.assert_array_equal(executor.run([x])[0], 2 * x[x > 0])
    np.testing.assert_array_equal(executor.run([-abs(x)])[0], x[:0])


def test_a_later_size_does_not_free_an_earlier_segments_memory() -> None:
    executor = make_executor(positives_program())
    x = numbers(50_000)
    for positive in (10, 50_000, 100, 49_999):
        x[:] = abs(x)
        x[positive:] *= -1
        np.testing.assert_array_equal(executor.run([x])[0], 2 * x[x > 0])


def _tile_program() -> Draft:
    """y[k] = x[:k] + x[:k], k being element 1 of the input `shape`."""
    draft = Draft("n", "k")
    n, k = 0, 1
    two = draft.constant(2)
    x = draft.input("x", [n])
    shape = draft.input("shape", [two], "int32")
    draft.bind(k, shape, 1, "int32")
    y = draft.output("y", [k])
    draft.step("add", [x, x, y, slot(k)], draft.tiles(k))
    return draft


def test_a_size_read_from_an_input() -> None:
    executor = make_executor(_tile_program().program())
    x = numbers(100)
    for k in (3, 3, 100, 0, 3):
        shape = np.array([-1, k], np.int32)
        np.testing.assert_array_equal(executor.run([x, shape])[0], 2 * x[:k])
    with pytest.raises(OutputSizeFault) as caught:
        executor.run([x, np.array([0, -4], np.int32)])
    assert (caught.value.index, caught.value.shape) == (0, (-4,))


def test_impossible_sizes() -> None:
    draft = _tile_program()
    draft.buffer(1, 0, 0)
    executor = make_executor(draft.program())
    with pytest.raises(PlanFault, match="buffer 0 has a negative or impossible size"):
        executor.run([numbers(1), np.array([0, -4], np.int32)])

    draft = Draft("n")
    huge = draft.compute(Opcode.MUL, 0, draft.constant(1 << 62))
    draft.input("x", [0])
    draft.step("add", [input_(0), input_(0), input_(0), slot(huge)], draft.constant(0))
    executor = make_executor(draft.program())
    with pytest.raises(PlanFault, match="instruction 0 overflows 64 bits"):
        executor.run([numbers(2)])
    assert executor.run([numbers(1)]) == []


def test_more_memory_than_there_is() -> None:
    draft = Draft("n")
    draft.buffer(draft.compute(Opcode.MUL, 0, draft.constant(1 << 50)), 0, 0)
    draft.input("x", [0])
    draft.step("add", [input_(0), input_(0), input_(0), slot(draft.constant(0))], draft.constant(0))
    executor = make_executor(draft.program())
    with pytest.raises(MemoryError):
        executor.run([numbers(1000)])
    assert executor.run([numbers(0)]) == []


def test_given_outputs(sums: Executor) -> None:
    x, y = numbers(6), numbers(6, start=3)
    for _ in range(2):
        z = np.zeros(6, np.float32)
        (result,) = sums.run_into([x, y], [z])
        assert result is z
        np.testing.assert_array_equal(z, x + y)
        (result,) = sums.run_into([x, y], [None])
        np.testing.assert_array_equal(result, x + y)
    frozen = np.zeros(6, np.float32)
    frozen.setflags(write=False)
    for bad in (np.zeros(5, np.float32), np.zeros(6), np.zeros(12, np.float32)[::2], frozen):
        with pytest.raises(OutputMismatch, match="output 0"):
            sums.run_into([x, y], [bad])


def test_given_outputs_that_overlap_inputs(sums: Executor) -> None:
    room = numbers(100)
    x, z = room[:90], room[10:]
    wanted = x + x
    for _ in range(2):
        room[:] = numbers(100)
        (result,) = sums.run_into([x, x], [z])
        assert result is z
        np.testing.assert_array_equal(z, wanted)


def test_element_types_that_numpy_lacks() -> None:
    bfloat16 = pytest.importorskip("ml_dtypes").bfloat16
    draft = Draft("n")
    x, y = draft.input("x", [0], "bfloat16"), draft.output("y", [0], "bfloat16")
    draft.step("increment_bfloat16", [x, y, slot(0)], draft.tiles(0))
    executor = make_executor(draft.program())
    x = np.arange(70).astype(bfloat16)
    for _ in range(2):
        (result,) = executor.run([x])
        assert result.dtype == bfloat16
        np.testing.assert_array_equal(result.astype(np.float32), np.arange(70) + 1.0)


def test_times_of_steps() -> None:
    executor = make_executor(chain_program(3))
    x = numbers(1000)
    timed = executor.run_timed([x])
    np.testing.assert_array_equal(timed.outputs[0], 8 * x)
    assert [time.step for time in timed.times] == [0, 1, 2]
    assert all(time.begin <= time.end for time in timed.times)


def test_sizes_of_a_timed_run_that_only_the_run_can_tell() -> None:
    executor = make_executor(positives_program())
    x = numbers(1000)
    timed = executor.run_timed([x])
    assert timed.slots[:2] == [1000, int(np.sum(x > 0))]
    assert len(timed.slots) == len(executor.program.slots)


def test_memory_of_evicted_plans_is_given_back() -> None:
    executor = make_executor(chain_program(4))
    executor.run([numbers(4_000_000)])
    assert executor.idle_bytes() > 32_000_000
    for n in range(1, executor_module.PLANS_KEPT + 2):
        executor.run([numbers(n)])
    assert executor.idle_bytes() < 2_000_000
    x = numbers(1000)
    np.testing.assert_array_equal(executor.run([x])[0], 16 * x)
    executor.trim()
    assert executor.idle_bytes() == 0
    np.testing.assert_array_equal(executor.run([x])[0], 16 * x)


def test_runs_at_once_do_not_disturb_each_other() -> None:
    executor = make_executor(chain_program(6))
    wrong: list[int] = []

    def work(seed: int) -> None:
        generator = np.random.default_rng(seed)
        for _ in range(200):
            x = generator.standard_normal(generator.integers(0, 5000)).astype(np.float32)
            if not np.array_equal(executor.run([x])[0], 64 * x):
                wrong.append(seed)

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_other_threads_go_on_during_a_run() -> None:
    executor = make_executor(waiting_program())
    set_flag = np.ones(1, np.int64)
    for _ in range(2):  # the second run is one native call
        executor.run([set_flag])
    flag = np.zeros(1, np.int64)
    timer = threading.Timer(0.05, lambda: flag.fill(1))
    timer.start()
    np.testing.assert_array_equal(executor.run([flag])[0], [1])
    timer.join()


def test_what_is_no_pair_of_sequences_is_not_run() -> None:
    executor = make_executor(sum_program())
    x = numbers(4)
    executor.run([x, x])
    (lane,) = executor._idle
    for arguments in ((), ([x, x],), ([x, x], None), (None, [x]), ([x], [x]), ([x, x], [x], [x]), ([x, 1], [x])):
        assert lane.run(*arguments) == abi.MISMATCH
    assert lane.run([x, x], [numbers(4)]) == abi.DONE


def test_inputs_and_outputs_are_not_kept_alive() -> None:
    executor = make_executor(sum_program())
    x = numbers(4)
    for _ in range(2):
        (result,) = executor.run([x, x])
    alive = weakref.ref(x), weakref.ref(result)
    del x, result
    assert [one() for one in alive] == [None, None]
