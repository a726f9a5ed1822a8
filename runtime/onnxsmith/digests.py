"""SHA-256, without OpenSSL where that is slower.

`hashlib` loads OpenSSL, which takes 3 ms: as long as Python's own code takes for half a megabyte. The manifest, the
program and the code of a small model are less.
"""

from __future__ import annotations

from typing import Any

from onnxsmith.forks import UNDIVIDED

_OPENSSL_FROM = 1 << 19


def sha256(content: bytes) -> str:
    """The digest in hexadecimal."""
    own = _own_sha256() if len(content) < _OPENSSL_FROM else None
    if own is None:
        with UNDIVIDED:
            import hashlib

        own = hashlib.sha256
    digest: str = own(content).hexdigest()
    return digest


def _own_sha256() -> Any:
    """Python's own implementation; None where it was built without."""
    try:
        from _sha2 import sha256  # type: ignore[import-not-found]  # from Python 3.12 on
    except ImportError:
        try:
            from _sha256 import sha256  # type: ignore[import-not-found]
        except ImportError:
            return None
    return sha256
