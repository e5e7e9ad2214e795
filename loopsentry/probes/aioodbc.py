"""aioodbc: what its connections say of their own loop."""

from __future__ import annotations

from ._clients import sighter

PACKAGES = ("aioodbc", "pyodbc")
OPERATIONS = ("aioodbc.connection", "aioodbc.cursor", "aioodbc.pool")

# Bound to the loop whose executor it uses: aioodbc/connection.py.
sight = sighter("aioodbc.connection", "Connection", kind="connection")
