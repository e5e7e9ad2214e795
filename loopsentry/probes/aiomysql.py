"""aiomysql: what its connections say of their own loop."""

from __future__ import annotations

import sys
from typing import Any

from loopsentry.model import Sighting

PACKAGES = ("aiomysql",)
OPERATIONS = ("aiomysql.connection", "aiomysql.cursors", "aiomysql.pool")


def sight(target: Any) -> Sighting | None:
    """Recognise a connection, bound to the loop of its stream (aiomysql/connection)."""
    module = sys.modules.get("aiomysql.connection")
    if module is None or not issubclass(type(target), module.Connection):
        return None
    return Sighting(
        kind="connection",
        label="aiomysql connection",
        library="aiomysql",
        target=target,
        loop=getattr(target, "_loop", None),
    )
