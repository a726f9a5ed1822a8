"""The logger "onnxsmith" of the standard library, set by onnxruntime's severities."""

from __future__ import annotations

import operator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import logging

NAME = "onnxsmith"
# onnxruntime's severities (verbose, info, warning, error, fatal) as levels of the standard library.
_LEVELS = (10, 20, 30, 40, 50)


def logger() -> logging.Logger:
    """The package's logger; the standard library's `logging` is imported when it is first needed."""
    import logging

    return logging.getLogger(NAME)


def level_of(severity: int) -> int:
    """The standard library's level of an onnxruntime severity. RuntimeError where there is none, as in onnxruntime."""
    if not 0 <= operator.index(severity) < len(_LEVELS):
        raise RuntimeError(f"Invalid logging severity {severity}. 0:Verbose, 1:Info, 2:Warning, 3:Error, 4:Fatal")
    return _LEVELS[severity]


def set_default_logger_severity(severity: int) -> None:
    """Log what is at least as severe: 0 verbose, 1 info, 2 warning (the default), 3 error, 4 fatal."""
    logger().setLevel(level_of(severity))


def set_default_logger_verbosity(verbosity: int) -> None:
    """Accepted for compatibility: there is one level of verbose messages."""
    operator.index(verbosity)
