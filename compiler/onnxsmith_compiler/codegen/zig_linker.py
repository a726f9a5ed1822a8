"""Links objects for Windows and macOS into a shared library, with the linkers that come with Zig's compiler.

Zig is a Python package (`ziglang`, the extra "cross"), with all that linking takes: no other compiler, no system's SDK.
"""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from onnxsmith_compiler.codegen.compile_errors import LinkError, MissingLinker
from onnxsmith_compiler.codegen.target import Target

_SECONDS = 300.0

# Code calls this where it takes more than a page of stack, with their number of bytes in rax: Windows grows a stack by
# one page at a time, and only where the next one is touched. All registers are kept.
_STACK_PROBE = """
.globl ___chkstk_ms
___chkstk_ms:
    pushq %rcx
    pushq %rax
    leaq 24(%rsp), %rcx
1:  cmpq $0x1000, %rax
    jb 2f
    subq $0x1000, %rcx
    orb $0, (%rcx)
    subq $0x1000, %rax
    jmp 1b
2:  subq %rax, %rcx
    orb $0, (%rcx)
    popq %rax
    popq %rcx
    retq
"""


def require_linker(target: Target) -> None:
    """MissingLinker where code for `target` cannot be linked here, for want of Zig."""
    if target.system != "linux" and importlib.util.find_spec("ziglang") is None:
        raise MissingLinker(
            f"Code for {target.architecture} on {target.system} is linked by Zig, which is not installed: "
            "pip install 'onnxsmith[cross]'"
        )


def link_with_zig(objects: Mapping[str, bytes], target: Target, name: str) -> bytes:
    """The bytes of a shared library of `objects` (label -> object file), which exports every global symbol.

    `name` is the file by whose name other libraries and programs will look for it.

    LinkError where Zig refuses.
    """
    with tempfile.TemporaryDirectory(prefix="onnxsmith-link-") as folder:
        files = [f"{number}.o" for number in range(len(objects))]
        for file, data in zip(files, objects.values(), strict=True):
            Path(folder, file).write_bytes(data)
        if target.system == "win32":
            Path(folder, "probe.s").write_text(_STACK_PROBE)
            _run_zig(["cc", "-target", _zig_target(target), "-c", "-o", "probe.o", "probe.s"], folder)
            options = ["-dll", "-noentry", "-brepro", "-lldmingw", "-export-all-symbols", f"-out:{name}"]
            _run_zig(["lld-link", *options, "probe.o", *files], folder)
        else:
            # macOS loads no library that is not linked with libSystem, whether it needs it or not.
            options = ["-shared", "-s", "-nostdlib", "-lSystem", f"-Wl,-install_name,@rpath/{name}", "-o", name]
            _run_zig(["cc", "-target", _zig_target(target), *options, *files], folder)
        return Path(folder, name).read_bytes()


def _zig_target(target: Target) -> str:
    """Zig's name for the triple: "aarch64-macos.11.0", "x86_64-windows-gnu"."""
    architecture = {"arm64": "aarch64"}.get(target.architecture, target.architecture)
    if target.system == "darwin":
        version = target.triple.rpartition("macosx")[2].removesuffix(".0")
        return f"{architecture}-macos.{version}"
    return f"{architecture}-windows-gnu"


def _run_zig(arguments: Sequence[str], folder: str) -> None:
    # Linking alone leaves nothing that would be of use the next time.
    environment = {**os.environ, "ZIG_GLOBAL_CACHE_DIR": folder, "ZIG_LOCAL_CACHE_DIR": folder}
    command = [sys.executable, "-m", "ziglang", *arguments]
    try:
        done = subprocess.run(
            command, cwd=folder, env=environment, capture_output=True, text=True, errors="replace", timeout=_SECONDS
        )
    except subprocess.TimeoutExpired:
        raise LinkError(f"Zig took longer than {_SECONDS:g} s to link") from None
    if done.returncode:
        raise LinkError(f"Zig does not link the kernels: {done.stderr.strip()}")
