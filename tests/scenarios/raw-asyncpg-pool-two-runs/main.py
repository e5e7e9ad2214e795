"""Two steps of a nightly job, each in an asyncio.run of its own."""
import asyncio
import os

import asyncpg

pool = None


async def get_pool():
    global pool
    if pool is None:
        pool = await asyncpg.create_pool(os.environ["SCENARIO_DSN"], min_size=1, max_size=4)
    return pool


async def count_tables():
    async with (await get_pool()).acquire() as conn:
        return await conn.fetchval("select count(*) from pg_class")


async def count_roles():
    return await (await get_pool()).fetchval("select count(*) from pg_roles")


def main():
    print("tables:", asyncio.run(count_tables()))
    print("roles:", asyncio.run(count_roles()))


if __name__ == "__main__":
    main()
