"""An export walks a cursor; a counter writes through the same connection."""
import asyncio
import os

import asyncpg


async def walk(connection):
    async with connection.transaction():
        async for row in connection.cursor("select generate_series(1, 200)", prefetch=1):
            assert row


async def count(connection):
    async with connection.transaction():
        await connection.execute("select pg_sleep(0.01)")


async def main():
    connection = await asyncpg.connect(os.environ["SCENARIO_DSN"])
    await asyncio.gather(walk(connection), count(connection))


asyncio.run(main())
