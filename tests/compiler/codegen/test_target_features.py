from dataclasses import replace

from onnxsmith.cpu import cpu_features
from onnxsmith_compiler.codegen.target import Target


def test_what_code_needs_is_spelt_as_linux_spells_it() -> None:
    target = Target.host()
    present = cpu_features()
    assert present is not None and target.needed_features
    assert present.issuperset(target.needed_features)


def test_only_what_is_switched_on_is_needed() -> None:
    assert Target.generic_x86_64("v3").needed_features == (
        "abm", "avx", "avx2", "bmi1", "bmi2", "cx16", "f16c", "fma", "lahf_lm", "movbe", "pni", "popcnt", "sse4_1",
        "sse4_2", "ssse3",
    )  # fmt: skip
    assert "avx512f" in Target.generic_x86_64("v4").needed_features
    assert Target.generic_aarch64().needed_features == ()
    off = replace(Target.generic_x86_64("v2"), features="-avx2,+sse4.2,+unknown")
    assert off.needed_features == ("sse4_2",)
