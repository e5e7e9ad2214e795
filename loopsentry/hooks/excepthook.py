"""`sys.excepthook`: exceptions that end the program."""

from __future__ import annotations

import sys
from types import TracebackType
from typing import Any

from loopsentry._safely import safely
from loopsentry.model import Reporter

_previous: list[Any] = []
_ours: list[Any] = []


def attach(report: Reporter, _registry: Any) -> None:
    """Examine an exception before whatever printed it before prints it."""
    previous = sys.excepthook
    examine = safely(report)

    def excepthook(
        kind: type[BaseException], exc: BaseException, traceback: TracebackType | None
    ) -> None:
        if excepthook in _ours and isinstance(exc, Exception):
            examine(exc)
        previous(kind, exc, traceback)

    _previous.append(previous)
    _ours.append(excepthook)
    sys.excepthook = excepthook


def detach() -> None:
    """Put the earlier hook back, unless somebody has put another one on top."""
    previous, ours = _previous.pop(), _ours.pop()
    if sys.excepthook is ours:
        sys.excepthook = previous
