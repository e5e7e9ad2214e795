"""aioodbc: what its connections say of their own loop."""

from __future__ import annotations

import sys
from typing import Any

from loopsentry.model import Sighting

PACKAGES = ("aioodbc", "pyodbc")
OPERATIONS = ("aioodbc.connection", "aioodbc.cursor", "aioodbc.pool")


def sight(target: Any) -> Sighting | None:
    """Recognise a connection, bound to the loop whose executor it uses (aioodbc/connection.py)."""
    module = sys.modules.get("aioodbc.connection")
    if module is None or not issubclass(type(target), module.Connection):
        return None
    return Sighting(
        kind="connection",
        label="aioodbc connection",
        library="aioodbc",
        target=target,
        loop=getattr(target, "_loop", None),
    )
