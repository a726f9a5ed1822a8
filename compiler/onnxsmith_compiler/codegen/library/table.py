"""Every hand-written kernel by name."""

from __future__ import annotations

import ast
import functools
import re
from collections.abc import Callable, Mapping
from importlib import resources

from onnxsmith_compiler.codegen.library.sizes import store_sizes
from onnxsmith_compiler.codegen.library.trees import walk_trees
from onnxsmith_compiler.ops.lowering import LibraryCall

Text = Callable[[LibraryCall], str]


def _source(module: str, name: str) -> Text:
    """The source of the function `name` of a module beside this, each name of the variant replaced by its text."""

    def text(call: LibraryCall) -> str:
        source = _bare(module, name)
        for variable, value in call.variant:
            source = re.sub(rf"\b{variable}\b", str(value), source)
        return source

    return text


@functools.cache
def _bare(module: str, name: str) -> str:
    """The source of a function, renamed to `kernel`, without docstring, comments and annotations.

    It is read, and not asked of the function: whoever imports that imports numba, too.
    """
    text = resources.files(__package__).joinpath(f"{module}.py").read_text(encoding="utf-8")
    found = [node for node in ast.parse(text).body if isinstance(node, ast.FunctionDef) and node.name == name]
    (definition,) = found
    definition.name = "kernel"
    definition.returns = None
    for argument in definition.args.args:
        argument.annotation = None
    if ast.get_docstring(definition) is not None:
        del definition.body[0]
    return ast.unparse(definition) + "\n"


LIBRARY: Mapping[str, Text] = {
    "axis_mask": _source("shapes", "axis_mask"),
    "axis_sizes": _source("shapes", "axis_sizes"),
    "copy_elements": _source("scatter", "copy_elements"),
    "count_nonzero": _source("selection", "count_nonzero"),
    "couple_pairs": _source("coupling", "couple_pairs"),
    "cumulate": _source("sorting", "cumulate"),
    "determinant": _source("linear", "determinant"),
    "draw_seed": _source("random", "draw_seed"),
    "exclusive_sums": _source("selection", "exclusive_sums"),
    "find_nonzero": _source("selection", "find_nonzero"),
    "kept_sizes": _source("shapes", "kept_sizes"),
    "list_boxes": _source("selection", "list_boxes"),
    "pad_amounts": _source("shapes", "pad_amounts"),
    "reshape_sizes": _source("shapes", "reshape_sizes"),
    "look_up": _source("look_up", "look_up"),
    "max_roi_pool": _source("vision", "max_roi_pool"),
    "roi_align": _source("vision", "roi_align"),
    "scatter_elements": _source("scatter", "scatter_elements"),
    "scatter_slices": _source("scatter", "scatter_slices"),
    "slice_bounds": _source("shapes", "slice_bounds"),
    "split_sizes": _source("shapes", "split_sizes"),
    "store_sizes": store_sizes,
    "suppress_boxes": _source("selection", "suppress_boxes"),
    "top_k": _source("sorting", "top_k"),
    "unique_items": _source("sorting", "unique_items"),
    "walk_trees": walk_trees,
    "widened_sizes": _source("shapes", "widened_sizes"),
}
"""Text of each kernel for a call."""
