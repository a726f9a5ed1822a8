"""Every hand-written kernel by name."""

from __future__ import annotations

import inspect
import re
import textwrap
from collections.abc import Callable, Mapping
from typing import Any

from onnxsmith_compiler.codegen.library.sizes import store_sizes
from onnxsmith_compiler.ops.lowering import LibraryCall

Text = Callable[[LibraryCall], str]


def _source(function: Callable[..., Any]) -> Text:
    """The function's own source, each name of the call's variant replaced by its text."""

    def text(call: LibraryCall) -> str:
        source = textwrap.dedent(inspect.getsource(function)).replace(f"def {function.__name__}(", "def kernel(", 1)
        for name, value in call.variant:
            source = re.sub(rf"\b{name}\b", str(value), source)
        return source

    return text


LIBRARY: Mapping[str, Text] = {
    "store_sizes": store_sizes,
}
