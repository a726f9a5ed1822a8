"""The reader of zip files agrees with the standard library's, and is not led astray by damage."""

from __future__ import annotations

import io
import random as random_numbers
import zipfile

import pytest

from onnxsmith import zip_directory

CONTENTS = {"a/manifest.json": b"{}", "a/empty": b"", "a/weights": bytes(range(256)) * 9, "b": b"b" * 100}


def archive(*, zip64: bool = False, prefix: bytes = b"", comment: bytes = b"") -> io.BytesIO:
    file = io.BytesIO()
    file.write(prefix)
    with zipfile.ZipFile(file, "a") as made:
        for name, content in CONTENTS.items():
            with made.open(zipfile.ZipInfo(name), "w", force_zip64=zip64) as member:
                member.write(content)
        made.comment = comment
    return file


def read(file: io.BytesIO, member: zip_directory.Member) -> bytes:
    file.seek(zip_directory.data_start(file, member))
    return file.read(member.size)


@pytest.mark.parametrize("form", [{}, {"zip64": True}, {"prefix": b"#!/usr/bin/python3\n"}, {"comment": b"the end"}])
def test_members_are_found(form):
    file = archive(**form)
    found = zip_directory.members(file)
    assert {name: read(file, member) for name, member in found.items()} == CONTENTS
    assert {member.method for member in found.values()} == {zip_directory.STORED}


def test_directory_with_large_numbers(monkeypatch):
    monkeypatch.setattr(zipfile, "ZIP64_LIMIT", 10)
    monkeypatch.setattr(zipfile, "ZIP_FILECOUNT_LIMIT", 1)
    file = archive(zip64=True)
    assert b"PK\6\6" in file.getvalue() and b"PK\6\7" in file.getvalue()
    found = zip_directory.members(file)
    assert {name: read(file, member) for name, member in found.items()} == CONTENTS


def test_compression_is_told():
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as made:
        made.writestr("a", bytes(1000))
    assert zip_directory.members(file)["a"].method == zipfile.ZIP_DEFLATED


@pytest.mark.parametrize("content", [b"", b"no zip file", b"PK\5\6", bytes(70_000), b"PK\5\6" + b"\xff" * 18])
def test_what_is_no_zip_file(content):
    with pytest.raises(ValueError):
        zip_directory.members(io.BytesIO(content))


@pytest.mark.parametrize("form", [{}, {"zip64": True}])
def test_damage_is_an_error_or_does_no_harm(form):
    whole = archive(**form).getvalue()
    generator = random_numbers.Random(0)
    damaged = [whole[:length] for length in range(0, len(whole), 7)]
    for _ in range(3000):
        content = bytearray(whole)
        # Most of the file is the members' contents: their names and places are what matters here.
        position = generator.choice([*range(100), *range(len(whole) - 400, len(whole))])
        content[position] ^= generator.randrange(1, 256)
        damaged.append(bytes(content))
    for content in damaged:
        file = io.BytesIO(content)
        try:
            for member in zip_directory.members(file).values():
                read(file, member)
        except ValueError:
            continue
