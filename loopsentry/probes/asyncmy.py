"""asyncmy: what its connections say of their own loop."""

from __future__ import annotations

import sys
from typing import Any

from loopsentry.model import Sighting

PACKAGES = ("asyncmy",)
OPERATIONS = ("asyncmy.connection", "asyncmy.cursors", "asyncmy.pool")


def sight(target: Any) -> Sighting | None:
    """Recognise a connection, bound to the loop of its stream (asyncmy/connection)."""
    module = sys.modules.get("asyncmy.connection")
    if module is None or not issubclass(type(target), module.Connection):
        return None
    return Sighting(
        kind="connection",
        label="asyncmy connection",
        library="asyncmy",
        target=target,
        loop=getattr(target, "_loop", None),
    )
