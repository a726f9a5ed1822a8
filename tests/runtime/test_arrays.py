import sys

import numpy as np
import pytest
from hand_programs import make_executor, sum_program

from onnxsmith import arrays
from onnxsmith.segment_runner import SegmentRunner


@pytest.fixture(autouse=True)
def _ask_anew():
    arrays.native_arrays.cache_clear()
    yield
    arrays.native_arrays.cache_clear()


def test_this_interpreter_is_one_of_those_supported() -> None:
    assert sys.implementation.name != "cpython" or arrays.native_arrays()


@pytest.mark.parametrize(
    "name",
    [
        "OBJECT_TYPE", "SEQUENCE_SIZE", "SEQUENCE_ITEMS", "ARRAY_DATA", "ARRAY_RANK", "ARRAY_DIMS", "ARRAY_DESCR",
        "ARRAY_FLAGS",
    ],
)  # fmt: skip
def test_another_layout_is_noticed(monkeypatch, name: str) -> None:
    monkeypatch.setattr(arrays.abi, name, getattr(arrays.abi, name) ^ 1)
    assert not arrays.native_arrays()


@pytest.mark.parametrize("shape", [(), (3,), (2, 0), (2, 3, 4)])
def test_addresses(monkeypatch, shape: tuple[int, ...]) -> None:
    array = np.zeros(shape, np.int16)
    native = arrays.address_of(array)
    monkeypatch.setattr(arrays, "native_arrays", lambda: False)
    assert arrays.address_of(array) == native == array.ctypes.data


@pytest.mark.parametrize(
    ("dtype", "size"),
    [
        (np.int8, -1), (np.uint8, 1), (np.bool_, 1), (np.int16, -2), (np.uint16, 2), (np.int32, -4), (np.uint32, 4),
        (np.int64, -8), (np.uint64, 8),
    ],
)  # fmt: skip
def test_integers_are_read(dtype: type, size: int) -> None:
    most = True if dtype is np.bool_ else np.iinfo(dtype).max
    least = False if dtype is np.bool_ else np.iinfo(dtype).min
    values = np.array([least, most, 1], dtype)
    address = arrays.address_of(values)
    assert [arrays.read_integer(address + i * abs(size), size) for i in range(3)] == values.tolist()


def test_a_run_like_the_last_one_is_left_to_native_code(monkeypatch) -> None:
    executor = make_executor(sum_program())
    small, large = np.ones(3, np.float32), np.ones(300, np.float32)
    for x in (small, large):
        executor.run([x, x])

    def look_closer(*arguments: object) -> None:
        raise AssertionError("the run was not left to native code")

    monkeypatch.setattr(SegmentRunner, "run", look_closer)
    for x in (large, small, large, large):
        for result in (executor.run([x, x]), executor.run_feed({"y": x, "x": x}), executor.run_into([x, x], [None])):
            np.testing.assert_array_equal(result[0], x + x)
    with pytest.raises(AssertionError):
        executor.run([small[:2], small[:2]])
