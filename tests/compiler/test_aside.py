"""Programs that no cache keeps: the first folder that takes them, and nothing left over."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest

from onnxsmith import scratch
from onnxsmith_compiler import aside
from onnxsmith_compiler.aside import Asides
from onnxsmith_compiler.errors import NoRoom


@pytest.fixture
def roots(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """Two folders that programs may go into."""
    made = [tmp_path / "first", tmp_path / "second"]
    for root in made:
        root.mkdir()
    monkeypatch.setattr(aside, "_roots", lambda: iter(made))
    return made


def write(folder: Path) -> None:
    (folder / "code.so").write_bytes(b"code")


def refuse_below(root: Path, number: int = errno.ENOSPC):
    def attempt(folder: Path) -> None:
        write(folder)
        if root in folder.parents:
            raise OSError(number, "No space left on device")

    return attempt


def test_a_program_is_where_it_was_written_until_it_is_cleared(roots: list[Path]) -> None:
    asides = Asides()
    path = asides.write(write)
    assert (path / "code.so").read_bytes() == b"code" and roots[0] in path.parents
    scratch.remove_abandoned(roots[0])  # as another process does: this one still holds it
    assert path.exists()
    asides.clear()
    assert list(roots[0].iterdir()) == []


def test_the_next_folder_is_taken_where_the_first_is_full(roots: list[Path]) -> None:
    path = Asides().write(refuse_below(roots[0]))
    assert roots[1] in path.parents
    assert list(roots[0].iterdir()) == []


def test_no_room(roots: list[Path], tmp_path: Path) -> None:
    with pytest.raises(NoRoom, match=rf"{roots[0]}: No space left on device; {roots[1]}: No space.*set TMPDIR"):
        Asides().write(refuse_below(tmp_path))
    assert [*roots[0].iterdir(), *roots[1].iterdir()] == []


def test_other_errors_are_not_taken_for_a_lack_of_room(roots: list[Path], tmp_path: Path) -> None:
    with pytest.raises(OSError, match="No space"):
        Asides().write(refuse_below(tmp_path, errno.EIO))
    assert list(roots[0].iterdir()) == []


def test_folders_of_sessions_that_are_done_are_let_go_and_those_of_dead_processes_removed(roots: list[Path]) -> None:
    asides = Asides()
    first = asides.write(write)
    scratch.shutil.rmtree(first.parent)
    abandoned = roots[0] / f"{aside._PREFIX}dead"
    abandoned.mkdir()
    second = asides.write(write)
    assert [folder.path for folder in asides._folders] == [second.parent]
    assert list(roots[0].iterdir()) == [second.parent]
    asides.clear()
