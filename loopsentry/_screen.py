"""The terminal behind standard error, and notes in colour while they are printed there."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from ._safely import safely
from .exceptions import notes_of, walk_tree

#: Gives a note in colour; None for one that is somebody else's. Filled when there is a terminal.
painters: list[Callable[[Any], str | None]] = []


def is_terminal() -> bool:
    """Whether somebody reads standard error on a terminal."""
    try:
        return sys.stderr is not None and sys.stderr.isatty()
    except Exception:  # a program may have put anything in its place, or closed it
        return False


@contextmanager
def colours(exc: object) -> Iterator[None]:
    """Put an exception's notes in colour while the interpreter prints them on a terminal."""
    before: list[tuple[list[Any], list[Any]]] = []
    if painters and isinstance(exc, BaseException) and is_terminal():
        safely(_paint)(exc, before)
    try:
        yield
    finally:
        for notes, plain in before:
            notes[:] = plain


def _paint(exc: BaseException, before: list[tuple[list[Any], list[Any]]]) -> None:
    for node in walk_tree(exc):
        notes = notes_of(node)
        painted = [painters[0](note) for note in notes]
        if any(painted):
            before.append((notes, notes[:]))
            notes[:] = [new or old for new, old in zip(painted, notes, strict=True)]
