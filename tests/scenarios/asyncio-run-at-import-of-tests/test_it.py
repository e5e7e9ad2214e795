"""A test module makes its tables while it is imported, before any test has a loop."""

import asyncio
import os

import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import create_async_engine

engine = create_async_engine(os.environ["SCENARIO_DSN"].replace("://", "+asyncpg://", 1))


async def create():
    async with engine.begin() as connection:
        await connection.execute(text("select 1"))


asyncio.run(create())


@pytest.mark.asyncio
async def test_count():
    async with engine.connect() as session:
        assert await session.scalar(text("select 42")) == 42
