import asyncio
import os

from sqlalchemy import text
from sqlalchemy.ext.asyncio import create_async_engine

engine = create_async_engine(os.environ["SCENARIO_DSN"].replace("postgresql://", "postgresql+asyncpg://", 1))


async def count():
    async with engine.connect() as conn:
        return await conn.scalar(text("select count(*) from pg_roles"))


def test_command_line():
    assert asyncio.run(count())


async def test_service():
    assert await count()
