"""`sys.excepthook`: exceptions that end the program."""

from __future__ import annotations

import sys

from loopsentry._safely import until_failure
from loopsentry.model import Reporter
from loopsentry.registry import Registry, Undo

from ._chain import chain


def attach(report: Reporter, _registry: Registry) -> Undo:
    """Examine an exception before whatever printed it before prints it."""

    @until_failure
    def examine(_kind: object, exc: object, _traceback: object) -> None:
        if isinstance(exc, Exception):
            report(exc)

    return chain(sys, "excepthook", examine)
