"""aiomysql: what its connections say of their own loop."""

from __future__ import annotations

from ._clients import sighter

PACKAGES = ("aiomysql",)
OPERATIONS = ("aiomysql.connection", "aiomysql.cursors", "aiomysql.pool")

# Bound to the loop of its stream: aiomysql/connection.py.
sight = sighter("aiomysql.connection", "Connection", kind="connection")
