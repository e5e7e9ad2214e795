"""A connection of aioodbc's, with SQLite's ODBC driver."""

from __future__ import annotations

from typing import Any

import aioodbc

TITLE = "aioodbc connection"


async def make() -> Any:
    """Open a connection."""
    return await aioodbc.connect(dsn="Driver=SQLite3;Database=:memory:")


async def use(client: Any) -> None:
    """Ask for a row."""
    async with client.cursor() as cursor:
        await cursor.execute("select 1")


async def close(client: Any) -> None:
    """Close it."""
    await client.close()
