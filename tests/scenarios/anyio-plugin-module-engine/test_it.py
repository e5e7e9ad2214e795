import os

import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine

engine = create_async_engine(os.environ["SCENARIO_DSN"].replace("postgresql://", "postgresql+asyncpg://", 1))
pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend():
    return "asyncio"


async def page(number):
    async with AsyncSession(engine) as session:
        rows = await session.execute(text("select name from pg_settings order by name limit 10 offset :o"), {"o": number * 10})
        return rows.scalars().all()


async def test_first_page():
    assert len(await page(0)) == 10


async def test_second_page():
    assert len(await page(1)) == 10
