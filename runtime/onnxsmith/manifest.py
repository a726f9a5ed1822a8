"""manifest.json: what a compiled model consists of, and what its code needs.

    {"format": "onnxsmith program", "schema": 4,
     "code": [{"file": "code.so", "system": "linux", "machine": "x86_64", "features": ["avx2", "fma"]}],
     "files": {"code.so": {"bytes": 1234, "sha256": "..."}, ...},
     "sha256": "..."}

The last member is the digest of all before it, as they are spelt, so that no byte of a manifest can change
unseen. "format", "schema" and "sha256" mean the same in every schema; the others are this one's.
"""

from __future__ import annotations

import json
from collections.abc import Mapping

from onnxsmith.cpu import CodeTarget
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


class FileEntry(Record):
    """A file's size in bytes and its SHA-256 in hexadecimal."""

    bytes: int
    sha256: str


class CodeFile(Record):
    """A shared library with the program's kernels, and where it runs."""

    file: str
    target: CodeTarget


class Manifest(Record):
    """`code` is one library for each kind of machine, the best first; `files` are all files but the manifest."""

    code: tuple[CodeFile, ...]
    files: Mapping[str, FileEntry]

    def code_here(self) -> CodeFile:
        """The first library that this machine can run. UnfitError where there is none."""
        reasons = []
        for code in self.code:
            reason = code.target.why_unfit()
            if reason is None:
                return code
            reasons.append(reason)
        raise UnfitError("; ".join(reasons))


def encode(manifest: Manifest) -> bytes:
    """The file's content; the same for equal manifests."""
    content = {
        "format": _FORMAT,
        "schema": SCHEMA_VERSION,
        "code": [
            {
                "file": code.file,
                "system": code.target.system,
                "machine": code.target.machine,
                "features": code.target.features,
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
                CodeFile(code["file"], CodeTarget(code["system"], code["machine"], tuple(code["features"])))
                for code in content["code"]
            ),
            {name: FileEntry(entry["bytes"], entry["sha256"]) for name, entry in content["files"].items()},
        )
    except (ValueError, TypeError, KeyError) as error:
        raise ArtifactError(f"not the manifest of a compiled model: {error!r}") from error


def sealed(text: bytes) -> bytes:
    """A JSON object, ending in a line of its own, with the digest of its text as last member."""
    return text.removesuffix(_END) + _SEAL % sha256(text).encode()
