"""Models compiled ahead of time: `onnxsmith.compile` and `onnxsmith.load`."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, overload

from onnxsmith.cpu import generic_target
from onnxsmith.options import GraphOptimizationLevel, SessionOptions
from onnxsmith.package import PackageSource
from onnxsmith.providers import ProviderOptions, Providers
from onnxsmith.session import InferenceSession

if TYPE_CHECKING:
    from onnxsmith.compile_client import Progress
    from onnxsmith.packaging import Written

NATIVE = "native"


class Proto(Protocol):
    """An onnx.ModelProto."""

    def SerializeToString(self) -> bytes: ...


Source = str | os.PathLike[str] | bytes | Proto


@overload
def compile(
    model: Source, output: None = None, *, target: str | None = ..., on_progress: Progress | None = ..., **options: Any
) -> InferenceSession: ...
@overload
def compile(
    model: Source,
    output: str | os.PathLike[str],
    *,
    wheel: bool = ...,
    version: str | None = ...,
    target: str | None = ...,
    on_progress: Progress | None = ...,
    **options: Any,
) -> Path: ...
def compile(
    model: Source,
    output: str | os.PathLike[str] | None = None,
    *,
    wheel: bool = False,
    version: str | None = None,
    target: str | None = None,
    on_progress: Progress | None = None,
    **options: Any,
) -> InferenceSession | Path:
    """Compile a model (path, bytes or onnx.ModelProto): into the cache, or into a Python package.

    Without `output` a session is returned. With it, a package is written that needs Python 3.11 and numpy alone,
    and its path is returned: a folder, or a zip file where `output` ends in ".zip", or with `wheel` a wheel
    beside `output`, named by it and by `version` (the model's own version by default). A package that is there
    already is replaced. C programs can use it too, by a header and functions named by it; `on_progress` hears of a
    model for which there are none.

    `target` names the machines to compile for: "native" is this one, with its CPU, which is what a session gets. A
    package is for any machine of this system and architecture unless another is named: "x86_64-linux" (code for the
    levels x86-64-v2, v3 and v4, of which the best that the CPU has is loaded), "aarch64-linux", or with Zig installed
    (the extra "cross") "x86_64-windows", "aarch64-macos" or "x86_64-macos". `on_progress` is called with (stage,
    done, total). Other arguments are options of the compiler by name:

    - `optimization_level`: 0, 1, 2, 3 or 99, as SessionOptions.graph_optimization_level;
    - `dimensions`: {"N": 1} fixes symbols by name, `denotations` dimensions by what the model says they mean;
    - `distinct_symbols`: names of symbols whose sizes may differ from input to input;
    - `winograd`: False for convolutions without Winograd's algorithm;
    - `workers`: the number of compile processes, 0 for one a core.

    Raises as InferenceSession does; InvalidArgument for an unknown option or target, and where a session is wanted of
    code for another machine; NotImplemented for a target that takes Zig where there is none; ValueError for a path
    that gives the package no name that Python can import, or where something else is.
    """
    source = model if isinstance(model, bytes | str | os.PathLike) else model.SerializeToString()
    chosen = options_of(options)
    if output is None:
        set_target(chosen, target or NATIVE)
        return InferenceSession(source, chosen, on_progress=on_progress)
    set_target(chosen, target or package_target(chosen))
    return compile_to(source, Path(output), chosen, wheel, version, on_progress).path


def compile_to(
    model: str | os.PathLike[str] | bytes,
    output: Path,
    options: SessionOptions,
    wheel: bool = False,
    version: str | None = None,
    on_progress: Progress | None = None,
) -> Written:
    """As `compile` with an output, with the compiler's options as those of a session."""
    from onnxsmith import opening, packaging

    form = packaging.form_of(output, wheel, version)
    source = model if isinstance(model, bytes) else os.path.abspath(os.fsdecode(model))

    def write(folder: Path) -> Written:
        return packaging.write_package(folder, form)

    return opening.with_program(source, options, (), on_progress, write, interface=form.name)


def set_target(options: SessionOptions, target: str) -> None:
    """Have the compiler compile for `target`."""
    if target != NATIVE:  # which it does by itself
        options.add_session_config_entry("onnxsmith.compile.target", target)


def package_target(options: SessionOptions) -> str:
    """What packages are compiled for by default: any machine like this one, or this one alone where it is tuned for."""
    is_tuned = options._entries.get("onnxsmith.compile.tune", "").lower() in ("1", "true")
    return NATIVE if is_tuned else generic_target()


def load(
    path: str | os.PathLike[str],
    sess_options: SessionOptions | None = None,
    providers: Providers | None = None,
    provider_options: ProviderOptions | None = None,
    *,
    sha256: str | None = None,
    verify: bool = False,
) -> InferenceSession:
    """A session of the model that was compiled into the folder, zip file or wheel at `path`.

    Nothing of the package's own Python is run. Manifest, program and code are checked before code is loaded,
    with `verify` the weights in full too. `sha256` pins trust: the digest (sha256sum) of the package's
    manifest.json, which holds those of all other files, each of which is then read in full.

    NoSuchFile where there is nothing; ModelRequiresCompilation where it was compiled for another machine or
    by another release; Fail where it is damaged or not the trusted one.
    """
    source = PackageSource(os.path.abspath(os.fsdecode(path)), sha256, verify)
    return InferenceSession(source, sess_options, providers, provider_options)


def options_of(options: Mapping[str, Any]) -> SessionOptions:
    """Options of the compiler by name as those of a session."""
    result = SessionOptions()
    for name, value in options.items():
        match name:
            case "optimization_level":
                result.graph_optimization_level = GraphOptimizationLevel(value)
            case "dimensions":
                for symbol, size in value.items():
                    result.add_free_dimension_override_by_name(symbol, size)
            case "denotations":
                for denotation, size in value.items():
                    result.add_free_dimension_override_by_denotation(denotation, size)
            case _:
                text = ",".join(value) if isinstance(value, list | tuple) else str(value)
                result.add_session_config_entry(f"onnxsmith.compile.{name}", text)
    return result
