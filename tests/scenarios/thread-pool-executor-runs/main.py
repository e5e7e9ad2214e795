"""Items are processed in a thread pool with one worker."""
import asyncio
import os
from concurrent.futures import ThreadPoolExecutor

from sqlalchemy import text
from sqlalchemy.ext.asyncio import create_async_engine

engine = create_async_engine(os.environ["SCENARIO_DSN"].replace("postgresql://", "postgresql+asyncpg://", 1))


async def square(item):
    async with engine.begin() as conn:
        return await conn.scalar(text("select cast(:i as integer) * cast(:i as integer)"), {"i": item})


def process(item):
    return asyncio.run(square(item))


def main():
    with ThreadPoolExecutor(1) as workers:
        for item, result in enumerate(workers.map(process, range(3))):
            print(f"item {item}: {result}")


if __name__ == "__main__":
    main()
