"""Seeds of random operators."""

import onnxruntime
import pytest

import onnxsmith
from onnxsmith.seeds import PROCESS_SEEDS, SeedSequence


def test_known_sequence_of_splitmix64():
    sequence = SeedSequence()
    sequence.restart(0)
    assert [sequence.draw() for _ in range(3)] == [0xE220A8397B1DCDAF, 0x6E789E6AA1B965F4, 0x06C45D188009454F]


def test_set_seed_restarts_the_process():
    onnxsmith.set_seed(5)
    first = [PROCESS_SEEDS.draw() for _ in range(4)]
    onnxsmith.set_seed(5)
    assert [PROCESS_SEEDS.draw() for _ in range(4)] == first
    onnxsmith.set_seed(-6)
    assert PROCESS_SEEDS.draw() not in first


def test_unseeded_sequences_differ():
    assert SeedSequence().draw() != SeedSequence().draw()


@pytest.mark.parametrize("ort", [onnxruntime, onnxsmith])
def test_only_integers(ort):
    with pytest.raises(TypeError):
        ort.set_seed("a")
