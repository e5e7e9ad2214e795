"""A report that asks for two figures at once: the library's own coroutines are given to gather()."""
import asyncio
import os

from sqlalchemy import text
from sqlalchemy.ext.asyncio import create_async_engine

engine = create_async_engine(os.environ["SCENARIO_DSN"].replace("postgresql", "postgresql+asyncpg", 1))


async def report():
    async with engine.connect() as connection:
        await connection.execute(text("select 1"))
        return await asyncio.gather(
            connection.scalar(text("select 1 from pg_sleep(0.2)")),
            connection.commit(),
        )


async def main():
    try:
        print(await report())
    finally:
        await engine.dispose()


if __name__ == "__main__":
    asyncio.run(main())
