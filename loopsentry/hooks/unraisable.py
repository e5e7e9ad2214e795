"""`sys.unraisablehook`: exceptions that the interpreter prints and ignores, in finalisers."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from loopsentry._safely import until_failure
from loopsentry.model import Clue, Reporter
from loopsentry.registry import Registry, Undo

from ._chain import chain

if TYPE_CHECKING:
    from sys import UnraisableHookArgs


def attach(report: Reporter, _registry: Registry) -> Undo:
    """Examine an exception before it is printed; it is clean-up, and the program goes on."""

    @until_failure
    def examine(unraisable: UnraisableHookArgs) -> None:
        if isinstance(unraisable.exc_value, Exception):
            report(unraisable.exc_value, Clue(cleanup=True, ignored=True))

    return chain(sys, "unraisablehook", examine)
