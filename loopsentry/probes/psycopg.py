"""psycopg's asynchronous connections: bound to no loop between operations."""

from __future__ import annotations

import sys
from typing import Any

from loopsentry.model import Sighting

PACKAGES = ("psycopg", "psycopg_pool")
OPERATIONS = ("psycopg.connection_async", "psycopg.cursor_async")


def sight(target: Any) -> Sighting | None:
    """Recognise an asynchronous connection, which survives a change of loop while it is idle."""
    psycopg = sys.modules.get("psycopg")
    if psycopg is None or not issubclass(type(target), psycopg.AsyncConnection):
        return None
    return Sighting(
        kind="connection",
        label="psycopg connection",
        library="psycopg",
        target=target,
        tolerant=True,
        closed=target.closed,
    )
