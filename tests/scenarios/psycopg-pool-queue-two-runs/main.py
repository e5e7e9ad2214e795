"""A small pool, two runs."""
import asyncio
import os

from sqlalchemy import text
from sqlalchemy.ext.asyncio import create_async_engine

engine = create_async_engine(
    os.environ["SCENARIO_DSN"].replace("postgresql://", "postgresql+psycopg://", 1), pool_size=1, max_overflow=0
)


async def load(number):
    async with engine.connect() as conn:
        return await conn.scalar(text("select cast(:n as integer) from pg_sleep(0.05)"), {"n": number})


async def load_all(numbers):
    return await asyncio.gather(*map(load, numbers))


def batch(numbers):
    print(asyncio.run(load_all(numbers)))


if __name__ == "__main__":
    batch([1, 2, 3])
    batch([4, 5, 6])
