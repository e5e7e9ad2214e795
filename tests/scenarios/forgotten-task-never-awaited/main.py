"""Statistics are written on the side."""
import asyncio
import gc
import os

import asyncpg


async def write_statistics(conn):
    await conn.execute("select 1")


async def work():
    conn = await asyncpg.connect(os.environ["SCENARIO_DSN"])
    asyncio.create_task(write_statistics(conn))
    await conn.fetch("select pg_sleep(0.3)")
    print("main work done")
    gc.collect()
    await conn.close()


if __name__ == "__main__":
    asyncio.run(work())
