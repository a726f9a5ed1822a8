"""Packages for macOS: what they hold. Nothing here runs them."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from pathlib import Path

import pytest
from mach_o import MachO

import onnxsmith
from onnxsmith import artifact, packaging
from onnxsmith.cpu import host
from onnxsmith.errors import ModelRequiresCompilation, NotImplemented
from onnxsmith.loader import _ENTRY_POINTS

needs_zig = pytest.mark.skipif(
    importlib.util.find_spec("ziglang") is None, reason="Zig, which links for macOS, is not installed"
)


@needs_zig
def test_what_it_holds_for_arm(package_for: Callable[[str], Path]) -> None:
    package = package_for("aarch64-macos") / "package"
    (code,) = artifact.read_manifest(package).code
    assert (code.file, code.target.level, code.target[:2]) == ("libpackage.dylib", "apple-m1", ("darwin", "arm64"))
    assert packaging.platform_tag(code.target) == "macosx_11_0_arm64"
    library = MachO((package / code.file).read_bytes())
    assert (library.cpu, library.oldest_system, library.is_signed) == (0x100000C, (11, 0), True)
    check_symbols(library, artifact.read_program(package, code, artifact.read_manifest(package)))


@needs_zig
@pytest.mark.slow
def test_what_it_holds_for_x86(package_for: Callable[[str], Path]) -> None:
    package = package_for("x86_64-macos") / "package"
    manifest = artifact.read_manifest(package)
    assert [code.target.level for code in manifest.code] == ["x86-64-v4", "x86-64-v3", "x86-64-v2"]
    assert packaging.platform_tag(manifest.code[-1].target) == "macosx_10_13_x86_64"
    for code in manifest.code:
        library = MachO((package / code.file).read_bytes())
        assert (library.cpu, library.oldest_system) == (0x1000007, (10, 13))
        check_symbols(library, artifact.read_program(package, code, manifest))


def check_symbols(library: MachO, program: artifact.Program) -> None:
    """It has the core and the kernels, and needs nothing but what every library there has."""
    assert {f"_{name}" for name in (*_ENTRY_POINTS, *program.kernels)} <= library.symbols(defined=True)
    assert library.symbols(defined=False) <= {"dyld_stub_binder"}
    assert library.libraries == ["/usr/lib/libSystem.B.dylib"]
    assert library.name == "@rpath/libpackage.dylib"


@needs_zig
@pytest.mark.skipif(host().system == "darwin", reason="this machine may run it")
def test_another_system_says_how_to_compile(package_for: Callable[[str], Path]) -> None:
    message = rf"the code is for darwin_arm64 \(apple-m1\), and this is {host().platform}"
    with pytest.raises(ModelRequiresCompilation, match=message):
        onnxsmith.load(package_for("aarch64-macos") / "package")


def test_without_zig_it_is_told_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    from onnxsmith_compiler.codegen import zig_linker
    from onnxsmith_compiler.codegen.compile_errors import MissingLinker
    from onnxsmith_compiler.codegen.target import Target

    monkeypatch.setattr(zig_linker.importlib.util, "find_spec", lambda name: None)
    zig_linker.require_linker(Target.named("aarch64-linux")[0])
    with pytest.raises(MissingLinker, match=r"Code for arm64 on darwin is linked by Zig.*onnxsmith\[cross\]"):
        zig_linker.require_linker(Target.named("aarch64-macos")[0])
    assert MissingLinker.code == NotImplemented.__name__
