"""`threading.excepthook`: exceptions that end a thread."""

from __future__ import annotations

import threading
from typing import Any

from loopsentry._safely import safely
from loopsentry.model import Reporter

_attached: list[tuple[Any, Any]] = []


def attach(report: Reporter, _registry: Any) -> None:
    """Examine an exception before whatever printed it before prints it."""
    previous = threading.excepthook
    examine = safely(report)

    def excepthook(args: threading.ExceptHookArgs, /) -> None:
        if any(ours is excepthook for ours, _ in _attached) and isinstance(
            args.exc_value, Exception
        ):
            examine(args.exc_value)
        previous(args)

    _attached.append((excepthook, previous))
    threading.excepthook = excepthook


def detach() -> None:
    """Put the earlier hook back, unless somebody has put another one on top."""
    ours, previous = _attached.pop()
    if threading.excepthook is ours:
        threading.excepthook = previous
