"""Exceptions: the same classes, codes and prefixes as onnxruntime's."""

import pickle
import re

import onnxruntime.capi.onnxruntime_pybind11_state as peer
import pytest

import onnxsmith
import onnxsmith.capi.onnxruntime_pybind11_state as state
from onnxsmith import errors

NAMES = sorted(errors.CLASSES)


@pytest.mark.parametrize("name", NAMES)
def test_class_exists_in_onnxruntime_under_the_same_module_name(name):
    kind = getattr(state, name)
    assert kind is errors.CLASSES[name]
    assert kind.__bases__ == (Exception,)
    assert getattr(peer, name).__bases__ == (Exception,)


def test_no_class_of_onnxruntime_is_missing_but_the_training_one():
    theirs = {
        name
        for name in dir(peer)
        if isinstance(getattr(peer, name), type) and issubclass(getattr(peer, name), Exception)
    }
    assert theirs - set(NAMES) == {"DeviceReset"}


def test_codes_differ_and_are_positive():
    codes = [kind.code for kind in errors.CLASSES.values()]
    assert sorted(codes) == list(range(1, len(codes) + 1))


@pytest.mark.parametrize(
    "make, kind",
    [
        (lambda ort: ort.InferenceSession("no such file.onnx"), "NoSuchFile"),
        (lambda ort: ort.InferenceSession(b"junkjunk"), "InvalidProtobuf"),
        (lambda ort: ort.InferenceSession(b""), "InvalidArgument"),
    ],
)
def test_code_and_status_are_onnxruntimes(make, kind):
    import onnxruntime

    with pytest.raises(getattr(peer, kind)) as caught:
        make(onnxruntime)
    code, status = re.match(r"\[ONNXRuntimeError\] : (\d+) : (\w+) : ", str(caught.value)).groups()
    assert (int(code), status) == (errors.CLASSES[kind].code, errors.CLASSES[kind].status)


def test_message_has_prefix_and_sentence():
    raised = errors.error(errors.NoSuchFile, "The model is gone.")
    assert str(raised) == "[ONNXRuntimeError] : 3 : NO_SUCHFILE : The model is gone."


def test_unknown_name_of_an_error_is_a_fail():
    assert type(errors.named_error("Whatever", "x")) is errors.Fail
    assert type(errors.named_error("InvalidGraph", "x")) is errors.InvalidGraph


def test_errors_can_be_pickled():
    raised = pickle.loads(pickle.dumps(errors.error(errors.Fail, "x")))
    assert type(raised) is errors.Fail
    assert str(raised).endswith("FAIL : x")


def test_package_exports_no_exception_that_shadows_a_builtin():
    assert not hasattr(onnxsmith, "NotImplemented")
