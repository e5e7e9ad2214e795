"""Counts in the parent, then in a worker process."""
import asyncio
import multiprocessing
import os
from concurrent.futures import ProcessPoolExecutor

from sqlalchemy import text
from sqlalchemy.ext.asyncio import create_async_engine

engine = create_async_engine(os.environ["SCENARIO_DSN"].replace("postgresql://", "postgresql+asyncpg://", 1))


async def count():
    async with engine.connect() as conn:
        return await conn.scalar(text("select count(*) from pg_type"))


def count_in_child():
    return asyncio.run(count())


def main():
    print("parent ready", asyncio.run(count()))
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("fork")) as pool:
        print(pool.submit(count_in_child).result(20))


if __name__ == "__main__":
    main()
