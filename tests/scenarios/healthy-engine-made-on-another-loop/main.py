"""An engine made while one loop runs, and first used on another: it has no loop, its connections have."""
import asyncio
import os

from sqlalchemy import text
from sqlalchemy.ext.asyncio import create_async_engine


async def make_engine():
    return create_async_engine(os.environ["SCENARIO_DSN"].replace("postgresql://", "postgresql+asyncpg://", 1))


async def count(engine):
    async with engine.connect() as connection:
        print(await connection.scalar(text("select count(*) from pg_roles")) > 0)
    await engine.dispose()


engine = asyncio.run(make_engine())
asyncio.run(count(engine))
