"""No more than one query at a time, please."""
import asyncio
import os

from sqlalchemy import text
from sqlalchemy.ext.asyncio import create_async_engine

limit = asyncio.Semaphore(1)
engine = create_async_engine(os.environ["SCENARIO_DSN"].replace("postgresql://", "postgresql+asyncpg://", 1))


async def load(number):
    async with limit, engine.connect() as conn:
        return await conn.scalar(text("select cast(:n as integer) from pg_sleep(0.02)"), {"n": number})


async def load_all(numbers):
    try:
        return await asyncio.gather(*map(load, numbers))
    finally:
        await engine.dispose()


def batch(numbers):
    print(asyncio.run(load_all(numbers)))


if __name__ == "__main__":
    batch([1, 2, 3])
    batch([4, 5, 6])
