"""One session, on asyncpg."""

from __future__ import annotations

import os
from typing import Any

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine

TITLE = "SQLAlchemy session, asyncpg"
engine = create_async_engine(
    os.environ["POSTGRESQL"].replace("postgresql", "postgresql+asyncpg", 1)
)


async def make() -> Any:
    """Open a session."""
    return AsyncSession(engine)


async def use(client: Any) -> None:
    """Ask for a row."""
    await client.execute(text("select 1 from pg_sleep(0.1)"))


async def close(client: Any) -> None:
    """Close it."""
    await client.close()
