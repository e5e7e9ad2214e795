"""Cache against database, whoever is faster."""
import asyncio
import os

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine

engine = create_async_engine(os.environ["SCENARIO_DSN"].replace("postgresql://", "postgresql+asyncpg://", 1))


async def from_cache():
    await asyncio.sleep(0.001)
    return "cached"


async def from_database(session):
    return await session.scalar(text("select 'fresh' from pg_sleep(0.5)"))


async def look_up():
    async with AsyncSession(engine) as session:
        tasks = [asyncio.create_task(from_cache()), asyncio.create_task(from_database(session))]
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        print("cache was faster:", done.pop().result())


if __name__ == "__main__":
    asyncio.run(look_up())
