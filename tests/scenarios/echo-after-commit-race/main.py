"""A worker swallows every error of its parts; the pool has one connection only."""
import asyncio
import os

from sqlalchemy import text
from sqlalchemy.ext.asyncio import create_async_engine

engine = create_async_engine(
    os.environ["SCENARIO_DSN"].replace("postgresql://", "postgresql+asyncpg://", 1), pool_size=1, max_overflow=0
)


async def summarise(conn):
    await conn.execute(text("select pg_sleep(0.4)"))


async def save(conn):
    await asyncio.sleep(0.1)
    await conn.commit()


async def worker():
    async with engine.connect() as conn:
        await conn.execute(text("select 1"))
        results = await asyncio.gather(summarise(conn), save(conn), return_exceptions=True)
        print("first part over")
        for result in results:
            if isinstance(result, Exception):
                raise result


if __name__ == "__main__":
    asyncio.run(worker())
