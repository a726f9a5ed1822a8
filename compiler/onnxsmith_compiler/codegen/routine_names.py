"""Which routines the text of a kernel calls. Imports neither numba nor LLVM."""

from __future__ import annotations

import re

_NAMES = "tile|row|prefetch|depthwise|winograd|tap_addresses|pixel_starts|pixel_edges|attention_softmax"
_CALL = re.compile(rf"\b((?:{_NAMES})_\w+)\(")


def called_routines(text: str) -> tuple[str, ...]:
    """The names of the routines that a kernel's text calls, sorted; no other function is named like one."""
    return tuple(sorted(set(_CALL.findall(text))))
