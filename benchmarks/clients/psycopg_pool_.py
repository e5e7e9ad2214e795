"""psycopg's pool."""

from __future__ import annotations

import os
from typing import Any

import psycopg_pool

TITLE = "psycopg pool"


async def make() -> Any:
    """Open a pool."""
    url = os.environ["POSTGRESQL"]
    pool = psycopg_pool.AsyncConnectionPool(url, min_size=1, max_size=2, open=False, timeout=3)
    await pool.open(wait=True)
    return pool


async def use(client: Any) -> None:
    """Ask for a row."""
    async with client.connection() as connection:
        await connection.execute("select 1 from pg_sleep(0.1)")


async def close(client: Any) -> None:
    """Close it."""
    await client.close()
