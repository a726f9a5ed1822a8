"""Session and run options: onnxruntime's names and defaults, and the settings read from the environment."""

import copy
import pickle

import onnxruntime as peer
import platformdirs
import pytest

from onnxsmith import options
from onnxsmith.errors import InvalidArgument, NotImplemented
from onnxsmith.options import GraphOptimizationLevel, RunOptions, SessionOptions, compile_options, settings


def attributes(instance) -> dict:
    return {
        name: getattr(instance, name)
        for name in dir(instance)
        if not name.startswith("_") and not callable(getattr(instance, name))
    }


@pytest.mark.parametrize("ours, theirs", [(SessionOptions, peer.SessionOptions), (RunOptions, peer.RunOptions)])
def test_attributes_and_defaults_are_onnxruntimes(ours, theirs):
    expected = {name: plain(value) for name, value in attributes(theirs()).items()}
    assert {name: plain(value) for name, value in attributes(ours()).items()} == expected


def plain(value):
    return int(value) if hasattr(value, "name") else value


@pytest.mark.parametrize("name", ["GraphOptimizationLevel", "ExecutionMode", "ExecutionOrder"])
def test_enumerations_are_onnxruntimes(name):
    expected = {member: int(value) for member, value in getattr(peer, name).__members__.items()}
    assert {member: int(value) for member, value in getattr(options, name).__members__.items()} == expected


@pytest.mark.parametrize(
    "name, value",
    [
        ("intra_op_num_threads", "two"),
        ("intra_op_num_threads", 1.5),
        ("enable_profiling", 1),
        ("logid", 3),
        ("graph_optimization_level", 17),
        ("graph_optimization_level", "ORT_ENABLE_ALL"),
    ],
)
def test_value_of_another_type_is_refused(name, value):
    with pytest.raises(TypeError, match=name):
        setattr(SessionOptions(), name, value)


def test_misspelt_option_is_refused():
    with pytest.raises(AttributeError):
        SessionOptions().intra_op_threads = 2


def test_options_do_not_share_values():
    first, second = SessionOptions(), SessionOptions()
    first.intra_op_num_threads = 3
    first.add_free_dimension_override_by_name("N", 1)
    assert second.intra_op_num_threads == 0
    assert "dimensions" not in compile_options(second)


@pytest.mark.parametrize("clone", [copy.copy, copy.deepcopy, lambda value: pickle.loads(pickle.dumps(value))])
def test_options_can_be_copied_and_pickled(clone):
    original = SessionOptions()
    original.intra_op_num_threads = 3
    original.graph_optimization_level = GraphOptimizationLevel.ORT_DISABLE_ALL
    original.add_session_config_entry("a", "b")
    original.add_free_dimension_override_by_name("N", 4)
    assert attributes(clone(original)) == attributes(original)
    assert clone(original).get_session_config_entry("a") == "b"
    assert compile_options(clone(original)) == compile_options(original)


@pytest.mark.parametrize("kind", [peer, options])
def test_config_entries(kind):
    session, run = kind.SessionOptions(), kind.RunOptions()
    session.add_session_config_entry("key", "value")
    run.add_run_config_entry("key", "value")
    assert session.get_session_config_entry("key") == run.get_run_config_entry("key") == "value"
    with pytest.raises(RuntimeError, match="does not have configuration with key: other"):
        session.get_session_config_entry("other")
    with pytest.raises(RuntimeError, match="does not have configuration with key: other"):
        run.get_run_config_entry("other")


def test_custom_operator_library_is_refused_by_name():
    with pytest.raises(NotImplemented, match=r"ops\.so"):
        SessionOptions().register_custom_ops_library("ops.so")


def test_negative_dimension_is_refused():
    with pytest.raises(InvalidArgument, match="'batch' cannot be fixed to -1"):
        SessionOptions().add_free_dimension_override_by_name("batch", -1)


def test_compile_options_are_what_changes_the_program():
    chosen = SessionOptions()
    assert compile_options(chosen) == compile_options(None) == {"optimization_level": 99}
    chosen.graph_optimization_level = GraphOptimizationLevel.ORT_DISABLE_ALL
    chosen.add_free_dimension_override_by_name("N", 2)
    chosen.add_free_dimension_override_by_denotation("DATA_BATCH", 3)
    chosen.add_session_config_entry("onnxsmith.compile.winograd", "0")
    chosen.intra_op_num_threads = 4
    assert compile_options(chosen) == {
        "optimization_level": 0,
        "dimensions": {"N": 2},
        "denotations": {"DATA_BATCH": 3},
        "winograd": "0",
    }


def test_cache_folder_by_default_is_platformdirs_choice(monkeypatch):
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    assert settings(None, {}).cache_dir == platformdirs.user_cache_dir("onnxsmith", appauthor=False)
    monkeypatch.setenv("XDG_CACHE_HOME", "/var/tmp/xdg")
    expected = platformdirs.user_cache_dir("onnxsmith", appauthor=False)
    assert settings(None, {"XDG_CACHE_HOME": "/var/tmp/xdg"}).cache_dir == expected


def test_settings_come_from_the_environment_and_config_entries_win():
    environment = {"ONNXSMITH_CACHE_DIR": "/one", "ONNXSMITH_CACHE_BYTES": "1000"}
    assert settings(None, environment) == options.Settings("/one", 1000, None)
    chosen = SessionOptions()
    chosen.add_session_config_entry("onnxsmith.cache_dir", "/two")
    chosen.add_session_config_entry("onnxsmith.compile_seconds", "1.5")
    assert settings(chosen, environment) == options.Settings("/two", 1000, 1.5)
    assert settings(None, environment | {"ONNXSMITH_CACHE": "off"}).cache_dir is None


@pytest.mark.parametrize("text", ["many", "-1", "nan", "inf"])
def test_malformed_number_is_refused(text):
    with pytest.raises(InvalidArgument, match="cache_bytes"):
        settings(None, {"ONNXSMITH_CACHE_BYTES": text})
