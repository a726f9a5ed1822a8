import sys

from onnxsmith.cpu import CodeTarget, cpu_features, host


def test_this_machine_fits_itself() -> None:
    features = cpu_features()
    assert features
    assert host(tuple(sorted(features))).why_unfit() is None
    assert host().platform.startswith(f"{sys.platform}_")


def test_what_is_missing_is_named() -> None:
    assert host(("b", "a")).why_unfit() == "the code needs a CPU with a, b, which this one lacks"
    other = CodeTarget("beos", "ppc").why_unfit()
    assert other == f"the code is for beos_ppc, and this is {host().platform}"
