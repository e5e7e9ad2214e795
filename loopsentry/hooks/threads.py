"""`threading.excepthook`: exceptions that end a thread."""

from __future__ import annotations

import threading

from loopsentry._safely import until_failure
from loopsentry.model import Reporter
from loopsentry.registry import Registry, Undo

from ._chain import chain


def attach(report: Reporter, _registry: Registry) -> Undo:
    """Examine an exception before whatever printed it before prints it."""

    @until_failure
    def examine(args: threading.ExceptHookArgs) -> None:
        if isinstance(args.exc_value, Exception):
            report(args.exc_value)

    return chain(threading, "excepthook", examine)
