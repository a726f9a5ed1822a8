"""What C functions are made of: the header's text, objects for other machines, and the CPU's features."""

from __future__ import annotations

import ctypes
from dataclasses import replace

import pytest
from kernel_harness import load

from onnxsmith.program import Program, Segment, Tensor
from onnxsmith_compiler.codegen import c_layout as c
from onnxsmith_compiler.codegen import cpu_id, llvm_backend
from onnxsmith_compiler.codegen.c_header import header_text
from onnxsmith_compiler.codegen.c_interface import FUNCTIONS, NATIVE
from onnxsmith_compiler.codegen.c_library import compile_common, compile_own
from onnxsmith_compiler.codegen.elf_linker import link_shared_library
from onnxsmith_compiler.codegen.target import Target

HOST = Target.host()
needs_x86 = pytest.mark.skipif(HOST.architecture != "x86_64", reason="asks x86's CPUID")


def program(*names: str, kernels: tuple[str, ...] = ()) -> Program:
    """Inputs [N] of these names, and nothing that is computed from them."""
    return Program(
        inputs=tuple(Tensor(name, "float32", ("N",), (0,)) for name in names),
        outputs=(),
        symbols=("N",),
        input_symbols=((0, 0),),
        slots=(0,),
        segments=(Segment((), (), ()),),
        buffers=(),
        kernels=kernels,
        weight_bytes=0,
        overridable={},
        in_place=(),
        metadata={},
        custom_metadata={},
    )


@pytest.fixture(scope="module")
def common() -> bytes:
    return compile_common(HOST)


def plan(common: bytes, target: Target) -> int:
    """What planning gives in a library whose kernels are for `target`."""
    objects = {"common": common, "own": compile_own(program("x"), "m", target)}
    library = load(link_shared_library(objects, None, "m.so"))
    size = library.m_context_size(1)
    room = ctypes.create_string_buffer(size + 64)
    at = -(-ctypes.addressof(room) // 64) * 64
    return library.m_plan(ctypes.c_void_p(at), ctypes.c_int64(size), 1, (ctypes.c_int64 * 1)(5))


class TestHeader:
    def test_names_cannot_end_a_comment(self):
        text = header_text(program("evil */ int x; /*", "tri??/graph", 'new\nline"', "\\"), "m")
        before, guard = text.split("#ifndef", 1)
        assert before.count("*/") == 1 and before.rstrip().endswith("*/")
        assert "int x" not in guard and not {"\\", '"'} & set(before) and "??" not in before
        assert "0  evil _/ int x_ /_: float32 [N]" in before

    def test_it_declares_every_function(self):
        text = header_text(program("x"), "my_model")
        for function in FUNCTIONS:
            assert f"my_model_{function.name}(" in text
        assert "~" not in text and all(len(line) <= 120 for line in text.splitlines())
        for code, name, _ in c.RESULTS:
            assert f"#define MY_MODEL_{name} {code}  /*" in text


class TestObjects:
    @pytest.mark.parametrize("target", [Target.generic_aarch64(), Target.generic_x86_64("v2")])
    def test_the_own_one_links_on_other_machines(self, target):
        """Kernels' addresses and the table are reached without the dynamic linker."""
        text = [f"define i64 @{name}({', '.join(['i64'] * len(native.arguments))}) {{\n ret i64 0\n}}"
                for name, native in NATIVE.items()]  # fmt: skip
        text.append("define i32 @k(ptr %c, ptr %a, i64 %b, i64 %e) {\n ret i32 0\n}")
        module = llvm_backend.parse("\n".join(text), target)
        others = llvm_backend.emit_object(module, target, "others")
        own = compile_own(program("x", kernels=("k",)), "m", target)
        assert link_shared_library({"others": others, "own": own}, ["m_run", "m_bind"], "m.so")


class TestCpu:
    def test_here(self, common):
        assert plan(common, HOST) == c.DONE

    @needs_x86
    @pytest.mark.parametrize("feature", ["xop", "avxvnniint8"])
    def test_a_cpu_that_lacks_a_feature(self, common, feature):
        if HOST.has(feature):
            pytest.skip(f"this CPU has {feature}")
        target = replace(HOST, features=f"{HOST.features},+{feature}".replace(f"-{feature},", ""))
        assert plan(common, target) == c.UNSUPPORTED_CPU

    @needs_x86
    def test_registers_that_the_system_does_not_keep(self, common, monkeypatch):
        monkeypatch.setitem(cpu_id._STATES, "avx", 1 << 62)
        assert plan(common, Target.generic_x86_64("v2")) == c.DONE
        if HOST.has("avx"):
            assert plan(common, HOST) == c.UNSUPPORTED_CPU

    def test_every_feature_that_code_may_need_can_be_asked_for(self):
        names = ",".join(f"+{name}" for name in cpu_id.BITS)
        everything = replace(Target.generic_x86_64("v4"), features=names)
        assert len(everything.needed_features) == len(cpu_id.BITS)

    def test_bits(self):
        v3 = cpu_id.wanted_bits(Target.generic_x86_64("v3"))
        assert cpu_id.Wanted(7, 0, 1, 1 << 3 | 1 << 5 | 1 << 8) in v3
        assert [wanted.leaf for wanted in v3] == [1, 7, 0x80000001]
        assert cpu_id.wanted_bits(Target.generic_aarch64()) == []
        assert cpu_id.wanted_states(Target.generic_x86_64("v2")) == 0
        assert cpu_id.wanted_states(Target.generic_x86_64("v4")) == 0xE6
