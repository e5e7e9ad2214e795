"""asyncpg's own pool."""

from __future__ import annotations

import os
from typing import Any

import asyncpg

TITLE = "asyncpg pool"


async def make() -> Any:
    """Open a pool."""
    return await asyncpg.create_pool(os.environ["POSTGRESQL"], min_size=1, max_size=2)


async def use(client: Any) -> None:
    """Ask for a row."""
    await client.fetchval("select 1 from pg_sleep(0.1)")


async def close(client: Any) -> None:
    """Close it."""
    await client.close()
