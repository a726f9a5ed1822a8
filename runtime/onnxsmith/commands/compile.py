"""`onnxsmith compile`: compile a model into the cache."""

from __future__ import annotations

import os
import time

from onnxsmith.commands import common
from onnxsmith.compile_client import Model, find_program
from onnxsmith.options import compile_options, settings


def compile(
    model: common.ModelArgument,
    dim: common.DimensionOption = None,
    level: common.LevelOption = 99,
    option: common.CompilerOption = None,
    tune: common.TuneOption = False,
    format: common.FormatOption = common.Format.table,
) -> None:
    """Compile MODEL and keep the program in the cache, where sessions find it.

    Sizes given with --dim are fixed, as SessionOptions.add_free_dimension_override_by_name does. A program made with
    --tune is found by sessions with the config entry onnxsmith.compile.tune set to "true".
    """
    options = common.session_options(level, compiler=option, tune=tune)
    for name, size in common.dimensions(dim).items():
        options.add_free_dimension_override_by_name(name, size)
    chosen = settings(options)
    if chosen.cache_dir is None:
        raise common.usage_error("the cache is off (ONNXSMITH_CACHE=off), so there is no place for the program")
    start = time.perf_counter()
    with common.progress_bar(f"Compiling {model}") as progress:
        found = find_program(Model(os.path.abspath(model), None), compile_options(options), chosen, progress)
    seconds = time.perf_counter() - start
    size = sum(file.stat().st_size for file in found.path.rglob("*") if file.is_file())
    row = {"model": str(model), "program": str(found.path), "bytes": size, "seconds": seconds}
    common.show(format, f"{model}", [row])
