"""Waits that end in a time-out or only last long: an empty pool, a lock in the database, a blocked loop."""
import asyncio
import os
import time

from sqlalchemy import exc, text
from sqlalchemy.ext.asyncio import create_async_engine

engine = create_async_engine(
    os.environ["SCENARIO_DSN"].replace("postgresql://", "postgresql+asyncpg://", 1), pool_size=1, max_overflow=0, pool_timeout=0.2
)


async def empty_pool():
    async with engine.connect():
        try:
            async with engine.connect():
                pass
        except exc.TimeoutError as timeout:
            print("pool:", timeout)


async def waiting_for_a_lock():
    other = create_async_engine(engine.url)
    async with engine.connect() as holder, other.connect() as waiter:
        await holder.execute(text("select pg_advisory_xact_lock(4711)"))
        await waiter.execute(text("set local lock_timeout = '100ms'"))
        try:
            await waiter.execute(text("select pg_advisory_xact_lock(4711)"))
        except exc.DBAPIError as timeout:
            print("lock:", type(timeout.orig).__name__)
        await waiter.rollback()
    await other.dispose()


async def blocked_loop():
    async with engine.connect() as connection:
        query = asyncio.create_task(connection.execute(text("select 1")))
        await asyncio.sleep(0)
        time.sleep(0.3)
        print("blocked:", (await query).scalar())


async def main():
    await empty_pool()
    await waiting_for_a_lock()
    await blocked_loop()
    await engine.dispose()


asyncio.run(main())
