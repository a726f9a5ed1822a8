"""Loads a program's shared library from verified bytes, and binds the native core's entry points."""

from __future__ import annotations

import _ctypes
import ctypes
import os
import sys
import weakref
from collections.abc import Callable
from typing import Any

import numpy as np

from onnxsmith.built_in import built_in, definition
from onnxsmith.cpu import library_suffix
from onnxsmith.native_layout import CORE_VERSION

NativeFunction = Callable[..., int]

_ENTRY_POINTS = {
    "os_core_version": 0,
    "os_plan": 1,
    "os_bind": 2,
    "os_steps": 3,
    "os_pool_worker": 2,
    "os_pool_stop": 1,
    "os_pool_spin": 1,
}


class LibraryError(Exception):
    """The shared library of a program cannot be loaded, or is not one that this runtime can run."""


class Library:
    """A loaded shared library: the entry points of `native_layout` without `os_`, and kernels' addresses.

    Calls of entry points release the GIL. The library is unloaded when the last reference to this object goes.
    """

    def __init__(self, code: bytes) -> None:
        """Load exactly `code`. LibraryError where the system refuses it or its core is of another version."""
        self._library, release = _open_library(code)
        self._finalizer = weakref.finalize(self, release)
        self._finalizer.atexit = False
        version = self._entry_point("os_core_version")()
        if version != CORE_VERSION:
            raise LibraryError(
                f"the program's native core is version {version}, this runtime runs version {CORE_VERSION}: "
                "compile the model again"
            )
        self.plan = self._entry_point("os_plan")
        self.bind = self._entry_point("os_bind")
        self.steps = self._entry_point("os_steps")
        self._call = definition("os_call", self.address_of("os_call"))
        self.pool_worker = self._entry_point("os_pool_worker")
        self.pool_stop = self._entry_point("os_pool_stop")
        self.pool_spin = self._entry_point("os_pool_spin")

    def caller(self, run_array: np.ndarray[Any, np.dtype[np.int64]]) -> Callable[..., int]:
        """The function (inputs, outputs), sequences of arrays, of `os_call` on the run block whose address is
        the only element of `run_array`; for interpreters whose arrays are `native_arrays`."""
        return built_in(self._call, run_array, self)

    def address_of(self, symbol: str) -> int:
        """The address of an exported function. LibraryError where there is none of that name."""
        return ctypes.cast(self._symbol(symbol), ctypes.c_void_p).value or 0

    def _symbol(self, symbol: str) -> Any:
        try:
            return self._library[symbol]
        except AttributeError:
            raise LibraryError(f"the program's library has no function '{symbol}'") from None

    def _entry_point(self, symbol: str) -> NativeFunction:
        function = self._symbol(symbol)
        # c_void_p carries any 64-bit word, and converts faster than c_int64.
        function.argtypes = [ctypes.c_void_p] * _ENTRY_POINTS[symbol]
        function.restype = ctypes.c_int64
        entry_point: NativeFunction = function
        return entry_point


def _open_library(code: bytes) -> tuple[ctypes.CDLL, Callable[[], None]]:
    """(the library, what unloads it and frees its file)."""
    if hasattr(os, "memfd_create"):
        descriptor = os.memfd_create("onnxsmith", os.MFD_CLOEXEC)
        try:
            _write_all(descriptor, code)
            # The descriptor stays open with the library: the loader takes a path that it has seen for the
            # library that it loaded from it, so no other may get this number.
            library = _load(f"/proc/self/fd/{descriptor}")
        except BaseException:
            os.close(descriptor)
            raise
        return library, lambda: _release(library, lambda: os.close(descriptor))
    import tempfile

    # A file in a folder that only this user may enter.
    folder = tempfile.TemporaryDirectory(prefix="onnxsmith-", ignore_cleanup_errors=True)
    path = os.path.join(folder.name, f"code{library_suffix(sys.platform)}")
    with open(path, "wb") as file:
        file.write(code)
    library = _load(path)
    return library, lambda: _release(library, folder.cleanup)


def _write_all(descriptor: int, code: bytes) -> None:
    rest = memoryview(code)
    while rest:
        rest = rest[os.write(descriptor, rest) :]


def _load(path: str) -> ctypes.CDLL:
    try:
        return ctypes.CDLL(path)
    except OSError as error:
        raise LibraryError(f"the program's library cannot be loaded: {error}") from error


def _release(library: ctypes.CDLL, free_file: Callable[[], None]) -> None:
    if sys.platform == "win32":
        _ctypes.FreeLibrary(library._handle)
    else:
        _ctypes.dlclose(library._handle)
    free_file()
