import sys

import pytest
from numpy._core._multiarray_umath import __cpu_features__

from onnxsmith import cpu
from onnxsmith.cpu import CodeTarget, cpu_features, generic_target, host, linux_names
from onnxsmith.manifest import CodeFile, Manifest, OtherMachineError

HERE = host()


def test_this_machine_fits_itself() -> None:
    features = cpu_features()
    assert features
    assert HERE._replace(features=tuple(sorted(features))).fits_here()
    assert HERE.platform.startswith(f"{sys.platform}_")


def test_other_machines_do_not_fit() -> None:
    assert HERE._replace(features=("b", "a")).lacking() == ["a", "b"]
    for other in (HERE._replace(features=("b",)), HERE._replace(system="beos"), HERE._replace(machine="ppc")):
        assert not other.fits_here()


def manifest(*targets: CodeTarget) -> Manifest:
    return Manifest(tuple(CodeFile(target.level, target) for target in targets), {})


def test_the_best_level_that_fits_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    levels = [HERE._replace(level=name, features=names) for name, names in (("v3", ("avx2",)), ("v2", ("pni",)))]
    for present, level in ((("pni",), "v2"), (("avx2", "pni", "sse"), "v3")):
        monkeypatch.setattr(cpu, "cpu_features", lambda names=present: frozenset(names))
        assert manifest(*levels).code_here().file == level
    monkeypatch.setattr(cpu, "cpu_features", lambda: frozenset(["sse"]))
    expected = rf"the code is for {HERE.platform} \(v3, v2\), and this CPU lacks pni, which v2 needs$"
    with pytest.raises(OtherMachineError, match=expected):
        manifest(*levels).code_here()


def test_other_systems_are_named() -> None:
    others = CodeTarget("beos", "ppc", level="G3"), CodeTarget("plan9", "mips")
    expected = rf"the code is for beos_ppc \(G3\), plan9_mips \(any\), and this is {HERE.platform}$"
    with pytest.raises(OtherMachineError, match=expected):
        manifest(*others).code_here()


@pytest.mark.parametrize(
    ("system", "machine", "name"),
    [
        ("linux", "x86_64", "x86_64-linux"),
        ("linux", "aarch64", "aarch64-linux"),
        ("darwin", "arm64", "aarch64-macos"),
        ("win32", "AMD64", "x86_64-windows"),
    ],
)
def test_the_generic_target(monkeypatch: pytest.MonkeyPatch, system: str, machine: str, name: str) -> None:
    monkeypatch.setattr(cpu, "host", lambda: CodeTarget(system, machine))
    assert generic_target() == name


def test_numpy_tells_what_the_system_does_not() -> None:
    present = cpu_features()
    assert present is not None
    named = {name for names in cpu._NUMPY_NAMES.values() for name in names.split()}
    assert linux_names(__cpu_features__) == (present & named if HERE.machine == "x86_64" else frozenset())
    assert linux_names({"SSE3": True, "AVX2": False, "AVX512_SKX": True, "NEW": True}) == {
        "pni", "avx512bw", "avx512dq", "avx512vl",
    }  # fmt: skip
