import asyncio
import os

import pytest
import pytest_asyncio
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine


@pytest_asyncio.fixture
async def session():
    engine = create_async_engine(os.environ["SCENARIO_DSN"].replace("postgresql://", "postgresql+asyncpg://", 1))
    async with AsyncSession(engine) as session:
        yield session
    await engine.dispose()


async def count_roles(session):
    return await session.scalar(text("select count(*) from pg_roles"))


async def count_tables(session):
    return await session.scalar(text("select count(*) from pg_tables"))


@pytest.mark.asyncio
async def test_one_after_the_other(session):
    assert await count_roles(session)
    assert await count_tables(session)


@pytest.mark.asyncio
async def test_both_at_once(session):
    await asyncio.gather(count_roles(session), count_tables(session))
