import ctypes

import pytest

from onnxsmith.memory import HUGE_PAGE, Memory


@pytest.mark.parametrize("size", [0, 1, 4096, 4097, HUGE_PAGE - 1, HUGE_PAGE, HUGE_PAGE + 1, 5 * HUGE_PAGE + 12345])
def test_memory_is_zeroed_aligned_and_large_enough(size: int) -> None:
    memory = Memory(size)
    assert memory.size >= size
    assert memory.address % (HUGE_PAGE if size >= HUGE_PAGE else 4096) == 0
    content = (ctypes.c_char * memory.size).from_address(memory.address)
    assert content.raw == bytes(memory.size)
    content[0] = content[memory.size - 1] = b"x"


def test_more_memory_than_there_is() -> None:
    with pytest.raises(MemoryError, match="working memory"):
        Memory(1 << 62)
