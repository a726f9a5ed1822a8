"""manifest.json: what a compiled model consists of, and what its code needs.

    {"format": "onnxsmith program", "schema": 6,
     "code": [{"file": "code.so", "program": "program.json",
               "system": "linux", "machine": "x86_64", "features": ["avx2", "fma"], "level": "haswell"}],
     "files": {"code.so": {"bytes": 1234, "sha256": "..."}, ...},
     "sha256": "..."}

The last member is the digest of all before it, as they are spelt, so that no byte of a manifest can change
unseen. "format", "schema" and "sha256" mean the same in every schema; the others are this one's.
"""

from __future__ import annotations

import json
from collections.abc import Mapping

from onnxsmith.cpu import CodeTarget, host
from onnxsmith.digests import sha256
from onnxsmith.program import SCHEMA_VERSION
from onnxsmith.record import Record

_FORMAT = "onnxsmith program"
_END = b"\n}\n"
_SEAL = b',\n "sha256": "%s"\n}\n'
_SEAL_BYTES = len(_SEAL) - len(b"%s") + 64


class ArtifactError(Exception):
    """A compiled model that is missing or damaged; the message names the file and says what would be right."""


class UnfitError(ArtifactError):
    """A compiled model that is whole, but made for another machine or another release."""


class OtherMachineError(UnfitError):
    """A compiled model for other machines than this one; the message says what it holds, and what is missing here."""


class FileEntry(Record):
    """A file's size in bytes and its SHA-256 in hexadecimal."""

    bytes: int
    sha256: str


class CodeFile(Record):
    """A shared library with the kernels of a program, where it runs, and the program's file."""

    file: str
    target: CodeTarget
    program: str = "program.json"


class Manifest(Record):
    """`code` is one library for each kind of machine, the best first; `files` are all files but the manifest."""

    code: tuple[CodeFile, ...]
    files: Mapping[str, FileEntry]

    def code_here(self) -> CodeFile:
        """The first library that this machine can run. OtherMachineError where there is none."""
        for code in self.code:
            if code.target.fits_here():
                return code
        raise OtherMachineError(self._why_unfit())

    def _why_unfit(self) -> str:
        here = host()
        levels: dict[str, list[str]] = {}
        for code in self.code:
            levels.setdefault(code.target.platform, []).append(code.target.level)
        holds = ", ".join(f"{platform} ({', '.join(names)})" for platform, names in levels.items())
        least = [code.target for code in self.code if code.target.platform == here.platform][-1:]
        if not least:
            return f"the code is for {holds}, and this is {here.platform}"
        missing = ", ".join(least[0].lacking())
        return f"the code is for {holds}, and this CPU lacks {missing}, which {least[0].level} needs"


def encode(manifest: Manifest) -> bytes:
    """The file's content; the same for equal manifests."""
    content = {
        "format": _FORMAT,
        "schema": SCHEMA_VERSION,
        "code": [
            {
                "file": code.file,
                "program": code.program,
                "system": code.target.system,
                "machine": code.target.machine,
                "features": code.target.features,
                "level": code.target.level,
            }
            for code in manifest.code
        ],
        "files": {
            name: {"bytes": entry.bytes, "sha256": entry.sha256} for name, entry in sorted(manifest.files.items())
        },
    }
    return sealed(json.dumps(content, indent=1).encode() + b"\n")


def decode(text: bytes) -> Manifest:
    """The manifest that `encode` made `text` from.

    ArtifactError for a text that is no manifest or was changed, UnfitError for one of another schema. The
    messages do not name the file.
    """
    if text[-_SEAL_BYTES : -_SEAL_BYTES + 1] != b"," or text != sealed(text[:-_SEAL_BYTES] + _END):
        raise ArtifactError("damaged, or not the manifest of a compiled model: its digest is not that of its text")
    try:
        content = json.loads(text)
        if content["format"] != _FORMAT:
            raise ArtifactError(f"of the format '{content['format']}', which is not '{_FORMAT}'")
        if content["schema"] != SCHEMA_VERSION:
            raise UnfitError(f"written in schema {content['schema']}, and this runtime reads {SCHEMA_VERSION}")
        return Manifest(
            tuple(
                CodeFile(
                    code["file"],
                    CodeTarget(code["system"], code["machine"], tuple(code["features"]), code["level"]),
                    code["program"],
                )
                for code in content["code"]
            ),
            {name: FileEntry(entry["bytes"], entry["sha256"]) for name, entry in content["files"].items()},
        )
    except (ValueError, TypeError, KeyError) as error:
        raise ArtifactError(f"not the manifest of a compiled model: {error!r}") from error


def sealed(text: bytes) -> bytes:
    """A JSON object, ending in a line of its own, with the digest of its text as last member."""
    return text.removesuffix(_END) + _SEAL % sha256(text).encode()
