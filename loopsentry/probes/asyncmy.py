"""asyncmy: what its connections say of their own loop."""

from __future__ import annotations

from ._clients import sighter

PACKAGES = ("asyncmy",)
OPERATIONS = ("asyncmy.connection", "asyncmy.cursors", "asyncmy.pool")

# Bound to the loop of its stream: asyncmy/connection.pyx.
sight = sighter("asyncmy.connection", "Connection", kind="connection")
