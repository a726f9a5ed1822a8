"""Every hand-written kernel by name."""

from __future__ import annotations

import ast
import functools
import inspect
import re
import textwrap
from collections.abc import Callable, Mapping
from typing import Any

from onnxsmith_compiler.codegen.library import shapes
from onnxsmith_compiler.codegen.library.sizes import store_sizes
from onnxsmith_compiler.ops.lowering import LibraryCall

Text = Callable[[LibraryCall], str]


def _source(function: Callable[..., Any]) -> Text:
    """The function's own source, each name of the call's variant replaced by its text."""

    def text(call: LibraryCall) -> str:
        source = _bare(function)
        for name, value in call.variant:
            source = re.sub(rf"\b{name}\b", str(value), source)
        return source

    return text


@functools.cache
def _bare(function: Callable[..., Any]) -> str:
    """The source of `function`, renamed to `kernel`, without docstring, comments and annotations."""
    (definition,) = ast.parse(textwrap.dedent(inspect.getsource(function))).body
    assert isinstance(definition, ast.FunctionDef)
    definition.name = "kernel"
    definition.returns = None
    for argument in definition.args.args:
        argument.annotation = None
    if ast.get_docstring(definition) is not None:
        del definition.body[0]
    return ast.unparse(definition) + "\n"


LIBRARY: Mapping[str, Text] = {
    "axis_mask": _source(shapes.axis_mask),
    "kept_sizes": _source(shapes.kept_sizes),
    "reshape_sizes": _source(shapes.reshape_sizes),
    "slice_bounds": _source(shapes.slice_bounds),
    "split_sizes": _source(shapes.split_sizes),
    "store_sizes": store_sizes,
    "widened_sizes": _source(shapes.widened_sizes),
}
