"""The ELF linker: libraries that load and run, what it refuses, aarch64 relocations, its speed."""

from __future__ import annotations

import contextlib
import ctypes
import struct
import time

import numpy as np
import pytest
from kernel_harness import host, load

from onnxsmith_compiler.codegen import llvm_backend
from onnxsmith_compiler.codegen.compile_errors import LinkError
from onnxsmith_compiler.codegen.elf_linker import link_shared_library
from onnxsmith_compiler.codegen.target import Target

ARM = Target.generic_aarch64()
TABLE = """
@table = internal constant [4 x i64] [i64 10, i64 20, i64 30, i64 40]
define i64 @NAME(i64 %i) {
  %p = getelementptr [4 x i64], ptr @table, i64 0, i64 %i
  %v = load i64, ptr %p
  ret i64 %v
}
"""


def compiled(text: str, target: Target | None = None) -> bytes:
    target = target or host()
    module = llvm_backend.parse(text, target)
    return bytes(llvm_backend.target_machine(target).emit_object(module))


def table_of(name: str) -> bytes:
    return compiled(TABLE.replace("NAME", name))


def call(library: ctypes.CDLL, name: str, argument: int) -> int:
    function = library[name]
    function.argtypes, function.restype = [ctypes.c_int64], ctypes.c_int64
    return int(function(argument))


def test_links_code_and_constants_of_many_objects() -> None:
    names = [f"f{index}" for index in range(50)]
    library = load(link_shared_library({name: table_of(name) for name in names}, names, "many.so"))
    assert [call(library, name, 2) for name in names] == [30] * 50
    with pytest.raises(AttributeError):
        _ = library.f50


def test_objects_may_call_each_other_and_exports_are_chosen() -> None:
    caller = """
declare hidden i64 @inner(i64)
define i64 @outer(i64 %i) { %v = call i64 @inner(i64 %i)
 ret i64 %v
}
"""
    objects = {"caller": compiled(caller), "callee": table_of("inner")}
    library = load(link_shared_library(objects, ["outer"], "calls.so"))
    assert call(library, "outer", 3) == 40
    with pytest.raises(AttributeError):
        _ = library.inner


def test_exports_everything_unless_told() -> None:
    library = load(link_shared_library({"a": table_of("f"), "b": table_of("g")}, None, "all.so"))
    assert call(library, "f", 0) == call(library, "g", 0) == 10


def test_many_exports_are_all_found_by_hash() -> None:
    body = "\n".join(f"define i64 @symbol_{i}(i64 %x) {{\n ret i64 {i}\n}}" for i in range(300))
    library = load(link_shared_library({"all": compiled(body)}, [f"symbol_{i}" for i in range(300)], "all.so"))
    assert [call(library, f"symbol_{i}", 0) for i in range(300)] == list(range(300))


def test_two_libraries_are_told_apart() -> None:
    one = load(link_shared_library({"a": compiled("define i64 @f(i64 %x) {\n ret i64 1\n}")}, ["f"], "one.so"))
    two = load(link_shared_library({"a": compiled("define i64 @f(i64 %x) {\n ret i64 2\n}")}, ["f"], "two.so"))
    assert (call(one, "f", 0), call(two, "f", 0)) == (1, 2)


def test_code_is_not_writable_and_data_is_not_executable() -> None:
    image = link_shared_library({"t": table_of("f")}, ["f"], "t.so")
    (count,) = struct.unpack_from("<H", image, 56)
    headers = [struct.unpack_from("<IIQQQQQQ", image, 64 + 56 * index) for index in range(count)]
    loaded = [flags for kind, flags, *_ in headers if kind == 1]
    assert loaded == [4, 5, 6]
    assert [flags for kind, flags, *_ in headers if kind == 0x6474E551] == [6]


def test_sections_tell_linkers_and_debuggers_what_is_where() -> None:
    image = link_shared_library({"t": table_of("f")}, ["f"], "t.so")
    (at,) = struct.unpack_from("<Q", image, 40)
    count, names = struct.unpack_from("<HH", image, 60)
    headers = [struct.unpack_from("<IIQQQQIIQQ", image, at + 64 * index) for index in range(count)]
    assert len(image) == at + 64 * count
    strings = image[headers[names][4] :]
    found = {strings[header[0] :].split(b"\0")[0].decode(): header for header in headers[1:]}
    assert list(found) == [".dynsym", ".hash", ".dynstr", ".rodata", ".text", ".dynamic", ".shstrtab"]
    assert struct.pack("<4q", 10, 20, 30, 40) in _content(image, found[".rodata"])
    assert _content(image, found[".dynstr"]) == b"\0t.so\0f\0"
    symbol = struct.unpack("<IBBHQQ", _content(image, found[".dynsym"])[24:])
    assert headers[symbol[3]] == found[".text"] and symbol[4] == found[".text"][3]


def _content(image: bytes, header: tuple[int, ...]) -> bytes:
    assert header[3] in (0, header[4])  # addresses are places in the file
    return image[header[4] : header[4] + header[5]]


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("@g = global i64 3\ndefine ptr @f() {\n ret ptr @g\n}", "not code or read-only"),
        ("@g = internal global i64 0\ndefine ptr @f() {\n ret ptr @g\n}", "not code or read-only"),
        ("@g = thread_local global i64 3\ndefine ptr @f() {\n ret ptr @g\n}", "not code or read-only"),
        ("declare void @puts(i64)\ndefine void @f() {\n call void @puts(i64 1)\n ret void\n}", "puts"),
        (
            "@g = constant ptr @f\ndefine ptr @f() {\n %p = load volatile ptr, ptr @g\n ret ptr %p\n}",
            "section|position",
        ),
    ],
)
def test_refuses_what_needs_the_dynamic_linker(text: str, why: str) -> None:
    with pytest.raises(LinkError, match=f"bad: .*({why})"):
        link_shared_library({"bad": compiled(text)}, ["f"], "bad.so")


def test_refuses_missing_and_doubled_symbols() -> None:
    with pytest.raises(LinkError, match="b: defines f, which a defines too"):
        link_shared_library({"a": table_of("f"), "b": table_of("f")}, ["f"], "t.so")
    with pytest.raises(LinkError, match="no object defines g"):
        link_shared_library({"a": table_of("f")}, ["g"], "t.so")
    with pytest.raises(LinkError, match="no objects"):
        link_shared_library({}, [], "t.so")


@pytest.mark.parametrize("data", [b"", b"\x7fELF", b"MZ" + bytes(100), bytes(64)])
def test_refuses_what_is_no_object(data: bytes) -> None:
    with pytest.raises(LinkError, match="junk: "):
        link_shared_library({"junk": data}, [], "t.so")


def test_refuses_damaged_and_mixed_objects() -> None:
    whole = table_of("f")
    for cut in range(0, len(whole), 37):
        with pytest.raises(LinkError):
            link_shared_library({"cut": whole[:cut]}, ["f"], "t.so")
    with pytest.raises(LinkError, match="machine"):
        link_shared_library({"a": table_of("f"), "b": compiled("define void @g() {\n ret void\n}", ARM)}, [], "t.so")


def _words(image: bytes, at: int, count: int) -> tuple[int, ...]:
    return struct.unpack_from(f"<{count}I", image, at)


def _segment(image: bytes, flags: int) -> int:
    (count,) = struct.unpack_from("<H", image, 56)
    headers = [struct.unpack_from("<IIQQQQQQ", image, 64 + 56 * index) for index in range(count)]
    return next(offset for kind, found, offset, *_ in headers if kind == 1 and found == flags)


def test_aarch64_addresses_of_constants() -> None:
    """Decodes adrp and add, and finds the table where they point."""
    image = link_shared_library({"t": compiled(TABLE.replace("NAME", "f"), ARM)}, ["f"], "t.so")
    text = _segment(image, 5)
    adrp, add = _words(image, text, 2)
    assert adrp & 0x9F000000 == 0x90000000 and add & 0xFFC00000 == 0x91000000
    pages = (adrp >> 5 & 0x7FFFF) << 2 | adrp >> 29 & 3
    pages -= (pages >> 20) << 21
    address = ((text >> 12) + pages << 12) + (add >> 10 & 0xFFF)
    assert struct.unpack_from("<4q", image, address) == (10, 20, 30, 40)


def test_aarch64_vector_constants_and_calls() -> None:
    """A 16-byte load by its scaled offset, and a branch to another object."""
    caller = """
declare hidden i64 @inner(i64)
define i64 @outer(i64 %i) { %v = call i64 @inner(i64 %i)
 %w = add i64 %v, 1
 ret i64 %w
}
define <4 x i32> @vector() { ret <4 x i32> <i32 1, i32 20, i32 300, i32 4000> }
"""
    objects = {"caller": compiled(caller, ARM), "callee": compiled(TABLE.replace("NAME", "inner"), ARM)}
    image = link_shared_library(objects, ["outer", "vector", "inner"], "t.so")
    text = _segment(image, 5)
    words = _words(image, text, 24)
    branch = next(index for index, word in enumerate(words) if word >> 26 == 0b100101)
    inner = text + 4 * branch + 4 * (words[branch] & 0x3FFFFFF)
    assert _words(image, inner, 1)[0] & 0x9F000000 == 0x90000000
    load_at = next(index for index, word in enumerate(words) if word & 0xFFC00000 == 0x3DC00000)
    adrp = words[load_at - 1]
    pages = (adrp >> 5 & 0x7FFFF) << 2 | adrp >> 29 & 3
    pages -= (pages >> 20) << 21
    address = ((text + 4 * (load_at - 1) >> 12) + pages << 12) + (words[load_at] >> 10 & 0xFFF) * 16
    assert struct.unpack_from("<4i", image, address) == (1, 20, 300, 4000)


def test_links_a_hundred_kernels_in_well_under_a_tenth_of_a_second() -> None:
    objects = {f"f{index}": table_of(f"f{index}") for index in range(100)}
    best = min(_seconds(objects) for _ in range(3))
    assert best < 0.1, best


def _seconds(objects: dict[str, bytes]) -> float:
    start = time.process_time()
    link_shared_library(objects, list(objects), "t.so")
    return time.process_time() - start


def test_damage_anywhere_is_a_link_error_or_harmless() -> None:
    whole = table_of("f")
    random = np.random.default_rng(0)
    for _ in range(2000):
        damaged = bytearray(whole)
        for place in random.integers(0, len(whole), 3):
            damaged[place] = random.integers(0, 256)
        with contextlib.suppress(LinkError):
            link_shared_library({"damaged": bytes(damaged)}, None, "t.so")
