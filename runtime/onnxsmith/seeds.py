"""Seeds of random operators that have none of their own."""

from __future__ import annotations

import operator
import os
from _thread import allocate_lock  # threading takes long to import

_MASK = (1 << 64) - 1


class SeedSequence:
    """Seeds one after the other: always the same after `restart(seed)`, unpredictable before.

    SplitMix64 (Steele, Lea and Flood, "Fast splittable pseudorandom number generators", OOPSLA 2014).
    """

    def __init__(self) -> None:
        self._lock = allocate_lock()
        self._state = int.from_bytes(os.urandom(8), "little")

    def restart(self, seed: int) -> None:
        """Begin anew from `seed`. TypeError for anything but an integer."""
        value = operator.index(seed) & _MASK
        with self._lock:
            self._state = value

    def draw(self) -> int:
        """The next seed, of 64 bits, which differs from the others with certainty over 2**64 draws."""
        with self._lock:
            self._state = (self._state + 0x9E3779B97F4A7C15) & _MASK
            word = self._state
        word = (word ^ (word >> 30)) * 0xBF58476D1CE4E5B9 & _MASK
        word = (word ^ (word >> 27)) * 0x94D049BB133111EB & _MASK
        return word ^ (word >> 31)


PROCESS_SEEDS = SeedSequence()
"""Where random operators without a seed attribute take theirs from."""


def set_seed(seed: int) -> None:
    """Have random operators without a seed of their own give the same numbers in each run of the program."""
    from onnxsmith.threads import process_pool

    pool = process_pool()  # before the restart: making it draws a seed
    PROCESS_SEEDS.restart(seed)
    pool.restart_seeds(PROCESS_SEEDS.draw())
