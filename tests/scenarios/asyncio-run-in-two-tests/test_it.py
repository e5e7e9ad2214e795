"""Plain tests, each of which runs the code under test with asyncio.run."""

import asyncio
import os

from sqlalchemy import text
from sqlalchemy.ext.asyncio import create_async_engine

engine = create_async_engine(os.environ["SCENARIO_DSN"].replace("://", "+asyncpg://", 1))


async def count():
    async with engine.connect() as connection:
        found = await connection.scalar(text("select 42"))
    return found


def test_count():
    assert asyncio.run(count()) == 42


def test_count_again():
    assert asyncio.run(count()) == 42
