"""One connection of asyncpg's."""

from __future__ import annotations

import os
from typing import Any

import asyncpg

TITLE = "asyncpg connection"


async def make() -> Any:
    """Open a connection."""
    return await asyncpg.connect(os.environ["POSTGRESQL"])


async def use(client: Any) -> None:
    """Ask for a row."""
    await client.fetchval("select 1 from pg_sleep(0.1)")


async def close(client: Any) -> None:
    """Close it."""
    await client.close()
