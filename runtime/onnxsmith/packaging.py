"""Writes compiled models as Python packages: folders, zip files and wheels that need numpy alone.

    my_model/__init__.py      the same for every model; it hands out what `embedded` offers
    my_model/_runtime/        a copy of the modules that a session needs, importing each other by relative names
    my_model/**/*.pyc         in a zip file: their byte code for the Python that compiled the model
    my_model/manifest.json, program.json, libmy_model.so, my_model.h, ...    see `artifact`

The same program and the same Python give the same bytes, in whatever form.
"""

from __future__ import annotations

import hashlib
import importlib.util
import keyword
import marshal
import os
import re
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from onnxsmith import artifact, manifest, package_archive
from onnxsmith.cpu import CodeTarget
from onnxsmith.manifest import FileEntry
from onnxsmith.package_archive import Member
from onnxsmith.program import Program
from onnxsmith.values import ML_DTYPES
from onnxsmith.version import __version__

RUNTIME_MODULES = (
    "arrays", "artifact", "built_in", "cpu", "digests", "embedded", "errors", "executor", "faults", "feeds", "forks",
    "io_binding", "loader", "manifest", "memory", "native_layout", "options", "ort_value", "package", "plan",
    "profiling", "program", "program_check", "program_json", "providers", "record", "run_errors", "seeds",
    "segment_runner", "session", "storage", "tables", "threads", "values", "zip_directory",
)  # fmt: skip
"""The modules that a session of a compiled model imports, at once or when it needs them."""

STUB = '''"""An ONNX model, compiled by onnxsmith: run(output_names, input_feed), session, metadata."""

from ._runtime.forks import UNDIVIDED as _UNDIVIDED

__all__ = ["OrtValue", "RunOptions", "SessionOptions", "load", "metadata", "run", "session"]


def __getattr__(name):
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    with _UNDIVIDED:
        from ._runtime import embedded

    value = globals()[name] = embedded.attribute(name)
    return value


def __dir__():
    return sorted({*globals(), *__all__})
'''

_RUNTIME_INIT = f'"""The runtime of onnxsmith {__version__} (Apache License 2.0), for the package around it alone."""\n'
_UNCHECKED_HASH = (1).to_bytes(4, "little")  # PEP 552
_IMPORT = re.compile(r"^( *)from onnxsmith(?:\.(\w+))? import ", re.MULTILINE)
_ABSOLUTE_IMPORT = re.compile(r"^ *(?:import|from) +onnxsmith\b.*", re.MULTILINE)
# The oldest systems that wheels of numpy 2 are for: the code itself calls nothing but the kernel.
_PLATFORM_TAGS = {
    "linux_x86_64": "manylinux_2_17_x86_64",
    "linux_aarch64": "manylinux_2_17_aarch64",
    "win32_AMD64": "win_amd64",
    "darwin_x86_64": "macosx_10_13_x86_64",
    "darwin_arm64": "macosx_11_0_arm64",
}
_LEAST_LEVELS = ("x86-64-v2", "generic", "apple-m1")
_VERSION = re.compile(r"\d+(\.\d+)*((a|b|rc|\.post|\.dev)\d+)*(\+[a-z0-9.]+)?")


@dataclass(frozen=True)
class Form:
    """What is written: the package's `name`, into a folder, a zip file, or a wheel of a `version`.

    `output` is the folder, the zip file, or the folder in which the wheel comes to lie.
    """

    name: str
    output: Path
    kind: Literal["folder", "zip", "wheel"]
    version: str | None = None


@dataclass(frozen=True)
class Written:
    """A package that was written: where it is, and its C header's name, or why it has none."""

    path: Path
    c_header: str | None
    why_no_c_functions: str | None


def form_of(output: Path, wheel: bool, version: str | None) -> Form:
    """The form that an output path stands for: a folder, or by its name a zip file; a wheel lies beside it.

    ValueError for a path whose name is no name of a Python package, and for a malformed version.
    """
    kind: Literal["folder", "zip", "wheel"] = "wheel" if wheel else "zip" if output.suffix == ".zip" else "folder"
    name = output.stem if kind == "zip" else output.name
    if not name.isidentifier() or not name.isascii() or keyword.iskeyword(name):
        raise ValueError(
            f"'{name}' cannot be imported: name the package by letters, digits and '_', as in "
            f"'{output.with_name(package_name(name) + (output.suffix if kind == 'zip' else ''))}'"
        )
    if version is not None and not _VERSION.fullmatch(version):
        raise ValueError(f"'{version}' is no version of a Python package: it would be like '1.0'")
    return Form(name, output.parent if wheel else output, kind, version)


def package_name(text: str) -> str:
    """A name for a Python package that is like `text`."""
    name = re.sub(r"\W", "_", text.removesuffix(".whl"), flags=re.ASCII)
    return f"model_{name}" if not name.isidentifier() or keyword.iskeyword(name) else name


def write_package(program_folder: Path, form: Form) -> Written:
    """Package the compiled model that `artifact.write` left in `program_folder`.

    A package that is there already is replaced. ArtifactError where the compiled model is damaged; ValueError
    where another thing is in the place of a folder; OSError where the disk refuses.
    """
    compiled = artifact.read_manifest(program_folder)
    artifact.verify_files(program_folder, compiled)
    program = artifact.read_program(program_folder, compiled.code[0], compiled)
    own = {name: text.encode() for name, text in package_sources().items()}
    if form.kind == "zip":
        own |= {f"{name}c": byte_code(name, source) for name, source in own.items()}
    entries = {name: FileEntry(len(content), hashlib.sha256(content).hexdigest()) for name, content in own.items()}
    full = compiled._replace(files={**compiled.files, **entries})
    text = manifest.encode(full)
    files = {**full.files, artifact.MANIFEST: FileEntry(len(text), hashlib.sha256(text).hexdigest())}
    members = [
        *(Member(name, content, files[name]) for name, content in sorted({**own, artifact.MANIFEST: text}.items())),
        # The largest last: all else lies together at the start.
        *(
            Member(name, program_folder / name, entry)
            for name, entry in sorted(compiled.files.items(), key=lambda item: (item[1].bytes, item[0]))
        ),
    ]
    headers = [name for name in compiled.files if name.endswith(".h")]
    path = _write_members(form, members, platform_tag(full.code[-1].target), program)
    return Written(path, headers[0] if headers else None, program.why_no_c_functions)


def package_sources() -> Mapping[str, str]:
    """The Python files of every package, by name."""
    folder = Path(__file__).parent
    sources = {"__init__.py": STUB, "_runtime/__init__.py": _RUNTIME_INIT}
    for module in RUNTIME_MODULES:
        text = (folder / f"{module}.py").read_text(encoding="utf-8")
        sources[f"_runtime/{module}.py"] = relative_imports(text, module)
    return sources


def byte_code(name: str, source: bytes) -> bytes:
    """A .pyc file of a module, for this Python; others pass over it to the source.

    Python keeps no byte code for what it imports from a zip file, and to compile a package takes it 80 ms. The
    file is tied to its source by the manifest, not by a time or a hash that Python would compare.
    """
    code = compile(source, name, "exec", dont_inherit=True, optimize=0)
    head = importlib.util.MAGIC_NUMBER + _UNCHECKED_HASH + importlib.util.source_hash(source)
    # From version 3 on, what is written depends on which objects happen to be shared.
    return head + marshal.dumps(code, 2)


def relative_imports(text: str, module: str) -> str:
    """A module's source, importing its neighbours whatever their package is called."""
    text = _IMPORT.sub(r"\1from .\2 import ", text)
    left = _ABSOLUTE_IMPORT.search(text)
    if left is not None:
        raise RuntimeError(f"onnxsmith.{module} has an import that cannot be made relative: {left[0].strip()}")
    return text


def platform_tag(target: CodeTarget) -> str:
    """The tag of wheels whose least demanding code is for `target`."""
    # Code that was made for one CPU is not for all machines of the system.
    return _PLATFORM_TAGS.get(target.platform, target.platform) if target.level in _LEAST_LEVELS else target.platform


def needs(program: Program) -> Sequence[str]:
    """The distributions that running a program takes."""
    border = {tensor.dtype for tensor in (*program.inputs, *program.outputs)}
    return ("numpy>=2.0", "ml_dtypes>=0.5") if border & ML_DTYPES.keys() else ("numpy>=2.0",)


def _write_members(form: Form, members: Sequence[Member], tag: str, program: Program) -> Path:
    (form.output if form.kind == "wheel" else form.output.absolute().parent).mkdir(parents=True, exist_ok=True)
    if form.kind == "folder":
        return _write_folder(form.output, members)
    members = [replace(member, name=f"{form.name}/{member.name}") for member in members]
    if form.kind == "zip":
        return package_archive.write_zip(form.output, members)
    version = form.version or program.metadata.get("version", "0")
    return package_archive.write_wheel(form.output, form.name, version, tag, needs(program), members)


def _write_folder(output: Path, members: Sequence[Member]) -> Path:
    _refuse_other_content(output)
    with tempfile.TemporaryDirectory(dir=output.absolute().parent, prefix=".onnxsmith-") as folder:
        new = Path(folder, "new")
        for member in members:
            path = new / member.name
            path.parent.mkdir(parents=True, exist_ok=True)
            if isinstance(member.content, Path):
                shutil.copyfile(member.content, path)
            else:
                path.write_bytes(member.content)
        if output.exists():
            os.rename(output, Path(folder, "old"))
        os.rename(new, output)
    return output


def _refuse_other_content(output: Path) -> None:
    if not output.exists() or (output / artifact.MANIFEST).is_file():
        return
    if not output.is_dir() or any(output.iterdir()):
        raise ValueError(f"'{output}' is there already and is no compiled model: it is not overwritten")
