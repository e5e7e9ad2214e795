"""aiosqlite's connections: a thread each, bound to no loop between operations."""

from __future__ import annotations

import sys
from typing import Any

from loopsentry._frames import module_of, walk_traceback
from loopsentry.exceptions import traceback_of
from loopsentry.model import Sighting, Symptom

PACKAGES = ("aiosqlite",)
OPERATIONS = ("aiosqlite.core", "aiosqlite.cursor")


_CLOSED = ("no active connection", "Connection closed")


def read(exc: BaseException, text: str) -> Symptom | None:
    """Translate what a closed connection answers: a plain ValueError (aiosqlite/core.py)."""
    if type(exc) is not ValueError or text not in _CLOSED:
        return None
    sites = walk_traceback(traceback_of(exc))
    if not sites or module_of(sites[0].frame) != "aiosqlite.core":
        return None
    return Symptom(
        kind="released", library="aiosqlite", type="builtins.ValueError", text=text, sent=False
    )


def sight(target: Any) -> Sighting | None:
    """Recognise a connection, which answers whichever loop asks it."""
    aiosqlite = sys.modules.get("aiosqlite")
    if aiosqlite is None or not issubclass(type(target), aiosqlite.Connection):
        return None
    return Sighting(
        kind="connection",
        label="aiosqlite connection",
        library="aiosqlite",
        target=target,
        tolerant=True,
        block="aiosqlite.connect(path)",
    )
