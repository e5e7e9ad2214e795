"""aiosqlite's connections: a thread each, bound to no loop between operations."""

from __future__ import annotations

import sys
from typing import Any

from loopsentry.model import Sighting

PACKAGES = ("aiosqlite",)
OPERATIONS = ("aiosqlite.core", "aiosqlite.cursor")


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
    )
