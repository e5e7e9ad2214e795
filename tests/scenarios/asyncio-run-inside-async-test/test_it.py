import asyncio
import os

from sqlalchemy import text
from sqlalchemy.ext.asyncio import create_async_engine

engine = create_async_engine(os.environ["SCENARIO_DSN"].replace("postgresql://", "postgresql+asyncpg://", 1))


async def drop():
    async with engine.begin() as conn:
        await conn.execute(text("drop table if exists never_there"))


def reset_database():
    asyncio.run(drop())


async def test_reset():
    reset_database()
