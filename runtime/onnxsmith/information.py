"""Facts about this installation."""

from __future__ import annotations

import sys

from onnxsmith.options import settings
from onnxsmith.providers import get_available_providers
from onnxsmith.version import __version__

_PACKAGES = ("numpy", "numba", "llvmlite", "onnx", "ml_dtypes", "onnxruntime", "openvino")


def get_version_string() -> str:
    """The release of onnxsmith."""
    return __version__


def get_build_info() -> str:
    """One line about the release and the interpreter."""
    import platform

    return f"onnxsmith {__version__}, Python {platform.python_version()}, {platform.platform()}"


def print_debug_info() -> None:
    """Print what a bug report should say."""
    import platform
    from importlib import metadata  # here: its import takes longer than all of onnxsmith

    print(f"onnxsmith version: {__version__}")
    print(f"platform: {platform.platform()}")
    print(f"Python: {sys.version.split()[0]} at {sys.executable}")
    print(f"providers: {', '.join(get_available_providers())}")
    print(f"cache: {settings().cache_dir or 'off'}")
    for package in _PACKAGES:
        try:
            print(f"{package}: {metadata.version(package)}")
        except metadata.PackageNotFoundError:
            print(f"{package}: not installed")
