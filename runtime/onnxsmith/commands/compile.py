"""`onnxsmith compile`: compile a model into the cache, or into a Python package."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Annotated

import typer

from onnxsmith.ahead import NATIVE, compile_to, package_target, set_target
from onnxsmith.cache import open_cache
from onnxsmith.commands import common
from onnxsmith.compile_client import Model, Progress, find_program
from onnxsmith.options import SessionOptions, compile_options, settings

OutputOption = Annotated[
    Path | None,
    typer.Option("--output", "-o", help="Write a Python package: a folder, or a file that ends in .zip."),
]
WheelOption = Annotated[bool, typer.Option("--wheel", help="Write a wheel, beside OUTPUT and named by it.")]
VersionOption = Annotated[
    str | None, typer.Option("--package-version", help="Version of the wheel; the model's own by default.")
]

TargetOption = Annotated[
    str | None,
    typer.Option(
        "--target",
        metavar="NAME",
        help="Machines to compile for: native (this one and its CPU; without --output the default), x86_64-linux (any "
        "CPU from x86-64-v2 on, with code for v2, v3 and v4), aarch64-linux; with Zig (pip install "
        "'onnxsmith[cross]') also x86_64-windows, aarch64-macos and x86_64-macos. A package is for any machine of "
        "this system and architecture by default.",
    ),
]


def compile(
    model: common.ModelArgument,
    output: OutputOption = None,
    wheel: WheelOption = False,
    package_version: VersionOption = None,
    dim: common.DimensionOption = None,
    level: common.LevelOption = 99,
    option: common.CompilerOption = None,
    target: TargetOption = None,
    tune: common.TuneOption = False,
    format: common.FormatOption = common.Format.table,
) -> None:
    """Compile MODEL and keep the program in the cache, where sessions find it, or write it as a Python package.

    A package needs Python 3.11 and numpy alone: `import my_model; my_model.run(None, feed)`. C programs need the
    library, the header and the weights that are in it.
    Sizes given with --dim are fixed, as SessionOptions.add_free_dimension_override_by_name does. A program made with
    --tune is found by sessions with the config entry onnxsmith.compile.tune set to "true".
    """
    options = common.session_options(level, compiler=option, tune=tune)
    for name, size in common.dimensions(dim).items():
        options.add_free_dimension_override_by_name(name, size)
    if wheel and output is None:
        from onnxsmith.packaging import package_name

        output = Path(package_name(model.stem))
    if output is None and target not in (None, NATIVE):
        raise common.usage_error("code for other machines goes into a package: name one with --output")
    set_target(options, target or (NATIVE if output is None else package_target(options)))
    start = time.perf_counter()
    with common.progress_bar(f"Compiling {model}") as progress:
        c_functions = {}
        if output is None:
            made = _into_cache(model, options, progress)
        else:
            written = compile_to(model, output, options, wheel, package_version, progress)
            made = written.path
            c_functions = {"c_functions": written.c_header or f"none, since {written.why_no_c_functions}"}
    seconds = time.perf_counter() - start
    row = {"model": str(model), "program": str(made), "bytes": _size(made), "seconds": seconds, **c_functions}
    common.show(format, f"{model}", [row])


def _into_cache(model: Path, options: SessionOptions, progress: Progress | None) -> Path:
    chosen = settings(options)
    if chosen.cache_dir is None:
        raise common.usage_error("the cache is off (ONNXSMITH_CACHE=off): name a place for the program with --output")
    nothing_kept = "the cache keeps nothing, as the warning says: name a place for the program with --output"
    if open_cache(chosen.cache_dir, chosen.cache_bytes) is None:
        raise common.usage_error(nothing_kept)
    found = find_program(Model(os.path.abspath(model), None), compile_options(options), chosen, progress)
    if found.key is None:
        raise common.usage_error(nothing_kept)
    return found.path


def _size(path: Path) -> int:
    files = [path] if path.is_file() else [file for file in path.rglob("*") if file.is_file()]
    return sum(file.stat().st_size for file in files)
