"""The cache: entries are whole, private, bounded, and shared between processes."""

import errno
import fcntl
import hashlib
import os
import subprocess
import sys
import tempfile
import time

import pytest

from onnxsmith import locks, source
from onnxsmith.cache import Cache, DirectoryStore, open_cache


def key(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


@pytest.fixture
def cache(tmp_path):
    return open_cache(tmp_path / "cache")


def write_files(content: bytes):
    def write(folder):
        (folder / "code.so").write_bytes(content)
        (folder / "sub").mkdir()
        (folder / "sub" / "weights").write_bytes(b"w")

    return write


def test_store_returns_what_was_put(cache):
    assert cache.kernels.get(key("a")) is None
    cache.kernels.put(key("a"), b"one")
    cache.kernels.put(key("b"), b"")
    assert cache.kernels.get(key("a")) == b"one"
    assert cache.kernels.get(key("b")) == b""
    cache.kernels.put(key("a"), b"two")
    assert cache.kernels.get(key("a")) == b"two"


@pytest.mark.parametrize("damage", [lambda raw: raw[:-1], lambda raw: raw[:40] + b"x" + raw[41:], lambda raw: b""])
def test_damaged_entry_is_nothing_and_is_removed(cache, damage):
    cache.kernels.put(key("a"), b"0123456789")
    (entry,) = cache.kernels.entries()
    entry.path.write_bytes(damage(entry.path.read_bytes()))
    assert cache.kernels.get(key("a")) is None
    assert not entry.path.exists()


def test_folder_is_kept_whole(cache):
    path = cache.programs.put(key("p"), write_files(b"code"))
    cache.programs.seal(key("p"))
    assert path == cache.programs.find(key("p"))
    assert (path / "code.so").read_bytes() == b"code"
    assert (path / "sub" / "weights").read_bytes() == b"w"
    assert cache.programs.find(key("q")) is None


class TestSeal:
    """A folder whose writer died before all of it was on the disk is checked by who finds it, once."""

    @pytest.fixture
    def checked(self):
        return []

    @pytest.fixture
    def store(self, tmp_path, checked):
        def is_whole(folder):
            checked.append(folder)
            return (folder / "code.so").read_bytes() == b"code"

        return DirectoryStore(tmp_path, "programs", is_whole)

    def test_sealed_folder_is_not_checked(self, store, checked):
        path = store.put(key("p"), write_files(b"code"))
        store.seal(key("p"))
        assert store.find(key("p")) == path
        assert checked == []

    def test_whole_folder_is_checked_once(self, store, checked):
        path = store.put(key("p"), write_files(b"code"))
        assert store.find(key("p")) == store.find(key("p")) == path
        assert checked == [path]

    def test_damaged_folder_is_removed(self, store, checked):
        path = store.put(key("p"), write_files(b"half"))
        assert store.find(key("p")) is None
        assert not path.exists()
        assert checked == [path]

    def test_folder_that_is_gone_is_not_sealed(self, store):
        path = store.put(key("p"), write_files(b"code"))
        store.remove(key("p"))
        store.seal(key("p"))
        assert not path.exists()

    def test_folder_is_not_sealed_where_the_disk_fails(self, store, checked, monkeypatch):
        def refuse(descriptor):
            raise OSError(errno.EIO, "Input/output error")

        path = store.put(key("p"), write_files(b"code"))
        monkeypatch.setattr(os, "fsync", refuse)
        store.seal(key("p"))
        assert store.find(key("p")) == store.find(key("p")) == path
        assert checked == [path, path]


def test_folder_of_a_failed_writer_never_appears(cache):
    def write(folder):
        (folder / "code.so").write_bytes(b"half")
        raise ValueError("stopped")

    with pytest.raises(ValueError, match="stopped"):
        cache.programs.put(key("p"), write)
    assert cache.programs.find(key("p")) is None
    assert list((cache.directory / "tmp").iterdir()) == []


def test_first_of_two_equal_folders_stays(cache):
    first = cache.programs.put(key("p"), write_files(b"first"))
    assert cache.programs.put(key("p"), write_files(b"second")) == first
    assert (first / "code.so").read_bytes() == b"first"


def test_removed_folder_stays_readable_to_who_has_it_open(cache):
    path = cache.programs.put(key("p"), write_files(b"code"))
    with open(path / "code.so", "rb") as opened:
        cache.programs.remove(key("p"))
        assert opened.read() == b"code"
    assert cache.programs.find(key("p")) is None


def test_prune_removes_what_was_used_longest_ago(cache):
    for number in range(4):
        cache.kernels.put(key(str(number)), b"x" * 968)
    cache.programs.put(key("p"), write_files(b"x" * 999))
    for entry in cache.entries():
        os.utime(entry.path, (1000, 1000))
    assert cache.kernels.get(key("2")) is not None
    removed = cache.prune(2100)
    assert len(removed) == 3
    assert cache.kernels.get(key("2")) is not None
    assert sum(entry.size for entry in cache.entries()) <= 2100


def test_prune_removes_remains_of_dead_processes(cache):
    cache.kernels.put(key("a"), b"x")
    (cache.directory / "tmp" / "abandoned").mkdir()

    def write(folder):
        cache.prune()
        (folder / "code.so").write_bytes(b"code")

    assert (cache.programs.put(key("p"), write) / "code.so").read_bytes() == b"code"
    assert list((cache.directory / "tmp").iterdir()) == []


def test_where_folders_cannot_be_locked_old_remains_are_removed(cache, monkeypatch):
    def refuse(descriptor, operation):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", refuse)
    cache.programs.put(key("p"), write_files(b"code"))
    old, new = cache.directory / "tmp" / "old", cache.directory / "tmp" / "new"
    old.mkdir()
    new.mkdir()
    os.utime(old, (1000, 1000))
    cache.prune()
    assert not old.exists()
    assert new.exists()


def test_directory_is_private(cache):
    cache.kernels.put(key("a"), b"x")
    for folder, _, _ in os.walk(cache.directory):
        assert os.stat(folder).st_mode & 0o077 == 0


@pytest.mark.parametrize("mode", [0o777, 0o770])
def test_directory_that_others_may_write_is_refused(tmp_path, mode, caplog):
    folder = tmp_path / "open"
    folder.mkdir()
    folder.chmod(mode)
    assert open_cache(folder) is None
    assert f"The cache folder '{folder}' is not used" in caplog.text and "others may write" in caplog.text


def test_directory_of_another_user_is_refused(tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(os, "geteuid", lambda: 12345)
    assert open_cache(tmp_path) is None
    assert "it belongs to user" in caplog.text


def test_file_in_place_of_the_directory_is_refused(tmp_path, caplog):
    (tmp_path / "file").write_text("")
    assert open_cache(tmp_path / "file" / "cache") is None
    assert "is not used" in caplog.text and f"File exists: '{tmp_path / 'file'}'" in caplog.text


def test_no_directory_is_no_cache(caplog):
    assert open_cache(None) is None
    assert caplog.text == ""


def test_claim_keeps_another_process_waiting(cache):
    script = (
        "import sys; from pathlib import Path; from onnxsmith.cache import Cache\n"
        "claim = Cache(Path(sys.argv[1])).claim(sys.argv[2])\n"
        "print(claim.take(wait=False), claim.take(wait=True), flush=True)"
    )
    claim = cache.claim(key("a"))
    assert claim.take(wait=False) and not cache.claim(key("a")).take(wait=False)
    other = subprocess.Popen(
        [sys.executable, "-c", script, str(cache.directory), key("a")], stdout=subprocess.PIPE, text=True
    )
    time.sleep(0.7)
    assert other.poll() is None
    claim.release()
    assert other.communicate(timeout=600)[0] == "False True\n"
    assert claim.take(wait=True)


def test_models_and_kernels_do_not_wait_for_each_other(cache):
    assert cache.claim(key("a")).take(wait=False)
    assert cache.kernels.claim(key("a")).take(wait=False)


def test_entries_can_be_used_where_nothing_can_be_written(cache, monkeypatch):
    cache.kernels.put(key("a"), b"one")
    path = cache.programs.put(key("p"), write_files(b"code"))
    cache.programs.seal(key("p"))

    def refuse(*args, **kwargs):
        raise OSError(errno.EROFS, "Read-only file system")

    for module, name in ((os, "utime"), (tempfile, "mkdtemp"), (os, "mkdir")):
        monkeypatch.setattr(module, name, refuse)
    assert cache.kernels.get(key("a")) == b"one"
    assert cache.programs.find(key("p")) == path
    assert cache.refusal is None
    cache.kernels.put(key("b"), b"two")
    assert cache.refusal.errno == errno.EROFS
    with pytest.raises(OSError, match="Read-only"):
        cache.programs.put(key("q"), write_files(b"code"))


def test_programs_in_use_survive(cache):
    paths = [cache.programs.put(key(name), write_files(b"x" * 1000)) for name in "pqr"]
    lock = locks.share_folder(paths[0])
    assert {entry.key for entry in cache.prune(0, keep=(key("q"),))} == {key("r")}
    assert [path.exists() for path in paths] == [True, True, False]
    os.close(lock)
    assert {entry.key for entry in cache.prune(0)} == {key("p"), key("q")}
    assert cache.entries() == []


def test_clear_removes_what_is_in_use_too(cache):
    path = cache.programs.put(key("p"), write_files(b"code"))
    cache.kernels.put(key("a"), b"one")
    lock = locks.share_folder(path)
    assert len(cache.clear()) == 2
    assert cache.entries() == []
    os.close(lock)


def test_entries_are_removed_from_a_full_disk(cache, monkeypatch):
    cache.programs.put(key("p"), write_files(b"code"))

    def refuse(*args, **kwargs):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(tempfile, "mkdtemp", refuse)
    cache.clear()
    assert cache.entries() == []


class TestKnownDigest:
    """A model file is read again only where it, or its external data, may have changed."""

    @pytest.fixture
    def model(self, tmp_path):
        path = tmp_path / "model.onnx"
        path.write_bytes(b"model")
        settle(path)
        return path

    def test_unknown_until_the_compiler_has_read_it(self, cache, model):
        assert source.known_digest(str(model), cache) is None

    def test_remembered_without_reading(self, cache, model, monkeypatch):
        digest = remember(cache, model)
        monkeypatch.setattr(source, "file_digest", lambda path: pytest.fail("was read"))
        assert source.known_digest(str(model), cache) == digest == hashlib.sha256(b"model").hexdigest()

    def test_copy_is_recognised_by_its_contents(self, cache, model, tmp_path):
        digest = remember(cache, model)
        copy = tmp_path / "copy.onnx"
        copy.write_bytes(b"model")
        assert source.known_digest(str(copy), cache) == digest

    def test_model_that_was_read_is_not_read_again(self, cache, model, tmp_path, monkeypatch):
        digest = remember(cache, model)
        copy = tmp_path / "copy.onnx"
        copy.write_bytes(b"model")
        monkeypatch.setattr(source, "file_digest", lambda path: pytest.fail("was read"))
        assert source.known_digest(str(copy), cache, hashlib.sha256(b"model").hexdigest()) == digest

    def test_change_of_equal_size_is_noticed(self, cache, model):
        remember(cache, model)
        model.write_bytes(b"MODEL")
        assert source.known_digest(str(model), cache) is None

    def test_change_of_external_data_is_noticed(self, cache, model, tmp_path):
        weights = tmp_path / "weights.bin"
        weights.write_bytes(b"1")
        settle(weights)
        first = remember(cache, model, weights)
        assert source.known_digest(str(model), cache) == first
        weights.write_bytes(b"2")
        second = source.known_digest(str(model), cache)
        assert second not in (None, first)
        weights.unlink()
        with pytest.raises(FileNotFoundError):
            source.known_digest(str(model), cache)

    def test_file_written_a_moment_ago_is_not_remembered_by_its_time(self, cache, model):
        stat = model.stat()
        remember(cache, model, since_ns=stat.st_mtime_ns + 1000)
        model.write_bytes(b"MODEL")
        os.utime(model, ns=(stat.st_atime_ns, stat.st_mtime_ns))
        assert source.known_digest(str(model), cache) is None


def settle(path) -> None:
    os.utime(path, (1000, 1000))


def remember(cache: Cache, model, *external, since_ns: int = 10**18) -> str:
    own = source.file_digest(str(model))
    stamps = [source.stamp(str(path)) for path in external]
    return source.remember(source.stamp(str(model)), own, stamps, cache, since_ns)


def test_program_key_depends_on_model_options_and_compiler(monkeypatch):
    keys = {
        source.program_key("m", {}),
        source.program_key("n", {}),
        source.program_key("m", {"optimization_level": 0}),
    }
    monkeypatch.setattr(source, "compiler_identity", lambda: "another")
    keys.add(source.program_key("m", {}))
    monkeypatch.undo()
    monkeypatch.setattr(source, "machine_identity", lambda: "another")
    keys.add(source.program_key("m", {}))
    assert len(keys) == 5
    assert source.program_key("m", {"a": 1, "b": 2}) == source.program_key("m", {"b": 2, "a": 1})


def test_compiler_identity_changes_with_a_source_file(tmp_path, monkeypatch):
    (tmp_path / "passes").mkdir()
    (tmp_path / "passes" / "a.py").write_text("x = 1")
    monkeypatch.setattr(source, "compiler_folder", lambda: tmp_path)
    before = source.compiler_identity()
    assert source.compiler_identity() == before
    (tmp_path / "passes" / "a.py").write_text("x = 12")
    assert source.compiler_identity() != before
