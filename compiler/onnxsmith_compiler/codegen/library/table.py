"""Every hand-written kernel by name."""

from __future__ import annotations

import ast
import functools
import inspect
import re
import textwrap
from collections.abc import Callable, Mapping
from typing import Any

from onnxsmith_compiler.codegen.library import (
    coupling,
    linear,
    look_up,
    random,
    scatter,
    selection,
    shapes,
    sorting,
    vision,
)
from onnxsmith_compiler.codegen.library.sizes import store_sizes
from onnxsmith_compiler.codegen.library.trees import walk_trees
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
    "axis_sizes": _source(shapes.axis_sizes),
    "copy_elements": _source(scatter.copy_elements),
    "count_nonzero": _source(selection.count_nonzero),
    "couple_pairs": _source(coupling.couple_pairs),
    "cumulate": _source(sorting.cumulate),
    "determinant": _source(linear.determinant),
    "draw_seed": _source(random.draw_seed),
    "exclusive_sums": _source(selection.exclusive_sums),
    "find_nonzero": _source(selection.find_nonzero),
    "kept_sizes": _source(shapes.kept_sizes),
    "list_boxes": _source(selection.list_boxes),
    "pad_amounts": _source(shapes.pad_amounts),
    "reshape_sizes": _source(shapes.reshape_sizes),
    "look_up": _source(look_up.look_up),
    "max_roi_pool": _source(vision.max_roi_pool),
    "roi_align": _source(vision.roi_align),
    "scatter_elements": _source(scatter.scatter_elements),
    "scatter_slices": _source(scatter.scatter_slices),
    "slice_bounds": _source(shapes.slice_bounds),
    "split_sizes": _source(shapes.split_sizes),
    "store_sizes": store_sizes,
    "suppress_boxes": _source(selection.suppress_boxes),
    "top_k": _source(sorting.top_k),
    "unique_items": _source(sorting.unique_items),
    "walk_trees": walk_trees,
    "widened_sizes": _source(shapes.widened_sizes),
}
"""Text of each kernel for a call."""
