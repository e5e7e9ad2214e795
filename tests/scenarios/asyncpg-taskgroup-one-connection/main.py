"""A dashboard that asks for its two numbers at once."""
import asyncio
import os

import asyncpg


async def size(conn):
    return await conn.fetchval("select pg_database_size(current_database()) from pg_sleep(0.2)")


async def connections(conn):
    return await conn.fetchval("select count(*) from pg_stat_activity, pg_sleep(0.2)")


async def dashboard():
    conn = await asyncpg.connect(os.environ["SCENARIO_DSN"])
    try:
        async with asyncio.TaskGroup() as group:
            first = group.create_task(size(conn))
            second = group.create_task(connections(conn))
        print(first.result(), second.result())
    finally:
        conn.terminate()


if __name__ == "__main__":
    asyncio.run(dashboard())
