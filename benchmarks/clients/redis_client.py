"""A client of redis."""

from __future__ import annotations

import os
from typing import Any

import redis.asyncio

TITLE = "redis client"
URL = os.environ["REDIS"]


async def make() -> Any:
    """Make a client."""
    return redis.asyncio.Redis.from_url(URL)


async def use(client: Any) -> None:
    """Ask for an answer."""
    await client.ping()


async def close(client: Any) -> None:
    """Close it."""
    await client.aclose()
