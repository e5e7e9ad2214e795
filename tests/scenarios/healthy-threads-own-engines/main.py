"""Every loop has its own engine; results travel over run_coroutine_threadsafe."""
import asyncio
import os
import threading

from sqlalchemy import text
from sqlalchemy.ext.asyncio import create_async_engine

URL = os.environ["SCENARIO_DSN"].replace("postgresql://", "postgresql+asyncpg://", 1)


async def count(engine):
    async with engine.connect() as conn:
        return await conn.scalar(text("select count(*) from pg_type"))


async def count_alone():
    engine = create_async_engine(URL)
    try:
        return await count(engine)
    finally:
        await engine.dispose()


def worker(results, engine, loop):
    results.append(asyncio.run(count_alone()))
    results.append(asyncio.run_coroutine_threadsafe(count(engine), loop).result(10))


async def main():
    engine, results = create_async_engine(URL), []
    await count(engine)
    loop = asyncio.get_running_loop()
    threads = [threading.Thread(target=worker, args=(results, engine, loop)) for _ in range(2)]
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):
        await asyncio.sleep(0.02)
    await engine.dispose()
    assert len(results) == 4 and len(set(results)) == 1


if __name__ == "__main__":
    asyncio.run(main())
