"""`sys.unraisablehook`: exceptions that the interpreter prints and ignores, in finalisers."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

from loopsentry._safely import safely
from loopsentry.model import Clue, Reporter

if TYPE_CHECKING:
    from sys import UnraisableHookArgs

_attached: list[tuple[Any, Any]] = []


def attach(report: Reporter, _registry: Any) -> None:
    """Examine an exception before it is printed; it is clean-up, and the program goes on."""
    previous = sys.unraisablehook
    examine = safely(report)

    def unraisablehook(unraisable: UnraisableHookArgs, /) -> None:
        if any(ours is unraisablehook for ours, _ in _attached) and isinstance(
            unraisable.exc_value, Exception
        ):
            examine(unraisable.exc_value, Clue(cleanup=True, ignored=True))
        previous(unraisable)

    _attached.append((unraisablehook, previous))
    sys.unraisablehook = unraisablehook


def detach() -> None:
    """Put the earlier hook back, unless somebody has put another one on top."""
    ours, previous = _attached.pop()
    if sys.unraisablehook is ours:
        sys.unraisablehook = previous
