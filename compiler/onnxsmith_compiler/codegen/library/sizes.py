"""Sizes known when a run begins, written to a tensor."""

from __future__ import annotations

from onnxsmith_compiler.ops.lowering import LibraryCall


def store_sizes(call: LibraryCall) -> str:
    """Arguments: y, then one size for each element of y."""
    names = [f"n{number}" for number in range(len(call.arguments) - 1)]
    lines = [f"    store(y, {number}, {name})" for number, name in enumerate(names)]
    return "\n".join([f"def kernel({', '.join(['ctx', 'y', *names, 'begin', 'end'])}):", *lines, "    return 0", ""])
