"""Native code as a built-in function of Python: its calls take a third of the time of calls through ctypes."""

from __future__ import annotations

import ctypes
import functools
from collections.abc import Callable
from typing import Any

_FASTCALL = 0x80  # METH_FASTCALL: f(self, array of arguments, their count)


class Definition(ctypes.Structure):
    """CPython's PyMethodDef. It must live as long as functions that were made of it."""

    _fields_ = (
        ("name", ctypes.c_char_p),
        ("function", ctypes.c_void_p),
        ("flags", ctypes.c_int),
        ("documentation", ctypes.c_char_p),
    )


def definition(name: str, address: int) -> Definition:
    """The definition of functions whose code, at `address`, takes positional arguments alone."""
    return Definition(name.encode(), address, _FASTCALL, None)


def built_in(defined: Definition, bound: object, keeper: object) -> Callable[..., Any]:
    """A function whose code gets `bound` first. It is called with the GIL held, and keeps `keeper` alive."""
    function: Callable[..., Any] = _maker()(ctypes.addressof(defined), bound, keeper)
    return function


@functools.cache
def _maker() -> Callable[..., Any]:
    """Python's function that makes them. `ctypes.pythonapi` has it too, with argument types that others may set."""
    kind = ctypes.PYFUNCTYPE(ctypes.py_object, ctypes.c_void_p, ctypes.py_object, ctypes.py_object)
    return kind(("PyCFunction_NewEx", ctypes.pythonapi))


def interpreter_functions() -> tuple[int, int, int]:
    """Addresses of what such code needs: to release the GIL, to take it again, and to make an int."""
    names = ("PyEval_SaveThread", "PyEval_RestoreThread", "PyLong_FromLong")
    save, restore, make = (ctypes.cast(getattr(ctypes.pythonapi, name), ctypes.c_void_p).value or 0 for name in names)
    return save, restore, make
