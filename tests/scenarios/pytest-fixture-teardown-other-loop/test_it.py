import os

import pytest_asyncio
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def session():
    engine = create_async_engine(os.environ["SCENARIO_DSN"].replace("postgresql://", "postgresql+asyncpg://", 1))
    session = AsyncSession(engine)
    yield session
    await session.close()


async def test_insert(session):
    await session.execute(text("create temporary table fixture_rows (id int)"))
    await session.execute(text("insert into fixture_rows values (1)"))
